"""Validation along the runs, as interactive figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.analysis.arms import Arm
from bench.analysis.comparison import Comparison
from bench.analysis.curves import Point, validation
from bench.report.interactive.spec import FigureSpec, labels_drawn, measure_of, several
from bench.report.interactive.traces import arm_line, axis, band, band_note, score_axis, short


def accuracy_vs_tasks(place: int, arms: list[Arm], _: list[Comparison], look: dict[str, str]) -> FigureSpec | None:
    """Draw validation against training tasks."""
    return _curves(place, arms, look, "tasks_seen", "against tasks", "training tasks seen", "tasks")


def accuracy_vs_wallclock(place: int, arms: list[Arm], _: list[Comparison], look: dict[str, str]) -> FigureSpec | None:
    """Draw validation against training time."""
    return _curves(place, arms, look, "train_s", "against wall-clock", "training time, meta-steps only (s)", "s")


def _curves(
    place: int, arms: list[Arm], look: dict[str, str], column: str, against: str, label: str, unit: str
) -> FigureSpec | None:
    measure = measure_of(arms)
    data: list[dict[str, Any]] = []
    found = [(arm, points) for arm in arms if (points := validation(arm, column))]
    x_axis = axis(label, [points[-1].x for _, points in found])
    for arm, points in found:
        if x_axis.get("type") == "log":  # which has no place for the point before training
            points = [point for point in points if point.x > 0]
        data += [*band(arm, points, look), with_points(arm, points, look, f"%{{x:,.6~r}} {unit}<br>{measure}")]
    if not data:
        return None
    note = f"Transductive meta-validation; line: {'mean over seeds' if several(arms) else 'one seed'}"
    note += f"{band_note(found, 'validation tasks')}."
    layout = {"xaxis": x_axis, "yaxis": score_axis(f"validation {measure}", measure), "height": 340}
    return FigureSpec(
        f"curves-{column}", f"Validation {measure} {against}", note, place, data, layout, labels_drawn(data, arms)
    )


def with_points(arm: Arm, points: Sequence[Point], look: dict[str, str], said: str) -> dict[str, Any]:
    """Return a line through points, which says of each what ``said`` says and the mean, and the ends of the band."""
    hover = f"<b>{short(arm.label)}</b><br>{said} %{{y:.4f}}"
    if any(point.low < point.high for point in points):
        hover += "<br>%{customdata[0]:.4f} to %{customdata[1]:.4f}"
    return arm_line(arm, look) | {
        "x": [point.x for point in points],
        "y": [point.mean for point in points],
        "customdata": [[point.low, point.high] for point in points],
        "hovertemplate": f"{hover}<extra></extra>",
    }
