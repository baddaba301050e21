"""How long a run took to a validation accuracy; a run that never got there has no time, and no mean hides it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.analysis.arms import Arm
from bench.records.columns import CurvePoint
from bench.records.run import Run
from bench.system.csvfile import Columns

THRESHOLDS = (0.90, 0.95, 0.97, 0.98)
_ROUNDING = 1e-9  # a mean of fifths that is 0.9 on paper may be 0.8999999999999999


@dataclass(frozen=True)
class Reached(Columns):
    """One run and threshold, a line of time_to_accuracy.csv: the first point of its curve at or above the threshold.

    ``meta_step``, ``tasks_seen`` and ``train_s`` are None where ``reached`` is 0, and ``best_val_acc`` where no
    validation gave a number.
    """

    run_id: str
    algo: str
    seed: int
    threshold: float
    reached: int
    meta_step: int | None
    tasks_seen: int | None
    train_s: float | None
    best_val_acc: float | None


@dataclass(frozen=True)
class ArmReached:
    """What the seeds of an arm needed to one threshold, in the order of the seeds."""

    threshold: float
    runs: tuple[Reached, ...]
    full_s: tuple[float, ...]
    """Training time of each whole run."""

    @property
    def hits(self) -> int:
        """How many seeds got there."""
        return sum(one.reached for one in self.runs)

    @property
    def best(self) -> float:
        """The best validation accuracy of all seeds, NaN if none is known."""
        return max((one.best_val_acc for one in self.runs if one.best_val_acc is not None), default=math.nan)

    @property
    def median_s(self) -> float | None:
        """Median training seconds over seeds; None unless every seed got there."""
        times = [one.train_s for one in self.runs if one.train_s is not None]
        return statistics.median(times) if times and len(times) == len(self.runs) else None

    @property
    def median_tasks(self) -> float | None:
        """Median training tasks over seeds; None unless every seed got there."""
        tasks = [one.tasks_seen for one in self.runs if one.tasks_seen is not None]
        return statistics.median(tasks) if tasks and len(tasks) == len(self.runs) else None


def reached_by(run: Run, thresholds: Sequence[float] = THRESHOLDS) -> list[Reached]:
    """Return a line per threshold, nothing interpolated between the points of the curve."""
    points = _known(run)
    best = max((acc for acc, _ in points), default=None)
    lines = []
    for threshold in thresholds:
        first = next((point for acc, point in points if acc >= threshold - _ROUNDING), None)
        lines.append(
            Reached(
                run_id=run.row.run_id,
                algo=run.row.algo,
                seed=run.row.seed,
                threshold=threshold,
                reached=int(first is not None),
                meta_step=first.meta_step if first else None,
                tasks_seen=first.tasks_seen if first else None,
                train_s=first.train_s if first else None,
                best_val_acc=best,
            )
        )
    return lines


def time_to_accuracy(runs: Iterable[Run]) -> list[Reached]:
    """Return the lines of every run that has an answer: of ok ones with a curve, and of those that diverged."""
    return [line for run in runs if _counts(run) for line in reached_by(run)]


def of_arm(arm: Arm) -> list[ArmReached]:
    """Return an entry per threshold; empty for an arm without validation accuracies.

    A seed that diverged counts as one that did not get there after its last point: leaving it out would make the
    arm that breaks now and then look like one that does not.
    """
    runs = {run.row.seed: run for run in arm.runs if _counts(run) and not run.ok}
    runs |= {seed: run for seed, run in arm.ok.items() if _counts(run)}
    if not any(_known(run) for run in runs.values()):
        return []
    ordered = [runs[seed] for seed in sorted(runs)]
    lines = [reached_by(run) for run in ordered]
    full = tuple(_full_s(run) for run in ordered)
    return [ArmReached(t, tuple(line[i] for line in lines), full) for i, t in enumerate(THRESHOLDS)]


def spacing(arm: Arm) -> tuple[float, float] | None:
    """Return the median meta-steps and seconds between two points of the arm's curves; None without two points."""
    pairs = [pair for run in arm.ok.values() for pair in zip(run.curve, run.curve[1:])]
    if not pairs:
        return None
    steps = statistics.median(b.meta_step - a.meta_step for a, b in pairs)
    return steps, statistics.median(b.train_s - a.train_s for a, b in pairs)


def _counts(run: Run) -> bool:
    return run.row.status == "diverged" or (run.ok and bool(_known(run)))


def _known(run: Run) -> list[tuple[float, CurvePoint]]:
    return [(p.val_acc, p) for p in run.curve if p.val_acc is not None and math.isfinite(p.val_acc)]


def _full_s(run: Run) -> float:
    known = [run.row.train_s, *(point.train_s for point in run.curve)]
    return max((s for s in known if s is not None and math.isfinite(s)), default=0.0)
