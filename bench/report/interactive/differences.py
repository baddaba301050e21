"""Paired differences, as an interactive figure."""

from __future__ import annotations

from typing import Any

from bench.analysis.arms import Arm
from bench.analysis.comparison import Comparison
from bench.analysis.outcomes import leader_of
from bench.records.columns import MODES
from bench.report.interactive.spec import FigureSpec
from bench.report.interactive.traces import GREY, ROW, axis, in_rows, literal, short

PAIRS = 24  # rows of a figure of differences; of more only those with the best arm are drawn


def differences(place: int, arms: list[Arm], pairs: list[Comparison], look: dict[str, str]) -> FigureSpec | None:
    """Draw the paired differences."""
    if not pairs:
        return None
    note = "Filled: a verdict below names the better one, whose colour it has; hollow: no difference shown."
    if len({(c.algo_a, c.algo_b) for c in pairs}) > PAIRS:
        best = leader_of(arms, "plain") or arms[0]
        pairs = [c for c in pairs if best.label in (c.algo_a, c.algo_b)]
        note += f" Only pairs with {best.label}, of the highest plain mean; the table has them all."
    names = list(dict.fromkeys((c.algo_a, c.algo_b) for c in pairs))
    data: list[dict[str, Any]] = []
    symbols = {"plain": "circle", "transductive": "diamond"}
    for i, mode in enumerate(MODES):
        found = [c for c in pairs if c.mode == mode]
        shown = [c.judged.shown for c in found]
        ink = [look[c.judged.better] if c.judged.shown else GREY for c in found]
        mark = [symbols[mode] + ("" if clear else "-open") for clear in shown]
        y = [names.index((c.algo_a, c.algo_b)) + 0.36 * i - 0.18 for c in found]
        hover = [
            f"<b>{short(f'{c.algo_a} - {c.algo_b}')}</b><br>{mode}<br>{c.diff:+.4f}"
            f" ({c.ci95_low:+.4f} to {c.ci95_high:+.4f})<br>p (Holm) {c.p_value_holm:.2g}, {c.test_tasks:,} pairs<br>"
            f"{short(c.verdict)}<extra></extra>"
            for c in found
        ]
        for c, place_of_pair, colour, symbol, text in zip(found, y, ink, mark, hover):
            bar = {"type": "data", "symmetric": False, "color": colour, "thickness": 1.5}
            bar |= {"array": [c.ci95_high - c.diff], "arrayminus": [c.diff - c.ci95_low]}
            trace: dict[str, Any] = {"type": "scatter", "mode": "markers", "x": [c.diff], "y": [place_of_pair]}
            trace |= {"error_x": bar, "hovertemplate": text, "name": f"{mode}: {literal(f'{c.algo_a} - {c.algo_b}')}"}
            data.append(
                trace
                | {"marker": {"color": colour, "symbol": symbol, "size": 9, "line": {"width": 2, "color": colour}}}
            )
    rows = [(f"{a} - {b}", "") for a, b in names]
    x_axis = axis("difference in accuracy, A - B") | {"zeroline": True, "zerolinewidth": 2, "rangemode": "tozero"}
    layout = {"xaxis": x_axis, **in_rows(rows, ROW + 14)}
    note = "Circle: plain, diamond: transductive; line: 95% interval over test tasks, not corrected. " + note
    return FigureSpec("differences", "Paired differences", note, place, data, layout)
