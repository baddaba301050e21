"""What a score costs: training time against test score, and the arms that no other beats in both."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from bench.analysis.arms import Arm
from bench.analysis.statistics import pareto_front


class Point(NamedTuple):
    """An arm's mean training time in seconds, and its mean plain test score."""

    train_s: float
    score: float
    arm: Arm


def points(arms: Iterable[Arm]) -> list[Point]:
    """Return the arms of which both are known."""
    found = (Point(arm.mean("train_s"), arm.mean(arm.tested["plain"]), arm) for arm in arms)
    return [point for point in found if math.isfinite(point.train_s) and math.isfinite(point.score)]


def front(found: list[Point]) -> list[Point]:
    """Return by rising time the points that none beats in time and score; of an error, less is better."""
    sign = 1 if all(point.arm.measure == "accuracy" for point in found) else -1
    return [found[i] for i in pareto_front([p.train_s for p in found], [sign * p.score for p in found])]
