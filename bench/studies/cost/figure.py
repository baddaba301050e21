"""Step time and peak memory along one axis, a line per algorithm."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bench.analysis.statistics import Line
from bench.report.drawing.axes import finish
from bench.report.drawing.legends import put_legend
from bench.report.drawing.marks import MARK, company_note
from bench.report.drawing.panels import COLUMN, Page, entitle, new_figure
from bench.report.drawing.styles import GREY, Style, line_style, literal, styles_of
from bench.studies.axes import Axis
from bench.studies.cost.tables import CostRow, Slope, others, series
from bench.system.text import number


def draw(
    axis: Axis,
    rows: Sequence[CostRow],
    slopes: Sequence[Slope],
    company: Mapping[str, tuple[int, float]],
    page: Page = COLUMN,
) -> Figure:
    """Draw step time and peak memory along one axis, a line per algorithm; ``company`` is what ``beside`` returns."""
    look = styles_of(row.algo for row in rows)
    members = [row for row in rows if row.axis == axis.name]
    memory = {slope.algo: slope for slope in slopes if (slope.axis, slope.measure) == (axis.name, "peak_mem_whole_mib")}
    height = 3.4 if page.columns == 1 else 2.2
    figure = new_figure(page, height)
    entitle(figure, f"Cost of a meta-step by {axis.label}", height)
    above, below = figure.subplots(2, 1, sharex=True) if page.columns == 1 else figure.subplots(1, 2)
    _panel(above, axis, members, "step_ms_median", "time per meta-step (ms)", look)
    _panel(below, axis, members, "peak_mem_whole_mib", "peak memory, whole\nmeta-batch (MiB)", look)
    if page.columns == 1:
        above.set_xlabel("")
    handles, further = [], []
    for algo in sorted({row.algo for row in members}):
        style, label = look[algo], algo + (MARK if algo in company else "")
        if algo in memory:
            label += f": {number(memory[algo].per_unit)} MiB per {axis.per}"
        handles.append(Line2D([], [], label=literal(label), **line_style(style, 1)))
    if any(slope.points > 2 for slope in slopes if slope.axis == axis.name):
        further.append(Line2D([], [], color=GREY, lw=0.8, label="thin: least squares"))
        ends = [min(row.value for row in members), max(row.value for row in members)]
        for algo, slope in memory.items():
            fitted = Line(slope.per_unit, slope.at_zero, slope.r2)
            below.plot(ends, [fitted.at(x) for x in ends], color=look[algo].colour, lw=0.8, alpha=0.7)
    title = others(axis, members[0]).replace("meta-batch ", "meta-batch\u00a0")  # on one line
    most, load = (max(found, default=0) for found in zip(*company.values())) if company else (0, 0.0)
    put_legend(figure, handles, [*further, *company_note(round(most), load)], title)
    return figure


def _panel(
    axes: Axes, axis: Axis, rows: Sequence[CostRow], measure: str, label: str, look: Mapping[str, Style]
) -> None:
    found = series(axis, rows, measure)
    for algo, line in sorted(found.items()):
        axes.plot(list(line), list(line.values()), **line_style(look[algo], 1))
    axes.set_xticks(sorted({row.value for row in rows}))
    axes.margins(y=0.1)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.10g}")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    finish(axes, axis.label, label, any(found.values()))
