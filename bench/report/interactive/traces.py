"""Parts of interactive figures: lines, bands, axes and rows as plotly.js takes them, and text that is text to it."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

from bench.analysis.arms import Arm
from bench.analysis.curves import Point, band_kind
from bench.report.drawing.colours import strokes
from bench.report.drawing.styles import wrapped

GREY = "#888888"
DASHES = ("solid", "dash", "dashdot", "dot", "longdash", "longdashdot", "12px 3px", "3px 6px")
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")
ROW = 34  # pixels that a row of a figure takes
_LINE = 16  # and a line of its name
_FRAME = 96  # pixels that axis and margins take


def arm_line(arm: Arm, look: dict[str, str]) -> dict[str, Any]:
    """Return a line with marks as the arm has it everywhere, without its points."""
    colour, (dash, mark) = look[arm.label], strokes(list(look), len(DASHES))[arm.label]
    style = {"color": colour, "width": 2, "dash": DASHES[dash]}
    trace = {"type": "scatter", "mode": "lines+markers", "name": literal(arm.label), "meta": arm.label}
    return {**trace, "line": style, "marker": {"color": colour, "size": 7, "symbol": SYMBOLS[mark]}}


def band(arm: Arm, points: Sequence[Point], look: dict[str, str]) -> list[dict[str, Any]]:
    """Return what lies between the low and high ends of the points, nothing where these are one."""
    if not band_kind(arm, points, ""):
        return []
    x = [point.x for point in points]
    outline = {"x": [*x, *reversed(x)], "y": [*(p.high for p in points), *(p.low for p in reversed(points))]}
    fill = {"fill": "toself", "mode": "none", "fillcolor": faint(look[arm.label]), "hoverinfo": "skip"}
    return [{**outline, **fill, "type": "scatter", "meta": arm.label, "name": literal(arm.label)}]


def band_note(curves: Iterable[tuple[Arm, Sequence[Point]]], tasks: str) -> str:
    """Say what the bands of a figure are, empty where it has none."""
    kinds = {kind for arm, points in curves if (kind := band_kind(arm, points, tasks))}
    return f"; band: {' or '.join(sorted(kinds))}" if kinds else ""


def axis(title: str, ends: Sequence[float] = ()) -> dict[str, Any]:
    """Return an axis, logarithmic where a linear one would squeeze an arm into a tenth of it."""
    found: dict[str, Any] = {"title": {"text": title}, "automargin": True}
    found |= {"separatethousands": True, "exponentformat": "none"}
    positive = [x for x in ends if x > 0]
    if positive and len(positive) == len(ends) and max(positive) > 10 * min(positive):
        found |= log_scale(max(positive), max(positive) > 100 * min(positive))
    return found


def log_scale(highest: float, decades: bool = False) -> dict[str, Any]:
    """Return a logarithmic scale that names 1, 2 and 5 of each power of ten up to ``highest``, or its 1 alone."""
    top = math.ceil(math.log10(highest))
    ticks = [m * 10.0**k for k in range(top - 8, top + 1) for m in ((1,) if decades else (1, 2, 5))]
    return {"type": "log", "tickmode": "array", "tickvals": ticks, "ticktext": [f"{tick:,.10g}" for tick in ticks]}


def score_axis(title: str, measure: str) -> dict[str, Any]:
    """Return an axis of an accuracy, which is a fraction, or of an error."""
    return axis(f"{title} (fraction)" if measure == "accuracy" else title)


def in_rows(rows: Sequence[tuple[str, str]], pixels: int) -> dict[str, Any]:
    """Return a vertical axis with names instead of numbers, the first on top, and room for the longest of them."""
    texts = []
    for name, value in rows:
        lines = [literal(part) for part in wrapped(name, 24).split("\n")]
        texts.append("<br>".join(lines) + (f"<br><i>{value}</i>" if value else ""))
    found: dict[str, Any] = {"tickmode": "array", "tickvals": list(range(len(rows))), "ticktext": texts}
    found |= {"range": [len(rows) - 0.5, -0.5], "automargin": True, "showgrid": False, "zeroline": False}
    most = max(text.count("<br>") + 1 for text in texts)
    return {"yaxis": found, "height": _FRAME + max(pixels, _LINE * most + 8) * len(rows)}


def literal(text: object) -> str:
    """Keep plotly from reading what an algorithm is called as markup or as a template."""
    return html.escape(str(text), quote=False).replace("%{", "%&#123;")


def short(text: str) -> str:
    """Return text in lines that fit beside a mark, on a telephone too."""
    return "<br>".join(map(literal, wrapped(text, 30).split("\n")))


def faint(colour: str) -> str:
    """Return the colour of a band around a line."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"
