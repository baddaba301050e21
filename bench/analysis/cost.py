"""What a score costs: training time against test score, and the arms that no other beats in both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bench.analysis.arms import Arm
from bench.analysis.statistics import pareto_front
from bench.analysis.verdicts import FEWEST_SEEDS


class Point(NamedTuple):
    """An arm's mean training time in seconds, its mean plain test score, and how far the time may be off."""

    train_s: float
    score: float
    arm: Arm
    noise: tuple[float, float]


def points(arms: Iterable[Arm]) -> list[Point]:
    """Return the arms of which both are known."""
    known = [arm for arm in arms if math.isfinite(arm.mean("train_s") + arm.mean(arm.tested["plain"]))]
    return [Point(arm.mean("train_s"), arm.mean(arm.tested["plain"]), arm, noise(arm)) for arm in known]


def noise(arm: Arm) -> tuple[float, float]:
    """Return the range in which the arm's training time lies, run to run.

    Three or more seeds say so themselves: from the fastest to the slowest. Fewer may agree by chance, so that the steps
    within each run speak: its time over, and times, the ratio of their 95th percentile to their median. Where that is
    not recorded, nothing is known and the range has no end.
    """
    times = arm.values("train_s")
    if len(times) >= FEWEST_SEEDS:
        return min(times), max(times)
    rows = [run.row for run in arm.ok.values()]
    ratio = max(
        row.step_ms_p95 / row.step_ms_median if row.step_ms_median and row.step_ms_p95 else math.inf for row in rows
    )
    return min(times) / ratio, max(times) * ratio


def front(found: Sequence[Point]) -> list[Point]:
    """Return by rising time the points of which none scores better in a time that is not longer by more than its noise.

    Of an error, less is better. Empty where that is a single point: there is nothing to be had for more time.
    """
    best = _front(found)
    return best if len(best) > 1 else []


def why_no_front(found: Sequence[Point]) -> str:
    """Return the sentence that stands in place of a front; empty where there is one, or nothing to compare."""
    best = _front(found)
    if len(found) < 2 or len(best) > 1:
        return ""
    if not any(a.noise[1] < b.noise[0] for a in found for b in found):
        return "No Pareto front: training times do not differ by more than their noise."
    return f"No Pareto front: {best[0].arm.label} scores best, and none is faster by more than the noise of times."


def _front(found: Sequence[Point]) -> list[Point]:
    sign = 1 if all(point.arm.measure == "accuracy" for point in found) else -1
    return [found[i] for i in pareto_front([p.noise for p in found], [sign * p.score for p in found])]
