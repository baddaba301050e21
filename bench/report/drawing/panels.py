"""What all figures share: how an arm looks, panels per setting, axes, and a legend that covers no data."""

from __future__ import annotations

import math
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bench.analysis.comparison import Arm, by_setting
from bench.analysis.curves import Point, band_kind
from bench.analysis.naming import heading, short_places
from bench.report.drawing.colours import Labels, colours, ink, strokes

_DASHES: tuple[Any, ...] = (
    *("-", "--", "-.", ":"),
    (0, (7, 1.5)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (1, 2.5)),
    (0, (9, 3, 2, 3)),
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = "#555555"
SMALL, TEXT, TITLE = 7.0, 7.5, 8.5  # points, at the width at which a page is shown
_PADS: dict[str, Any] = {"h_pad": 0.06, "w_pad": 0.05}  # inches
LINE = 0.145  # inches that a line of small text takes
_TICK = 0.5  # inches that a long number and the space beside it take


@dataclass(frozen=True)
class Page:
    """A width and the greatest height that figures are made for, in inches, and how many panels stand in a row.

    ``part`` is which of how many figures the settings are shared out to, the first being 0.
    """

    width: float
    columns: int
    tallest: float
    part: tuple[int, int] = (0, 1)

    def share(self, settings: Sequence[Any]) -> Sequence[Any]:
        """Return those settings that this figure is about."""
        place, of = self.part
        return settings[len(settings) * place // of : len(settings) * (place + 1) // of]


COLUMN = Page(3.4, 1, 9.0)
"""A column of a paper, where the smallest text has 7 points."""
SLIDE = Page(5.6, 2, 4.2)
"""A slide: shown twice as large and more, so that the same text has 15 points."""


def panel_width(page: Page, panels: int) -> float:
    """Return about how many inches a panel's x axis takes, where so many stand on the page."""
    return page.width / min(page.columns, max(1, panels)) - 1.0


@dataclass(frozen=True)
class Style:
    """How an arm looks in every figure; each of the three tells algorithms apart without the others."""

    colour: str
    dash: Any
    marker: str


def styles(arms: Iterable[Arm]) -> dict[str, Style]:
    """Return a style per arm's label, which its algorithm decides and, among arms of one algorithm, their order."""
    return styles_of({arm.label: arm.algo for arm in sorted(arms, key=lambda arm: arm.label)})


def styles_of(labels: Labels) -> dict[str, Style]:
    """Return a style per label, from labels or a mapping of labels to algorithms, as ``colours`` takes them."""
    labels = labels if isinstance(labels, Mapping) else list(labels)
    colour_of = colours(labels)
    return {
        label: Style(colour_of[label], _DASHES[dash], _MARKERS[mark])
        for label, (dash, mark) in strokes(labels, len(_DASHES)).items()
    }


def make_panels(
    arms: Sequence[Arm],
    title: str,
    height: float | Callable[[Sequence[Arm]], float],
    parts: Sequence[str] = ("",),
    page: Page = COLUMN,
    around: float = 0.0,
) -> tuple[Figure, list[tuple[Axes, list[Arm]]]]:
    """Return a figure with one panel per setting and part, and the arms of each.

    Parts stand beside each other under one title and share their y axis; what they are is for their x labels to say.

    Args:
        height: of a panel in inches, or what it is for a panel of some arms.
        around: inches that its labels take on top of that.
    """
    everywhere = by_setting(a for a in arms if a.ok)
    found, (place, of) = page.share(everywhere), page.part
    wanted = [(members, part) for _, members in found for part in parts]
    columns = min(max(page.columns, len(parts)), max(1, len(wanted)))
    heights = [float(height(members)) if callable(height) else height for members, _ in wanted] or [1.0]
    rows = [max(heights[i : i + columns]) for i in range(0, len(heights), columns)]
    total = sum(rows) + around * len(rows)
    figure = new_figure(page, total)
    counted = f" ({place + 1}\u00a0of\u00a0{of})" if of > 1 else ""  # on one line
    entitle(figure, f"{title}: {heading(arm.setting for arm in arms)}{counted}", total)
    if not wanted:
        figure.text(0.5, 0.4, "no finished run", ha="center", va="center", color=GREY, fontsize=TEXT)
    names = short_places(setting for setting, _ in everywhere)
    grid = figure.add_gridspec(len(rows), columns, height_ratios=rows)
    panels: list[tuple[Axes, list[Arm]]] = []
    for i, (members, _) in enumerate(wanted):
        beside = panels[-1][0] if i % len(parts) else None
        axes = figure.add_subplot(grid[divmod(i, columns)], sharey=beside)
        if beside is None:
            width = len(parts) * page.width / columns - 1.0  # less what stands left of the panel
            name = literal(wrapped(names[members[0].setting], int(15 * width)))
            axes.set_title(name, fontsize=TEXT, loc="left" if len(parts) > 1 else "center")
        panels.append((axes, members))
    return figure, panels


def in_panels(panels: Iterable[tuple[Axes, list[Arm]]]) -> list[Arm]:
    """Return the arms that panels show, each once."""
    return list({id(arm): arm for _, members in panels for arm in members}.values())


def shade(axes: Axes, arm: Arm, curve: Sequence[Point], style: Style) -> set[str]:
    """Fill the band around a curve, if it has one, and return what it is for ``band_handles``."""
    if not (kind := band_kind(arm, curve, "tasks (one seed)")):
        return set()
    ends = ([point.low for point in curve], [point.high for point in curve])
    axes.fill_between([point.x for point in curve], *ends, color=style.colour, alpha=0.15, linewidth=0)
    return {kind}


def band_handles(kinds: Iterable[str]) -> list[Any]:
    """Return what a legend says of bands, nothing if there are none."""
    text = ", ".join(sorted(kinds))
    return [Patch(color=GREY, alpha=0.25, lw=0, label=f"band: {text}")] if text else []


def new_figure(page: Page, height: float) -> Figure:
    """Return an empty figure whose panels take ``height`` inches."""
    return Figure(figsize=(page.width, height), layout=ConstrainedLayoutEngine(**_PADS))


def entitle(figure: Figure, title: str, height: float) -> None:
    """Put a title above panels that keep their ``height`` in inches."""
    text = wrapped(title, int(12.5 * figure.get_figwidth()))
    figure.set_figheight(height + 0.15 + 0.15 * (text.count("\n") + 1))
    figure.suptitle(literal(text), fontsize=TITLE, weight="bold")


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


def line_style(style: Style, points: int) -> dict[str, Any]:
    """Return the arguments that plot a curve of so many points, with about eight markers."""
    every = max(1, points // 8)
    return {
        "color": style.colour,
        "ls": style.dash,
        "marker": style.marker,
        "markersize": 3.5,
        "lw": 1.3,
        "markevery": every,
    }


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


def legend(
    figure: Figure, arms: Sequence[Arm], look: dict[str, Style], further: list[Any], lines: bool = True,
    named: bool = True,
) -> None:  # fmt: skip
    """Put the legend below the panels, where it covers no data; ``named`` says whether it holds the arms."""
    grow_for_titles(figure)
    handles: list[Any] = []
    width = int(figure.get_figwidth() * 13)
    for label in sorted({arm.label for arm in arms if arm.ok and named}):
        style, name = look[label], literal(wrapped(label, width))
        drawn = style.dash if lines else "none"
        handles.append(Line2D([], [], color=style.colour, ls=drawn, marker=style.marker, markersize=4.5, label=name))
    if arms and any(arm.ok for arm in arms):
        put_legend(figure, handles, further)


def grow_for_titles(figure: Figure) -> None:
    """Make the figure as much taller as further lines in the panels' titles take."""
    rows: dict[int, int] = {}
    for axes in figure.axes:
        row = row_of(axes)
        lines = max(axes.get_title(loc=where).count("\n") for where in ("left", "center"))
        rows[row] = max(rows.get(row, 0), lines)
    figure.set_figheight(figure.get_figheight() + LINE * sum(rows.values()))


def row_of(axes: Axes) -> int:
    """Return the row in which a panel stands."""
    spec = axes.get_subplotspec()
    return spec.rowspan.start if spec is not None else 0


def put_legend(figure: Figure, handles: Sequence[Any], further: Sequence[Any] = (), title: str = "") -> None:
    """Put handles below the panels in as many columns as fit, and ``further`` ones, with longer texts, below them."""
    renderer, width = FigureCanvasAgg(figure).get_renderer(), figure.get_figwidth()
    bottom = 0.04
    for group, head in ((further, ""), (handles, title)):  # the lowest is placed first
        if not group:
            continue
        names = [wrapped(str(handle.get_label()), int(13.5 * width)) for handle in group]
        for columns in range(len(names), 0, -1):
            box = figure.legend(
                group, names, loc="lower center", bbox_to_anchor=(width / 2, bottom), ncols=columns, fontsize=SMALL,
                bbox_transform=figure.dpi_scale_trans, frameon=False, handlelength=2.8, columnspacing=1.2,
                borderaxespad=0, borderpad=0.1, labelspacing=0.3, title_fontsize=SMALL,
                title=literal(wrapped(head, int(16 * width))) or None,
            )  # fmt: skip
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a name in a script the font lacks
                extent = box.get_window_extent(renderer)
            if columns == 1 or extent.width <= figure.dpi * (width - 0.1):
                break
            box.remove()
        bottom += extent.height / figure.dpi + 0.04
    height = figure.get_figheight() + bottom  # panels keep their own
    figure.set_figheight(height)
    figure.set_layout_engine(ConstrainedLayoutEngine(**_PADS, rect=(0, bottom / height, 1, 1 - bottom / height)))


def wrapped(text: str, width: int) -> str:
    """Break lines between words; words that are too long after underscores and hyphens, where names like it best."""
    words = (word if len(word) <= width else re.sub("([_-])", "\\1\0 ", word) for word in text.split(" "))
    return textwrap.fill(" ".join(words), width, break_on_hyphens=False).replace("\0 ", "").replace("\0", "")


def literal(text: str) -> str:
    """Keep matplotlib from setting what stands between two dollar signs as mathematics."""
    return text.replace("$", r"\$")
