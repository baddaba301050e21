"""What all figures share: how an arm looks, panels per setting, axes, and a legend that covers no data."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.comparison import Arm, by_setting
from bench.text import heading, place

# Okabe and Ito 2008, without their yellow, which is lost on white
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7A4B1E")
_DASHES: tuple[Any, ...] = (
    *("-", "--", "-.", ":"),
    (0, (7, 1.5)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (1, 2.5)),
    (0, (9, 3, 2, 3)),
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_HATCHES = ("", "////", "....", "xxxx", r"\\\\", "||||", "oo", "++++")
GREY = "#555555"
SMALL, TEXT, TITLE = 7.5, 8.5, 10.0  # points
_LINE = 0.16  # inches that a line of small text takes


@dataclass(frozen=True)
class Style:
    """How an arm looks in every figure; each of the four tells arms apart without the others."""

    colour: str
    dash: Any
    marker: str
    hatch: str


def styles(arms: Iterable[Arm]) -> dict[str, Style]:
    """Return a style per arm's label, given out in the labels' sorted order over the whole table."""
    return styles_of(arm.label for arm in arms)


def styles_of(labels: Iterable[str]) -> dict[str, Style]:
    """Return a style per label, given out in their sorted order."""
    found = {}
    for i, label in enumerate(sorted(set(labels))):
        turn = i // len(_COLOURS)  # after a whole turn, colours meet other dashes and markers
        found[label] = Style(
            _COLOURS[i % len(_COLOURS)],
            _DASHES[(i + turn) % len(_DASHES)],
            _MARKERS[(i + 3 * turn) % len(_MARKERS)],
            _HATCHES[(i + turn) % len(_HATCHES)],
        )
    return found


def make_panels(
    arms: Sequence[Arm], title: str, height: float, parts: Iterable[str] = ("",)
) -> tuple[Figure, list[tuple[Axes, list[Arm]]]]:
    """Return a figure with one panel per setting and part, two in a row, and the arms of each."""
    wanted = [(members, part) for _, members in by_setting(a for a in arms if a.ok) for part in parts]
    columns = min(2, max(1, len(wanted)))
    rows = max(1, math.ceil(len(wanted) / columns))
    figure = Figure(figsize=(3.6 * columns + (1.2 if columns == 1 else 0), height * rows + 0.5), layout="constrained")
    where = heading(arm.setting for arm in arms)
    figure.suptitle(literal(wrapped(f"{title}: {where}", 40 + 40 * (columns - 1))), fontsize=TITLE, weight="bold")
    if not wanted:
        figure.text(0.5, 0.5, "no finished run", ha="center", va="center", color=GREY)
    panels = []
    for i, (members, part) in enumerate(wanted):
        axes = figure.add_subplot(rows, columns, i + 1)
        name = ", ".join(filter(None, (place(members[0], [m for ms, _ in wanted for m in ms]), part)))
        axes.set_title(literal(wrapped(name, 48)), fontsize=TEXT)
        panels.append((axes, members))
    return figure, panels


def thousands(value: float, _: object) -> str:
    """Return a tick's text, as in ``12,000`` or ``0.5``."""
    return f"{value:,.10g}"


def scale(axes: Axes, ends: Sequence[float]) -> None:
    """Make the x axis logarithmic where a linear one would squeeze an arm into a tenth of it."""
    positive = [x for x in ends if x > 0]
    if positive and len(positive) == len(ends) and max(positive) > 10 * min(positive):
        axes.set_xscale("log", nonpositive="mask")
        narrow = max(positive) < 300 * min(positive)
        axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if narrow else (1,)))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
    axes.xaxis.set_major_formatter(thousands)


def finish(axes: Axes, x_label: str, y_label: str, filled: bool) -> None:
    """Label and tidy a panel after drawing; ``filled`` says whether there was anything to draw."""
    axes.set_xlabel(x_label, fontsize=TEXT)
    axes.set_ylabel(y_label, fontsize=TEXT)
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#DDDDDD", lw=0.6)
    axes.set_axisbelow(True)
    if not filled:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color=GREY)


def line_style(style: Style, points: int) -> dict[str, Any]:
    """Return the arguments that plot a curve of so many points, with about eight markers."""
    every = max(1, points // 8)
    return {
        "color": style.colour,
        "ls": style.dash,
        "marker": style.marker,
        "markersize": 4,
        "lw": 1.5,
        "markevery": every,
    }


def label_ends(axes: Axes, ends: Mapping[str, tuple[float, str]], height: float) -> None:
    """Write each label right of the panel at the height where its line ends, moved as little as keeps them apart.

    Args:
        ends: height of the end in data coordinates and colour, by label; set the y limits before.
        height: of the panel in inches.
    """
    low, high = axes.get_ylim()
    gap = _LINE / height * (high - low)
    labels = sorted(ends, key=lambda label: ends[label][0])
    places = spread([ends[label][0] for label in labels], gap)
    for label, place_of_label in zip(labels, places):
        end, colour = ends[label]
        axes.annotate(
            literal(label), (1, end), (1.05, place_of_label), axes.get_yaxis_transform(), color=colour, fontsize=SMALL,
            va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.7, "relpos": (0, 0.5)},
        )  # fmt: skip


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Return the places nearest to rising ``heights``, in least squares, that are ``gap`` apart or more."""
    blocks: list[list[float]] = []  # of heights less a gap for each below, which must not fall: pool those that do
    for i, height in enumerate(heights):
        blocks.append([height - i * gap])
        while len(blocks) > 1 and sum(blocks[-2]) / len(blocks[-2]) > sum(blocks[-1]) / len(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    levels = [sum(block) / len(block) for block in blocks for _ in block]
    return [level + i * gap for i, level in enumerate(levels)]


def legend(figure: Figure, arms: Sequence[Arm], look: dict[str, Style], further: list[Any], lines: bool = True) -> None:
    """Put the legend below the panels, where it covers no data."""
    handles: list[Any] = []
    for label in sorted({arm.label for arm in arms if arm.ok}):
        style, name = look[label], literal(wrapped(label, 36))
        drawn = style.dash if lines else "none"
        handles.append(Line2D([], [], color=style.colour, ls=drawn, marker=style.marker, markersize=5, label=name))
    if not handles:
        return
    handles += further
    names = [handle.get_label() for handle in handles]
    longest = max(len(line) for name in names for line in name.splitlines())
    columns = max(1, min(len(names), int(figure.get_figwidth() * 13 / (longest + 8))))
    lines_of_names = sum(name.count("\n") + 1 for name in names[: math.ceil(len(names) / columns)])
    lines_of_titles = sum(axes.get_title().count("\n") for axes in figure.axes)
    figure.set_figheight(figure.get_figheight() + _LINE * (lines_of_names + lines_of_titles))  # panels keep their own
    figure.legend(
        handles, names, loc="outside lower center", ncols=columns, fontsize=SMALL, frameon=False, handlelength=3.5
    )


def wrapped(text: str, width: int) -> str:
    """Break lines after underscores too, where the names of algorithms like to be broken."""
    return textwrap.fill(text.replace("_", "_\0 "), width).replace("\0 ", "").replace("\0", "")


def literal(text: str) -> str:
    """Keep matplotlib from setting what stands between two dollar signs as mathematics."""
    return text.replace("$", r"\$")
