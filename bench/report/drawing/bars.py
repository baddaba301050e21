"""Bars: a cost of every arm, with a line to a second value."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.analysis.arms import Arm
from bench.report.drawing.axes import finish, thousands
from bench.report.drawing.legends import legend
from bench.report.drawing.marks import footnote, marked, marked_look, unmarked
from bench.report.drawing.panels import Page, in_panels, make_panels, row_of
from bench.report.drawing.styles import GREY, SMALL, literal, styles, wrapped
from bench.system.text import number


def _rows_beside(axes: Axes, panels: Sequence[tuple[Axes, list[Arm]]]) -> int:
    """Return the most arms of a panel in the row of ``axes``, so that all bars of a row are as thick."""
    return max(len(members) for one, members in panels if row_of(one) == row_of(axes))


def draw_bars(
    arms: Sequence[Arm], column: str, further_column: str, further: str, title: str, label: str, page: Page
) -> Figure:
    """Draw a column of every arm as a bar, with a line to a further column, a panel per setting."""
    look, timed = styles(arms), column.startswith("step_ms")
    arms = marked(arms) if timed else arms
    names = {arm.label: literal(wrapped(arm.label, 20)) for arm in arms}
    thickness = max([0.24, *(0.125 * (name.count("\n") + 1) + 0.06 for name in names.values())])  # inches
    seeds = ", mean over seeds" if any(len(a.ok) > 1 for a in arms) else ""
    figure, panels = make_panels(arms, title + seeds, lambda members: thickness * len(members), page=page, around=0.75)
    for axes, members in panels:
        beside, longest = _rows_beside(axes, panels), 0.0
        for i, arm in enumerate(members):
            style, value, end = look[unmarked(arm)], arm.mean(column), arm.mean(further_column)
            if math.isfinite(value):
                axes.barh(i, value, 0.65, color=style.colour, lw=0)
            if math.isfinite(value) and end > value:
                axes.errorbar(value, i, xerr=np.array([[0], [end - value]]), color=GREY, capsize=2.5, lw=1)
            reach = max((v for v in (value, end) if math.isfinite(v)), default=0.0)
            text = number(value) if math.isfinite(value) else "not measured"
            text += f" ({further} {number(end)})" if end > value else ""
            axes.annotate(text, (max(reach, 0.0), i), (4, 0), textcoords="offset points", va="center", fontsize=SMALL)
            longest = max(longest, reach)
        axes.set_xlim(0, longest * 1.7 or 1.0)
        axes.set_yticks(range(len(members)), [names[arm.label] for arm in members])
        axes.set_ylim(beside - 0.5, -0.5)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(3))
        axes.xaxis.set_major_formatter(thousands)
        finish(axes, wrapped(label, 34), "", any(arm.ok for arm in members))
        axes.grid(visible=False, axis="y")
    shown = in_panels(panels)
    legend(figure, shown, marked_look(look), footnote(shown) if timed else [], named=False)
    return figure
