"""Plain test accuracy along one axis, and what a step costs there, a line per algorithm."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.drawing.axes import finish, fraction_axis
from bench.report.drawing.legends import put_legend
from bench.report.drawing.panels import COLUMN, Page, entitle, new_figure
from bench.report.drawing.styles import GREY, SMALL, Style, line_style, literal, styles_of
from bench.studies.axes import Axis
from bench.studies.scale.tables import ScaleRow


def draw(axis: Axis, rows: Sequence[ScaleRow], page: Page = COLUMN) -> Figure:
    """Draw accuracy and the time of a meta-step along one axis."""
    members = [row for row in rows if row.axis == axis.name]
    look = styles_of(row.algo for row in rows)
    height = 3.6 if page.columns == 1 else 2.3
    figure = new_figure(page, height)
    name = axis.label.split(" (")[0]
    entitle(figure, f"By {name}: {members[0].seconds:g} s of training, {members[0].dataset}", height)
    above, below = figure.subplots(2, 1, sharex=True) if page.columns == 1 else figure.subplots(1, 2)
    _panel(above, axis, members, "test_acc", look)
    known = [(row.test_acc, row.test_acc_ci95 or 0.0) for row in members if row.test_acc is not None]
    fraction_axis(above, [mean + sign * half for mean, half in known for sign in (-1, 1)], "test accuracy, plain")
    _panel(below, axis, members, "step_ms_median", look)
    below.set_ylabel("time per meta-step\n(ms, log scale)")
    below.set_yscale("log", nonpositive="mask")
    below.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    below.yaxis.set_major_formatter("{x:,g}")
    below.yaxis.set_minor_formatter(ticker.NullFormatter())
    for panel in (above, below):
        finish(panel, axis.label, "", bool(known))
    if page.columns == 1:
        above.set_xlabel("")
    handles = [Line2D([], [], label=literal(algo), **_drawn(axis, style)) for algo, style in look.items()]
    put_legend(figure, handles, [Line2D([], [], color=GREY, lw=0, marker="|", label="95% interval over tasks")])
    return figure


def _drawn(axis: Axis, style: Style) -> dict[str, Any]:
    """Return how a line is drawn; between networks there is none."""
    return line_style(style, 1) | ({"ls": "none"} if axis.kind is str else {})


def _panel(panel: Axes, axis: Axis, rows: Sequence[ScaleRow], measure: str, look: Mapping[str, Style]) -> None:
    """Draw one measure; a network is a place of its own, a number stands where it belongs on a log scale."""
    values = list(dict.fromkeys(row.value for row in rows))
    at = {value: i if axis.kind is str else float(value) for i, value in enumerate(values)}
    for place, (algo, style) in enumerate(look.items()):
        beside = 0.5 * ((place + 0.5) / len(look) - 0.5) if axis.kind is str else 0.0
        known = [row for row in rows if row.algo == algo and getattr(row, measure) is not None]
        if known:
            half = [row.test_acc_ci95 or 0.0 if measure == "test_acc" else 0.0 for row in known]
            x, y = [at[row.value] + beside for row in known], [getattr(row, measure) for row in known]
            panel.errorbar(x, y, half, capsize=2, elinewidth=0.8, **_drawn(axis, style))
    if axis.kind is not str:
        panel.set_xscale("log")
        panel.minorticks_off()
    panel.set_xticks(list(at.values()), list(at), fontsize=SMALL)
    panel.margins(x=0.15 if axis.kind is str else 0.05)
