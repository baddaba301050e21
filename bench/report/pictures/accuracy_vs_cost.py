"""Plain test accuracy against training time, with the Pareto front where times differ by more than their noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.analysis import cost
from bench.analysis.arms import Arm
from bench.report.drawing.axes import finish, fraction_axis, scale
from bench.report.drawing.legends import legend
from bench.report.drawing.marks import footnote, marked, marked_look, unmarked
from bench.report.drawing.panels import COLUMN, Page, in_panels, make_panels, panel_width
from bench.report.drawing.pictures import picture
from bench.report.drawing.styles import GREY, SMALL, literal, styles, wrapped


@picture(
    "plain test accuracy against training time, with the Pareto front where times differ by more than their noise",
    rank=6,
)
def accuracy_vs_cost(arms: Sequence[Arm], page: Page = COLUMN) -> Figure:
    """Draw plain test accuracy against training time, with the front of those that no other beats, if there is one."""
    look, shown = styles(arms), marked(arms)
    figure, panels = make_panels(shown, "Test accuracy (plain) against training time", 2.1, page=page)
    drawn = False
    for axes, members in panels:
        points = cost.points(members)
        front = cost.front(points)
        scale(axes, [point.train_s for point in points], panel_width(page, len(panels)))
        width = int(15 * (page.width / min(page.columns, len(panels)) - 0.6))
        heights = []
        for train_s, accuracy, arm, _ in points:
            style, half = look[unmarked(arm)], arm.ci95("test_acc")
            seeds = [(r.row.train_s, r.row.test_acc) for r in arm.ok.values()]
            axes.plot(*zip(*seeds), style.marker, color=style.colour, markersize=2.5, alpha=0.5, linestyle="none")
            bar = half if math.isfinite(half) else None
            axes.errorbar(
                train_s, accuracy, bar, color=style.colour, marker=style.marker, markersize=6, capsize=2.5, zorder=3
            )
            heights += [accuracy - (bar or 0.0), accuracy + (bar or 0.0), *(y for _, y in seeds if y is not None)]
        if front:
            ends = [point.train_s for point in front] + [max(point.train_s for point in points)]
            steps = [point.score for point in front] + [front[-1].score]
            axes.plot(ends, steps, ls=":", color=GREY, lw=1.2, drawstyle="steps-post", zorder=1)
            drawn = True
            names = "Pareto front: " + ", ".join(point.arm.label for point in front)
            if len(names) <= width:  # longer ones would crowd out the panel, whose dotted line shows the same
                axes.set_title(f"{axes.get_title()}\n{literal(names)}", fontsize=SMALL)
        elif why := cost.why_no_front(points):
            axes.set_title(f"{axes.get_title()}\n{literal(wrapped(why, width))}", fontsize=SMALL)
        fraction_axis(axes, heights, "test accuracy")
        finish(axes, "training time, meta-steps only (s)", "", bool(points))
    further: list[Any] = [Line2D([], [], ls=":", color=GREY, label="Pareto front")] if drawn else []
    shown = in_panels(panels)
    if any(len(arm.ok) > 1 for arm in shown):
        further.append(Line2D([], [], ls="none", marker="o", markersize=3, color=GREY, alpha=0.5, label="one seed"))
    further.append(Line2D([], [], ls="none", marker="|", markersize=8, color=GREY, label="95% interval over tasks"))
    legend(figure, shown, marked_look(look), [*further, *footnote(shown)], lines=False)
    return figure
