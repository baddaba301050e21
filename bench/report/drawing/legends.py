"""Legends below the panels, where they cover no data, and bands with what is said of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bench.analysis.arms import Arm
from bench.analysis.curves import Point, band_kind
from bench.report.drawing.panels import PADS, row_of
from bench.report.drawing.styles import GREY, LINE, SMALL, Style, literal, wrapped


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
    figure.set_layout_engine(ConstrainedLayoutEngine(**PADS, rect=(0, bottom / height, 1, 1 - bottom / height)))
