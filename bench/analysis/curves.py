"""Curves of an arm: validation along its runs and test after each adaptation step, the mean over seeds with a band."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from bench.analysis.arms import Arm
from bench.records.columns import AdaptationPoint, CurvePoint


class Point(NamedTuple):
    """A point of a curve, and the band there: lowest to highest seed; of one seed its 95% interval over tasks."""

    x: float
    mean: float
    low: float
    high: float


def validation(arm: Arm, column: str) -> list[Point]:
    """Return validation accuracy or error against a column of the curve, at the meta-steps that all seeds have."""
    kind = "val_acc" if arm.measure == "accuracy" else "val_error"
    by_seed: list[dict[int, CurvePoint]] = []
    for run in arm.ok.values():
        points = {p.meta_step: p for p in run.curve if known(getattr(p, kind))}
        if points:
            by_seed.append(points)
    found = []
    for step in sorted(set.intersection(*map(set, by_seed))) if by_seed else []:
        here = [points[step] for points in by_seed]
        xs = [float(getattr(p, column)) for p in here]
        if all(map(math.isfinite, xs)):
            found.append(_point(sum(xs) / len(xs), here, kind))
    return found


def adaptation(arm: Arm, mode: str) -> dict[int, Point]:
    """Return test accuracy or error over the seeds that have it, by step (0: before any), in one of MODES."""
    kind = "acc" if arm.measure == "accuracy" else "error"
    by_step: dict[int, list[AdaptationPoint]] = {}
    for run in arm.ok.values():
        for point in run.adaptation:
            if point.mode == mode and known(getattr(point, kind)):
                by_step.setdefault(point.step, []).append(point)
    return {step: _point(step, here, kind) for step, here in sorted(by_step.items())}


def drawn_points(arm: Arm, mode: str, longest: int) -> list[Point]:
    """Return the points of an adaptation curve to draw beside others that go on to step ``longest``.

    Step 0 is left out, where accuracy is chance: it would stretch the axis until all else is one line. What takes no
    steps at all is a level from the first step to the last, to be compared with every step of the others.
    """
    points = adaptation(arm, mode)
    if takes_no_steps(arm):
        return [point._replace(x=end) for point in points.values() for end in sorted({1, max(longest, 1)})]
    return [point for step, point in points.items() if step > 0]


def takes_no_steps(arm: Arm) -> bool:
    """Say whether nothing was followed beyond step 0; a value that is no number was followed."""
    return not any(point.step > 0 for run in arm.ok.values() for point in run.adaptation)


def band_kind(arm: Arm, points: Sequence[Point], tasks: str) -> str:
    """Say what the band around an arm's curve is, empty where it has none; ``tasks`` names those of an interval."""
    if not any(point.low < point.high for point in points):
        return ""
    return "lowest to highest seed" if len(arm.ok) > 1 else f"95% interval over {tasks}"


def _point(x: float, seeds: Sequence[CurvePoint | AdaptationPoint], kind: str) -> Point:
    values = [float(getattr(seed, kind)) for seed in seeds]
    half = getattr(seeds[0], f"{kind}_ci95") if len(values) == 1 else 0.0
    half = half if known(half) else 0.0
    return Point(x, sum(values) / len(values), min(values) - half, max(values) + half)


def known(value: float | None) -> bool:
    """Say whether a value can be drawn."""
    return value is not None and math.isfinite(value)
