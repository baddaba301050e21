"""Validation along the runs, against what they had used so far."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.analysis.arms import Arm
from bench.analysis.curves import validation
from bench.report.drawing.axes import direct, finish, fraction_axis, label_ends, scale
from bench.report.drawing.legends import band_handles, legend, shade
from bench.report.drawing.marks import footnote, marked, marked_look, unmarked
from bench.report.drawing.panels import Page, in_panels, make_panels, panel_width
from bench.report.drawing.styles import GREY, line_style, styles


def draw_curves(arms: Sequence[Arm], column: str, title: str, label: str, page: Page) -> Figure:
    """Draw validation accuracy of every arm against a column of its curve, a panel per setting."""
    look, height = styles(arms), 2.2
    timed = column == "train_s"
    arms = marked(arms) if timed else arms
    figure, panels = make_panels(arms, title, height, page=page)
    beside_lines = all(direct([arm.label for arm in members], height - 0.5) for _, members in panels)
    bands: set[str] = set()
    for axes, members in panels:
        curves = [(arm, points) for arm in members if (points := validation(arm, column))]
        scale(axes, [curve[-1].x for _, curve in curves], panel_width(page, len(panels)))
        values: list[float] = []
        for arm, curve in curves:
            style = look[unmarked(arm)]
            axes.plot([p.x for p in curve], [p.mean for p in curve], **line_style(style, len(curve)))
            bands |= shade(axes, arm, curve, style)
            values += [end for point in curve for end in (point.low, point.high)]
        fraction_axis(axes, values, "validation accuracy,\ntransductive")
        finish(axes, label, "", bool(curves))
        if beside_lines:
            ends = {arm.label: (curve[-1].mean, look[unmarked(arm)].colour) for arm, curve in curves}
            label_ends(axes, ends, height - 0.5)
    further, arms = band_handles(bands), in_panels(panels)
    if any(len(arm.ok) > 1 for arm in arms):
        further.append(Line2D([], [], color=GREY, label="line: mean over seeds"))
    notes = footnote(arms) if timed else []
    legend(figure, arms, marked_look(look), [*further, *notes], named=not beside_lines)
    return figure
