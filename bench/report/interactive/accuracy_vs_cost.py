"""Plain test accuracy against training time, as an interactive figure."""

from __future__ import annotations

import math
from typing import Any

from bench.analysis import cost
from bench.analysis.arms import Arm
from bench.analysis.comparison import Comparison
from bench.analysis.curves import known
from bench.report.interactive.spec import FigureSpec, measure_of, several
from bench.report.interactive.traces import GREY, arm_line, axis, literal, score_axis, short
from bench.system.text import number


def accuracy_vs_cost(place: int, arms: list[Arm], _: list[Comparison], look: dict[str, str]) -> FigureSpec | None:
    """Draw plain test accuracy against training time."""
    measure, points = measure_of(arms), cost.points(arms)
    if not points:
        return None
    data: list[dict[str, Any]] = []
    if front := cost.front(points):
        steps = [point[:2] for point in front] + [(max(point.train_s for point in points), front[-1].score)]
        dotted = {"color": GREY, "dash": "dot", "shape": "hv", "width": 1.5}
        x, y = ([step[i] for step in steps] for i in (0, 1))
        line = {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": dotted, "hoverinfo": "skip"}
        data.append({**line, "name": "front"})
    for train_s, height, arm in (point[:3] for point in points):
        half = arm.ci95(arm.tested["plain"])
        hover = f"<b>{short(arm.label)}</b><br>{number(train_s, 4)} s<br>{measure} {height:.4f}"
        hover += f" ± {half:.4f}" if math.isfinite(half) else ""
        hover += "<br>on the front" if any(arm is point.arm for point in front) else ""
        point: dict[str, Any] = {"type": "scatter", "mode": "markers", "x": [train_s], "y": [height], "meta": arm.label}
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
    told = f"Dotted: the Pareto front, on which whoever is slower, by more than noise, is {better_than}."
    told = told if front else cost.why_no_front(points)
    marks = "Large: mean over seeds, small: one seed; bars" if several(arms) else "Bars"
    x_axis = axis("training time, meta-steps only (s)", [point.train_s for point in points])
    layout = {"xaxis": x_axis, "yaxis": score_axis(f"test {measure}, plain", measure), "height": 340}
    note = f"{told} {marks}: 95% interval over test tasks.".lstrip()
    title = f"Test {measure} against cost"
    return FigureSpec("cost", title, note, place, data, layout, [point.arm.label for point in points])
