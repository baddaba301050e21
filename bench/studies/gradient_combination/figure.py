"""Validation accuracy along the run, smoothed, beside accuracy on meta-test."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.analysis.arms import Arm
from bench.analysis.curves import validation
from bench.records.columns import MODES
from bench.report.drawing.axes import finish, fraction_axis, label_ends, thousands
from bench.report.drawing.panels import COLUMN, Page, entitle, new_figure
from bench.report.drawing.styles import TEXT, literal, styles


def smoothed(values: Sequence[float], width: int) -> list[float]:
    """Return centred running means over ``width`` values, an odd number, over fewer towards the ends."""
    half = width // 2
    reach = [min(half, i, len(values) - 1 - i) for i in range(len(values))]
    return [float(np.mean(values[i - r : i + r + 1])) for i, r in enumerate(reach)]


def draw(arms: Sequence[Arm], page: Page = COLUMN) -> Figure:
    """Draw smoothed validation accuracy against meta-steps, labelled at its end, and accuracy on meta-test."""
    look = styles(arms)
    tall = [2.6, 0.7 + 0.2 * len(arms)] if page.columns == 1 else [max(2.6, 0.7 + 0.2 * len(arms))]
    figure = new_figure(page, sum(tall))
    where = f": {arms[0].setting.dataset}, {arms[0].setting.name}" if arms else ""
    entitle(figure, f"Combinations of inner-loop gradients{where}", sum(tall))
    if page.columns == 1:
        along, tested = figure.subplots(2, 1, height_ratios=tall)
    else:
        along, tested = figure.subplots(1, 2, width_ratios=[5, 4])
    ends: dict[str, tuple[float, str]] = {}
    values: list[float] = []
    width = 1
    for arm in arms:
        curve = validation(arm, "meta_step")
        if not curve:
            continue
        x, y = [point.x for point in curve], [point.mean for point in curve]
        width = min(7, max(1, len(y) // 6) // 2 * 2 + 1)
        line, style = smoothed(y, width), look[arm.label]
        along.plot(x, y, color=style.colour, lw=0.6, alpha=0.35)
        along.plot(x, line, color=style.colour, ls=style.dash, lw=1.4)
        ends[arm.label] = (line[-1], style.colour)
        values += y
    along.xaxis.set_major_formatter(thousands)
    along.xaxis.set_major_locator(MaxNLocator(4))
    along.margins(x=0)
    fraction_axis(along, values, "validation accuracy,\ntransductive")
    finish(along, "meta-steps", "", bool(ends))
    along.set_title(f"along the run; thick: running mean\nover {width} points" if width > 1 else "along the run",
                    fontsize=TEXT)  # fmt: skip
    label_ends(along, ends, tall[0] - 0.6)
    reach = []
    for mode, (marker, shift) in {"plain": ("o", -0.15), "transductive": ("D", 0.15)}.items():
        column = f"test_{MODES[mode]}"
        for i, arm in enumerate(arms):
            mean, half, colour = arm.mean(column), float(np.nan_to_num(arm.ci95(column))), look[arm.label].colour
            tested.errorbar(mean, i + shift, xerr=half, color=colour, marker=marker, markersize=3.5, capsize=2)
            reach += [mean - half, mean + half]
    tested.set_yticks(range(len(arms)), [literal(arm.label) for arm in arms])
    tested.set_ylim(len(arms) - 0.4, -0.6)
    fraction_axis(tested, reach, "test accuracy", "x")
    tested.xaxis.set_major_locator(MaxNLocator(5))
    finish(tested, "", "", any(arm.ok for arm in arms))
    tested.set_title("● plain, ◆ transductive;\nbar: 95% interval\nover tasks", fontsize=TEXT)
    return figure
