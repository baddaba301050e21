"""Best validation so far against trials spent, as an interactive figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.analysis.tuning import best_so_far, settings_of
from bench.records.tuning import Search
from bench.report.drawing.colours import colours, strokes
from bench.report.interactive.spec import FigureSpec
from bench.report.interactive.traces import DASHES, SYMBOLS, axis, literal, score_axis, short
from bench.report.words.tuning import told


def tuning(searches: Sequence[Search]) -> list[FigureSpec]:
    """Draw a figure per setting that was searched in."""
    found = []
    for name, members in settings_of(searches).items():
        names = [search.algo for search in members]
        look, lines = colours(names), strokes(names, len(DASHES))
        data: list[dict[str, Any]] = []
        for search in members:
            colour, (dash, mark) = look[search.algo], lines[search.algo]
            data += _traces(search, {"color": colour, "width": 2, "dash": DASHES[dash], "shape": "hv"}, SYMBOLS[mark])
        measure = members[0].measure
        layout = {
            "xaxis": axis("trials spent"), "yaxis": score_axis(f"validation {measure}", measure), "height": 340,
        }  # fmt: skip
        note = (
            "Line: best complete trial so far; filled: a complete trial, hollow: pruned, as it stood when it stopped. "
            "The first trial has the protocol's values."
        )
        found.append(FigureSpec("tuning", f"Tuning, {name}", note, None, data, layout, names))
    return found


def _traces(search: Search, line: dict[str, Any], symbol: str) -> list[dict[str, Any]]:
    """Return the best so far as steps, and every trial that was scored as a mark."""
    name = {"type": "scatter", "name": literal(search.algo), "meta": search.algo}
    best = [(n, t.score) for n, t in enumerate(best_so_far(search), 1) if t is not None]
    scored = [(n, t) for n, t in enumerate(search.trials, 1) if t.score is not None]
    marks = {
        "color": line["color"], "size": 8,
        "symbol": [symbol if trial.state == "complete" else f"{symbol}-open" for _, trial in scored],
    }  # fmt: skip
    texts = [f"trial {trial.number}, {trial.state}<br>{short(told(trial.values))}" for _, trial in scored]
    points = {"x": [n for n, _ in scored], "y": [trial.score for _, trial in scored], "text": texts}
    hover = f"<b>{short(search.algo)}</b> %{{text}}<br>%{{y:.4f}}<extra></extra>"
    legend = {"color": line["color"], "symbol": symbol}  # the line has no marks but there
    steps = {"x": [n for n, _ in best], "y": [s for _, s in best]}
    return [
        {**name, "mode": "lines", "line": line, "marker": legend, **steps, "hoverinfo": "skip"},
        {**name, "mode": "markers", "marker": marks, **points, "hovertemplate": hover},
    ]
