"""Test accuracy after adaptation steps, as an interactive figure."""

from __future__ import annotations

from typing import Any

from bench.analysis.arms import Arm
from bench.analysis.comparison import Comparison
from bench.analysis.curves import adaptation, drawn_points, takes_no_steps
from bench.report.interactive.curves import with_points
from bench.report.interactive.spec import FigureSpec, labels_drawn, measure_of, several
from bench.report.interactive.traces import axis, band, band_note, log_scale, score_axis


def _adapted(place: int, arms: list[Arm], mode: str, look: dict[str, str]) -> FigureSpec | None:
    measure = measure_of(arms)
    found = [(arm, points) for arm in arms if (points := adaptation(arm, mode))]
    longest = max((max(points) for _, points in found), default=0)
    curves = [(arm, drawn_points(arm, mode, longest)) for arm, _ in found]
    data: list[dict[str, Any]] = []
    for arm, shown in curves:
        steps = f"{mode}<br>{'takes no' if takes_no_steps(arm) else '%{x}'} steps<br>{measure}"
        data += [*band(arm, shown, look), with_points(arm, shown, look, steps)]
    if not data:
        return None
    x_axis = axis("adaptation steps") | (log_scale(longest) if longest > 10 else {})
    layout = {"xaxis": x_axis, "yaxis": score_axis(f"test {measure}, {mode}", measure), "height": 340}
    tasks = sorted({point.tasks for arm in arms for run in arm.ok.values() for point in run.adaptation if point.tasks})
    note = "Mean over seeds" if several(arms) else "One seed"
    note += f", on the first {' or '.join(f'{n:,}' for n in tasks)} test tasks" if tasks else ""
    note += band_note(curves, "these tasks")
    note += ". From the first step on: what the weights do unadapted is in the table." if longest else "."
    title = f"Test {measure} after adaptation steps, {mode}"
    return FigureSpec(f"adaptation-{mode}", title, note, place, data, layout, labels_drawn(data, arms))


def adaptation_plain(place: int, arms: list[Arm], _: list[Comparison], look: dict[str, str]) -> FigureSpec | None:
    """Draw plain test accuracy after adaptation steps."""
    return _adapted(place, arms, "plain", look)


def adaptation_transductive(
    place: int, arms: list[Arm], _: list[Comparison], look: dict[str, str]
) -> FigureSpec | None:
    """Draw transductive test accuracy after adaptation steps."""
    return _adapted(place, arms, "transductive", look)
