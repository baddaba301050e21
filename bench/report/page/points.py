"""Interactive points: accuracy against cost, paired differences, published values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bench.analysis.anchors import Beside
from bench.analysis.arms import Arm
from bench.analysis.comparison import Comparison
from bench.analysis.curves import known
from bench.analysis.statistics import pareto_front
from bench.records.rows import MODES
from bench.report.page.spec import FigureSpec, measure_of, several
from bench.report.page.traces import GREY, ROW, arm_line, axis, in_rows, literal, score_axis, short
from bench.system.text import number

PAIRS = 24  # rows of a figure of differences; of more only those with the best arm are drawn


def accuracy_vs_cost(place: int, arms: list[Arm], _: list[Comparison], look: dict[str, str]) -> FigureSpec | None:
    """Draw plain test accuracy against training time."""
    measure, better = measure_of(arms), 1 if measure_of(arms) == "accuracy" else -1
    points = [(arm.mean("train_s"), arm.mean(arm.tested["plain"]), arm) for arm in arms]
    points = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
    if not points:
        return None
    data: list[dict[str, Any]] = []
    front = [points[i] for i in pareto_front([p[0] for p in points], [better * p[1] for p in points])]
    steps = [(cost, height) for cost, height, _ in front] + [(max(p[0] for p in points), front[-1][1])]
    dotted = {"color": GREY, "dash": "dot", "shape": "hv", "width": 1.5}
    x, y = ([step[i] for step in steps] for i in (0, 1))
    data.append(
        {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": dotted, "hoverinfo": "skip", "name": "front"}
    )
    for cost, height, arm in points:
        half = arm.ci95(arm.tested["plain"])
        on_front = any(arm is other for *_, other in front)
        hover = f"<b>{short(arm.label)}</b><br>{number(cost, 4)} s<br>{measure} {height:.4f}"
        hover += f" ± {half:.4f}" if math.isfinite(half) else ""
        hover += "<br>on the front" if on_front else "<br>another is at least as good for less time"
        point: dict[str, Any] = {"type": "scatter", "mode": "markers", "x": [cost], "y": [height], "meta": arm.label}
        point |= {"name": literal(arm.label), "marker": {**arm_line(arm, look)["marker"], "size": 11}}
        point["hovertemplate"] = f"{hover}<extra></extra>"
        if math.isfinite(half):
            point["error_y"] = {"type": "data", "array": [half], "color": look[arm.label], "thickness": 1.5}
        data.append(point)
        seeds = [(run.row.train_s, getattr(run.row, arm.tested["plain"]), run.row.seed) for run in arm.ok.values()]
        seeds = [seed for seed in seeds if known(seed[0]) and known(seed[1])]
        if len(seeds) > 1:
            each: dict[str, Any] = {"type": "scatter", "mode": "markers", "meta": arm.label, "opacity": 0.5}
            each |= {"x": [s[0] for s in seeds], "y": [s[1] for s in seeds], "customdata": [s[2] for s in seeds]}
            each |= {"name": literal(arm.label), "marker": {**arm_line(arm, look)["marker"], "size": 5}}
            each["hovertemplate"] = (
                f"<b>{short(arm.label)}</b>, seed %{{customdata}}<br>%{{x:,.6~r}} s<br>%{{y:.4f}}<extra></extra>"
            )
            data.append(each)
    better_than = "more accurate" if measure == "accuracy" else "of lower error"
    note = f"Dotted: the Pareto front, on which nobody is both slower and no {better_than} than another"
    note += "; large: mean over seeds, small: one seed" if several(arms) else ""
    x_axis = axis("training time, meta-steps only (s)", [cost for cost, *_ in points])
    layout = {"xaxis": x_axis, "yaxis": score_axis(f"test {measure}, plain", measure), "height": 340}
    note = f"{note}; bars: 95% interval over test tasks."
    title = f"Test {measure} against cost"
    return FigureSpec("cost", title, note, place, data, layout, [arm.label for *_, arm in points])


def differences(place: int, arms: list[Arm], pairs: list[Comparison], look: dict[str, str]) -> FigureSpec | None:
    """Draw the paired differences."""
    if not pairs:
        return None
    note = "Filled: a verdict below names the better one, whose colour it has; hollow: no difference shown."
    if len({(c.algo_a, c.algo_b) for c in pairs}) > PAIRS:
        best = max(arms, key=lambda arm: (math.isfinite(v := arm.mean(arm.tested["plain"])), v))
        pairs = [c for c in pairs if best.label in (c.algo_a, c.algo_b)]
        note += f" Only pairs with {best.label}, of the highest plain mean; the table has them all."
    names = list(dict.fromkeys((c.algo_a, c.algo_b) for c in pairs))
    data: list[dict[str, Any]] = []
    symbols = {"plain": "circle", "transductive": "diamond"}
    for i, mode in enumerate(MODES):
        found = [c for c in pairs if c.mode == mode]
        shown = [c.verdict != "no difference shown" for c in found]
        ink = [look[c.algo_a if c.diff > 0 else c.algo_b] if clear else GREY for c, clear in zip(found, shown)]
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
