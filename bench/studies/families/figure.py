"""Ranks in every family with their intervals, a column of points each, and mean ranks at the right."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bench.report.drawing.axes import finish
from bench.report.drawing.legends import put_legend
from bench.report.drawing.panels import COLUMN, Page, entitle, new_figure
from bench.report.drawing.styles import GREY, SMALL, line_style, literal, styles_of, wrapped
from bench.studies.families.tables import MeanRow, Ranked

_SPREAD = 0.7  # of a family's column that its points take


def draw(families: Sequence[Ranked], means: Sequence[MeanRow], page: Page = COLUMN) -> Figure:
    """Draw every algorithm's rank in every family and its mean rank, the best above."""
    height = 1.6 + 0.12 * len(means)
    figure = new_figure(page, height)
    entitle(figure, "Rank in every family of tasks", height)
    axes = figure.subplots()
    look = styles_of([mean.algo for mean in means])
    handles, columns = [], [one.family.name for one in families] + ["mean rank"]
    for i, mean in enumerate(means):
        offset = _SPREAD * ((i + 0.5) / len(means) - 0.5)
        style = {**line_style(look[mean.algo], 1), "ls": "none"}
        known = [
            (column + offset, row.rank, row.rank_low, row.rank_high)
            for column, one in enumerate(families)
            for row in one.rows
            if row.algo == mean.algo
        ]
        known.append((len(families) + offset, mean.mean_rank, mean.mean_rank_low, mean.mean_rank_high))
        for x, at, low, high in known:
            if at is not None and low is not None and high is not None:
                axes.plot([x, x], [low, high], color=look[mean.algo].colour, lw=1)
                axes.plot([x], [at], **style)
        handles.append(Line2D([], [], label=literal(mean.algo), **style))
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.axvline(len(families) - 0.5, color=GREY, lw=0.8)
    axes.set_ylim(max(2, len(means)) + 0.4, 0.6)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    width = int(15 * page.width / len(columns))
    finish(axes, "", "rank (1: best)", any(mean.mean_rank is not None for mean in means))
    axes.set_xticks(range(len(columns)), [literal(wrapped(name, width)) for name in columns], fontsize=SMALL)
    axes.grid(visible=False, axis="x")
    put_legend(figure, handles, [Line2D([], [], color=GREY, lw=1, label="line: 95% interval over seeds and tasks")])
    return figure
