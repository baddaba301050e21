"""Accuracy against the shift, one figure per family, a line per algorithm."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.drawing.axes import finish, fraction_axis
from bench.report.drawing.legends import put_legend
from bench.report.drawing.panels import COLUMN, Page, entitle, new_figure
from bench.report.drawing.styles import GREY, line_style, literal, styles_of
from bench.studies.shift.losses import LossRow
from bench.studies.shift.shifts import Family

_HEIGHT = 2.3


def draw(family: Family, rows: Sequence[LossRow], page: Page = COLUMN) -> Figure:
    """Draw plain test accuracy at every value of a family; the run's own test is marked."""
    figure = new_figure(page, _HEIGHT)
    entitle(figure, f"Accuracy under shift: {family.label}", _HEIGHT)
    axes = figure.subplots()
    algos = list(dict.fromkeys(row.algo for row in rows))
    look = styles_of(algos)
    values = _in_order({row.value for row in rows}, family)
    numbers = all(value.isdecimal() for value in values)
    where = {value: float(value) if numbers else float(place) for place, value in enumerate(values)}
    apart = 0.015 * max([1.0, *where.values()]) if numbers else 0.08  # so that no interval covers another
    for place, algo in enumerate(algos):
        mine = sorted((row for row in rows if row.algo == algo), key=lambda row: where[row.value])
        aside = apart * (place - (len(algos) - 1) / 2)
        x, y, half = zip(*((where[row.value] + aside, row.acc, row.acc_ci95) for row in mine))
        style = line_style(look[algo], 1) | ({} if numbers else {"ls": "none"})
        axes.errorbar(x, y, half, capsize=2, elinewidth=0.8, **style)
    axes.set_xticks([where[value] for value in values], values)
    axes.margins(x=0.06 if numbers else 0.3)
    reach = [row.acc + sign * row.acc_ci95 for row in rows for sign in (-1, 1)]
    finish(axes, family.axis, "", bool(rows))
    fraction_axis(axes, reach, "test accuracy, plain")
    if rows:
        axes.axvline(where[str(family.unshifted)], color=GREY, lw=1, ls=":")
    handles = [
        Line2D([], [], label=literal(algo), **line_style(look[algo], 1) | ({} if numbers else {"ls": "none"}))
        for algo in algos
    ]
    further = [
        Line2D([], [], color=GREY, lw=0, marker="|", label="95% interval over tasks"),
        Line2D([], [], color=GREY, lw=1, ls=":", label="the run's own test"),
    ]
    put_legend(figure, handles, further)
    return figure


def _in_order(values: set[str], family: Family) -> list[str]:
    own = str(family.unshifted)
    return sorted(values, key=lambda v: (0, int(v), v) if v.isdecimal() else (1, int(v != own), v))
