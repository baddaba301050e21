"""Axes: scales, ticks, labels, and names at the ends of lines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from matplotlib import ticker
from matplotlib.axes import Axes

from bench.report.drawing.colours import ink
from bench.report.drawing.styles import GREY, LINE, SMALL, TEXT, literal

_TICK = 0.5  # inches that a long number and the space beside it take


def thousands(value: float, _: object) -> str:
    """Return a tick's text, as in ``12,000``, ``500k``, ``1.5M`` or ``0.5``."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= max(unit, 1e5):
            return f"{value / unit:,.10g}{letter}"
    return f"{value:,.10g}"


def scale(axes: Axes, ends: Sequence[float], width: float) -> None:
    """Make the x axis, ``width`` inches long, logarithmic where a linear one would squeeze an arm into a tenth."""
    positive = [x for x in ends if x > 0]
    if positive and len(positive) == len(ends) and max(positive) > 10 * min(positive):
        axes.set_xscale("log", nonpositive="mask")
        log_ticks(axes, min(positive), max(positive), width)
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        axes.xaxis.set_major_locator(ticker.MaxNLocator(5 if width > 2 else 4))
    axes.xaxis.set_major_formatter(thousands)


def log_ticks(axes: Axes, low: float, high: float, width: float) -> None:
    """Label as many ticks of a logarithmic axis ``width`` inches long as stand apart."""
    decade = width / math.log10(high / low)  # inches
    fitting = [subs for subs, closest in (((1, 2, 5), 0.3), ((1, 3), 0.47)) if closest * decade > _TICK]
    locator = ticker.LogLocator(subs=fitting[0]) if fitting else ticker.LogLocator(numticks=max(2, int(width / _TICK)))
    axes.xaxis.set_major_locator(locator)


def finish(axes: Axes, x_label: str, y_label: str, filled: bool) -> None:
    """Label and tidy a panel after drawing; ``filled`` says whether there was anything to draw."""
    axes.set_xlabel(x_label or axes.get_xlabel(), fontsize=TEXT)
    axes.set_ylabel(y_label or axes.get_ylabel(), fontsize=TEXT)
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#DDDDDD", lw=0.6)
    axes.set_axisbelow(True)
    if not filled:
        axes.text(
            0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=TEXT
        )


def direct(labels: Iterable[str], height: float) -> bool:
    """Say whether labels are few and short enough to stand beside their lines in a panel of that height in inches."""
    labels = list(labels)
    return max(map(len, labels), default=0) <= 16 and len(labels) * LINE <= 0.7 * height


def label_ends(axes: Axes, ends: Mapping[str, tuple[float, str]], height: float) -> None:
    """Write each label right of the panel at the height where its line ends, moved as little as keeps them apart.

    Args:
        ends: height of the end in data coordinates and colour, by label; set scale and limits before.
        height: of the panel in inches.
    """
    to_panel = axes.transScale + axes.transLimits
    end_of = {label: float(to_panel.transform((0, end))[1]) for label, (end, _) in ends.items()}
    labels = sorted(ends, key=lambda label: end_of[label])
    places = spread([end_of[label] for label in labels], LINE / height, 0.0, 1.0)
    for label, place_of_label in zip(labels, places):
        colour = ends[label][1]
        axes.annotate(
            literal(label), (1, end_of[label]), (1.06, place_of_label), "axes fraction", color=ink(colour),
            fontsize=SMALL, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.7, "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 0},
        )  # fmt: skip


def spread(heights: Sequence[float], gap: float, low: float = -math.inf, high: float = math.inf) -> list[float]:
    """Return the places nearest to rising ``heights``, in least squares, that are ``gap`` apart or more.

    All are kept between ``low`` and ``high``, if there is room.
    """
    blocks: list[list[float]] = []  # of heights less a gap for each below, which must not fall: pool those that do
    for i, height in enumerate(heights):
        blocks.append([height - i * gap])
        while len(blocks) > 1 and sum(blocks[-2]) / len(blocks[-2]) > sum(blocks[-1]) / len(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    levels = [sum(block) / len(block) for block in blocks for _ in block]
    most = high - (len(levels) - 1) * gap
    return [max(low, min(level, most)) + i * gap for i, level in enumerate(levels)]


def fraction_axis(axes: Axes, values: Iterable[float], label: str, which: str = "y") -> None:
    """Let an axis of accuracies begin at 0 where that takes no more than a third of it, else at what the label says."""
    values = [value for value in values if math.isfinite(value)]
    if not values:
        (axes.set_ylabel if which == "y" else axes.set_xlabel)(f"{label} (fraction)")
        return
    low, high = min(values), max(values)
    room = 0.06 * max(high - low, 0.02)
    start = 0.0
    if low > 0.5 * (high - low):
        step = 0.1 if high - low > 0.25 else 0.05 if high - low > 0.08 else 0.01
        start = max(0.0, round(math.floor((low - room) / step + 1e-9) * step, 2))
    (axes.set_ylim if which == "y" else axes.set_xlim)(start, max(high + room, start + 0.02))
    said = f"(fraction; from {start:g})" if start else "(fraction)"
    text = f"{label}\n{said}" if start and "\n" not in label else f"{label} {said}"
    (axes.set_ylabel if which == "y" else axes.set_xlabel)(text)
