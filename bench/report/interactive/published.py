"""Published values beside ours, as an interactive figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.analysis.published import Beside
from bench.report.interactive.spec import FigureSpec
from bench.report.interactive.traces import GREY, ROW, in_rows, literal, score_axis, short


def published(lines: Sequence[Beside], look: dict[str, str]) -> FigureSpec | None:
    """Draw published values with ours beside them."""
    lines = [line for line in lines if line.anchor.kind == "anchor"]
    if not lines:
        return None
    theirs: dict[str, Any] = {"type": "scatter", "mode": "markers", "name": "published", "x": [], "y": [], "text": []}
    spread: dict[str, Any] = {"type": "data", "array": [], "color": GREY, "thickness": 1.5}
    ours: list[dict[str, Any]] = []
    rows = []
    for i, line in enumerate(lines):
        a = line.anchor
        name = line.label or a.algo or a.system
        rows.append((f"{name}, {a.n_way}-way {a.k_shot}-shot", str(a.mode)))
        where = f"<b>{short(name)}</b><br>{a.n_way}-way {a.k_shot}-shot, {a.mode}"
        theirs["x"].append(a.published)
        theirs["y"].append(i + 0.15)
        spread["array"].append(a.published_pm or 0)
        pm = "" if a.published_pm is None else f" ± {a.published_pm:.4f}"
        theirs["text"].append(f"{where}<br>published {a.published:.4f}{pm}<br>{short(a.paper or '')}")
        if line.test_acc is None:
            continue
        colour = look.get(name, look.get(str(a.algo), GREY))
        verdict = short(str(line.verdict))
        pm = "" if line.test_acc_ci95 is None else f" ± {line.test_acc_ci95:.4f}"
        hover = f"{where}<br>ours {line.test_acc:.4f}{pm}<br>{verdict}<extra></extra>"
        bar = {"type": "data", "array": [line.test_acc_ci95 or 0], "color": colour, "thickness": 1.5}
        trace = {"type": "scatter", "mode": "markers", "x": [line.test_acc], "y": [i - 0.15], "hovertemplate": hover}
        ours.append(
            {**trace, "name": f"ours: {literal(name)}", "marker": {"color": colour, "size": 10}, "error_x": bar}
        )
    theirs |= {"hovertemplate": "%{text}<extra></extra>", "error_x": spread}
    theirs["marker"] = {"color": GREY, "symbol": "diamond-open", "size": 10, "line": {"width": 2}}
    layout = {"xaxis": score_axis("test accuracy", "accuracy"), **in_rows(rows, ROW + 10)}
    note = "Hollow: published, with its ±; filled: ours, with the 95% interval over test tasks. Only hollow: not run."
    return FigureSpec("published", "Published values beside ours", note, None, [theirs, *ours], layout)
