"""Results: everything that follows from the runs of a folder, worked out once; every output is a function of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from bench.analysis.arms import Arm, arms, by_setting
from bench.analysis.comparison import Comparison, compare
from bench.analysis.outcomes import Outcome, outcomes
from bench.analysis.published import ANCHOR_COLUMNS, Beside, beside, load_anchors
from bench.analysis.time_to_accuracy import Reached, time_to_accuracy
from bench.records.columns import CurvePoint
from bench.records.frame import frame_of
from bench.records.run import Run, load_runs, log
from bench.records.tuning import Search, load_searches
from bench.system.csvfile import used_columns
from bench.system.text import number, plus_minus

EXAMPLE_SEEDS = 3
"""The first seeds of a setting, whose example tasks a page may show."""


@dataclass(frozen=True, eq=False)
class Results:
    """Runs and what follows from them, never changed once made.

    Attributes:
        runs: every finished run, whatever its status, by start time.
        arms: the runs of one algorithm with one configuration in one setting, one run per seed.
        comparisons: every pair of arms of a setting on identical test tasks, in both test modes.
        published: published values with ours beside them.
        reached: when each run first reached each accuracy in validation.
        outcomes: what may be said of each setting in each test mode; words and marks of every output are from here.
        problems: a line on each file that was left out because it is damaged.
        searches: every search of ``--tune`` with its trials.

    As pandas frames, with the columns of the CSV files: ``summary``, ``curves``, ``differences``, ``anchors``,
    ``time_to_accuracy``; ``table`` is the short one that a notebook shows.
    """

    runs: tuple[Run, ...]
    arms: tuple[Arm, ...]
    comparisons: tuple[Comparison, ...]
    published: tuple[Beside, ...]
    reached: tuple[Reached, ...]
    outcomes: tuple[Outcome, ...]
    problems: tuple[str, ...] = ()
    searches: tuple[Search, ...] = ()

    @property
    def compared(self) -> list[Arm]:
        """Return the arms of which a run is ok."""
        return [arm for arm in self.arms if arm.ok]

    def outcome(self, arm: Arm, mode: str) -> Outcome | None:
        """Return what may be said of an arm's setting in one test mode, None where no run of it is ok."""
        return next((o for o in self.outcomes if o.setting == arm.setting and o.mode == mode), None)

    @property
    def curve_points(self) -> list[dict[str, object]]:
        """Return the lines of curves.csv."""
        return [
            {"run_id": run.row.run_id, "algo": run.row.algo, "seed": run.row.seed} | vars(point)
            for run in self.runs
            for point in run.curve
        ]

    @property
    def curve_columns(self) -> tuple[str, ...]:
        """Return the columns of curves.csv: those of errors only where there are errors."""
        used = used_columns(CurvePoint, (point for run in self.runs for point in run.curve))
        return ("run_id", "algo", "seed", *used)

    @property
    def comparison_columns(self) -> tuple[str, ...]:
        """Return the columns of comparisons.csv: what is otherwise at test only where something is."""
        shifted = any(c.test for c in self.comparisons)
        return tuple(name for name in Comparison.COLUMNS if shifted or name != "test")

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A line per run, as ``bench.load_results`` returns it."""
        return frame_of(run.row for run in self.runs)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """A line per validation of a run."""
        return pd.DataFrame(self.curve_points, columns=list(self.curve_columns))

    @cached_property
    def differences(self) -> pd.DataFrame:
        """A line per pair of arms and test mode."""
        rows = ([getattr(c, name) for name in self.comparison_columns] for c in self.comparisons)
        return pd.DataFrame(rows, columns=list(self.comparison_columns))

    @cached_property
    def anchors(self) -> pd.DataFrame:
        """A line per published value and arm of ours."""
        return pd.DataFrame([line.cells for line in self.published], columns=list(ANCHOR_COLUMNS))

    @cached_property
    def time_to_accuracy(self) -> pd.DataFrame:
        """A line per run and accuracy."""
        return Reached.table(self.reached)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A line per arm: means over seeds with the half-width of the 95% interval over tasks, and what it cost."""
        rows = [
            {
                "setting": arm.place,
                "algorithm": arm.label,
                "seeds": len(arm.ok),
                **{mode: plus_minus(arm.mean(column), arm.ci95(column)) for mode, column in arm.tested.items()},
                "train s": number(arm.mean("train_s")),
                "step ms": number(arm.mean("step_ms_median")),
                "peak MiB": number(max(arm.values("peak_mem_mib"), default=None)),
            }
            for arm in self.arms
        ]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        """Return the short table and the verdicts."""
        told = (f"{o.place}, {o.mode}: {' '.join(o.sentences)}" for o in self.outcomes)
        return "\n".join([self.table.to_string(index=False), *told]) if self.arms else "no finished run"

    def _repr_html_(self) -> str:
        """Return the short table as notebooks show it."""
        return str(self.table.to_html(index=False, border=0)) if self.arms else "<p>no finished run</p>"


def results_of(runs: Iterable[Run], problems: Sequence[str] | None = None, searches: Iterable[Search] = ()) -> Results:
    """Return what follows from ``runs``; lines that are added to ``problems`` while they are read are in it."""
    runs = tuple(runs)
    grouped = arms(runs)
    comparisons = compare(grouped)
    published = beside(load_anchors(), grouped)
    reached = time_to_accuracy(runs)
    _read_tables(runs, grouped)
    return Results(
        runs,
        tuple(grouped),
        tuple(comparisons),
        tuple(published),
        tuple(reached),
        tuple(outcomes(grouped, comparisons)),
        tuple(problems or ()),
        tuple(searches),
    )


def load(out: Path) -> Results:
    """Return what follows from the finished runs under ``out``; ``problems`` names the damaged files left out."""
    problems: list[str] = []

    def warn(line: str) -> None:
        log.warning(line)
        problems.append(line)

    return results_of(load_runs(out, warn), problems, load_searches(out, warn))


def _read_tables(runs: Sequence[Run], grouped: Sequence[Arm]) -> None:
    """Read what outputs will ask for, so that damage is known before anything is written."""
    for run in runs:
        _ = run.curve
    for _, members in by_setting(grouped):
        seeds = sorted({seed for arm in members for seed in arm.ok})[:EXAMPLE_SEEDS]
        for arm in members:
            for seed, run in arm.ok.items():
                _ = run.adaptation
                _ = run.examples if seed in seeds else None
