"""Interactive figures: arms in, specifications for plotly.js out, one per figure and setting.

They are plain dictionaries and not ``plotly.graph_objects``, whose import alone takes a second of every run; a test has
plotly check them. Colours of axes and text are the page's, which knows whether it is light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.analysis.anchors import Beside
from bench.analysis.comparison import Arm, Comparison, by_setting
from bench.analysis.curves import Point, adaptation, drawn_points, known, takes_no_steps, validation
from bench.records.run import MODES
from bench.records.stats import pareto_front
from bench.report.drawing.colours import Labels, colours
from bench.report.page.traces import (
    GREY,
    ROW,
    arm_line,
    axis,
    band,
    band_note,
    faint,
    in_rows,
    literal,
    log_scale,
    score_axis,
    short,
)
from bench.system.text import number

PAIRS = 24  # rows of a figure of differences; of more only those with the best arm are drawn


@dataclass(frozen=True)
class FigureSpec:
    """One figure: ``data`` and ``layout`` as plotly.js takes them, ``place`` the setting, empty for all of them.

    Traces of an arm have its label as ``meta``, by which the page shows and hides them.
    """

    kind: str
    title: str
    note: str
    place: int | None
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    labels: list[str] = field(default_factory=list)
    """The arms that are drawn, for the legend."""


def on_dark(labels: Labels) -> dict[str, str]:
    """Return for every colour that figures of these arms are drawn in the one that takes its place on a dark page."""
    dark = colours(labels, dark=True)
    pairs = [(light, dark[label]) for label, light in colours(labels).items()]
    return dict([*pairs, *((faint(a), faint(b)) for a, b in pairs)])


def figures(
    arms: Sequence[Arm], comparisons: Sequence[Comparison], published: Sequence[Beside], look: dict[str, str]
) -> list[FigureSpec]:
    """Return every figure that there is something to draw for, setting by setting."""
    found = []
    for place, (setting, members) in enumerate(by_setting(arm for arm in arms if arm.ok)):
        own = [c for c in comparisons if c.setting == setting]
        for draw in _PER_SETTING:
            found.append(draw(place, members, own, look))
    return [spec for spec in [*found, _published(published, look)] if spec is not None]


def _accuracy_vs_tasks(place: int, arms: list[Arm], _: list[Comparison], look: dict[str, str]) -> FigureSpec | None:
    return _curves(place, arms, look, "tasks_seen", "against tasks", "training tasks seen", "tasks")


def _accuracy_vs_wallclock(place: int, arms: list[Arm], _: list[Comparison], look: dict[str, str]) -> FigureSpec | None:
    return _curves(place, arms, look, "train_s", "against wall-clock", "training time, meta-steps only (s)", "s")


def _curves(
    place: int, arms: list[Arm], look: dict[str, str], column: str, against: str, label: str, unit: str
) -> FigureSpec | None:
    measure = _measure(arms)
    data: list[dict[str, Any]] = []
    found = [(arm, points) for arm in arms if (points := validation(arm, column))]
    x_axis = axis(label, [points[-1].x for _, points in found])
    for arm, points in found:
        if x_axis.get("type") == "log":  # which has no place for the point before training
            points = [point for point in points if point.x > 0]
        data += [*band(arm, points, look), _with_points(arm, points, look, f"%{{x:,.6~r}} {unit}<br>{measure}")]
    if not data:
        return None
    note = f"Transductive meta-validation; line: {'mean over seeds' if _several(arms) else 'one seed'}"
    note += f"{band_note(found, 'validation tasks')}."
    layout = {"xaxis": x_axis, "yaxis": score_axis(f"validation {measure}", measure), "height": 340}
    return FigureSpec(
        f"curves-{column}", f"Validation {measure} {against}", note, place, data, layout, _drawn(data, arms)
    )


def _with_points(arm: Arm, points: Sequence[Point], look: dict[str, str], said: str) -> dict[str, Any]:
    """Return a line through points, which says of each what ``said`` says and the mean, and the ends of the band."""
    hover = f"<b>{short(arm.label)}</b><br>{said} %{{y:.4f}}"
    if any(point.low < point.high for point in points):
        hover += "<br>%{customdata[0]:.4f} to %{customdata[1]:.4f}"
    return arm_line(arm, look) | {
        "x": [point.x for point in points],
        "y": [point.mean for point in points],
        "customdata": [[point.low, point.high] for point in points],
        "hovertemplate": f"{hover}<extra></extra>",
    }


def _step_time(place: int, arms: list[Arm], _: list[Comparison], look: dict[str, str]) -> FigureSpec | None:
    spec = _bars(place, arms, look, ("step_ms_median", "step_ms_p95"), "Step time", "time per meta-step (ms)", "ms")
    return spec and _with_note(spec, "Bar: median; line: to the 95th percentile.", arms)


def _peak_memory(place: int, arms: list[Arm], _: list[Comparison], look: dict[str, str]) -> FigureSpec | None:
    columns = ("peak_mem_mib", "peak_mem_reserved_mib")
    spec = _bars(place, arms, look, columns, "Peak memory in training", "peak memory (MiB)", "MiB")
    reserved = any(arm.values(columns[1]) for arm in arms)
    return spec and _with_note(spec, "Bar: allocated; line: to what was reserved." if reserved else "", arms)


def _with_note(spec: FigureSpec, note: str, arms: list[Arm]) -> FigureSpec:
    text = " ".join(filter(None, (note, "Means over seeds." if _several(arms) else "", _beside(arms))))
    return replace(spec, note=text)


def _beside(arms: list[Arm]) -> str:
    """Name the arms that were measured beside other runs."""
    found = [arm.label for arm in arms if any(arm.values("beside"))]
    named = "all" if len(found) == len(arms) else ", ".join(found)
    return f"Measured beside other runs: {named}." if found else ""


def _bars(
    place: int, arms: list[Arm], look: dict[str, str], columns: tuple[str, str], title: str, label: str, unit: str
) -> FigureSpec | None:
    data = []
    shown = [arm for arm in arms if math.isfinite(arm.mean(columns[0]))]
    for i, arm in enumerate(shown):
        value, end = arm.mean(columns[0]), arm.mean(columns[1])
        seeds = f"<br>mean of {len(arm.ok)} seeds" if len(arm.ok) > 1 else ""
        hover = f"<b>{short(arm.label)}</b><br>{number(value, 4)} {unit}"
        hover += f"<br>line to {number(end, 4)} {unit}" if end > value else ""
        bar: dict[str, Any] = {"type": "bar", "orientation": "h", "x": [value], "y": [i], "width": 0.6}
        bar |= {"name": literal(arm.label), "meta": arm.label, "marker": {"color": look[arm.label]}}
        bar["hovertemplate"] = f"{hover}{seeds}<extra></extra>"
        if end > value:
            bar["error_x"] = {"type": "data", "symmetric": False, "array": [end - value], "arrayminus": [0]}
        data.append(bar)
    if not data:
        return None
    rows = [(arm.label, f"{number(arm.mean(columns[0]))} {unit}") for arm in shown]
    x_axis = axis(label) | {"rangemode": "tozero"}
    layout = {"xaxis": x_axis, **in_rows(rows, ROW + 10), "bargap": 0.3}
    return FigureSpec(columns[0], title, "", place, data, layout)


def _accuracy_vs_cost(place: int, arms: list[Arm], _: list[Comparison], look: dict[str, str]) -> FigureSpec | None:
    measure, better = _measure(arms), 1 if _measure(arms) == "accuracy" else -1
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
    note += "; large: mean over seeds, small: one seed" if _several(arms) else ""
    x_axis = axis("training time, meta-steps only (s)", [cost for cost, *_ in points])
    layout = {"xaxis": x_axis, "yaxis": score_axis(f"test {measure}, plain", measure), "height": 340}
    note = f"{note}; bars: 95% interval over test tasks."
    title = f"Test {measure} against cost"
    return FigureSpec("cost", title, note, place, data, layout, [arm.label for *_, arm in points])


def _differences(place: int, arms: list[Arm], pairs: list[Comparison], look: dict[str, str]) -> FigureSpec | None:
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


def _adapted(place: int, arms: list[Arm], mode: str, look: dict[str, str]) -> FigureSpec | None:
    measure = _measure(arms)
    found = [(arm, points) for arm in arms if (points := adaptation(arm, mode))]
    longest = max((max(points) for _, points in found), default=0)
    curves = [(arm, drawn_points(arm, mode, longest)) for arm, _ in found]
    data: list[dict[str, Any]] = []
    for arm, shown in curves:
        steps = f"{mode}<br>{'takes no' if takes_no_steps(arm) else '%{x}'} steps<br>{measure}"
        data += [*band(arm, shown, look), _with_points(arm, shown, look, steps)]
    if not data:
        return None
    x_axis = axis("adaptation steps") | (log_scale(longest) if longest > 10 else {})
    layout = {"xaxis": x_axis, "yaxis": score_axis(f"test {measure}, {mode}", measure), "height": 340}
    tasks = sorted({point.tasks for arm in arms for run in arm.ok.values() for point in run.adaptation if point.tasks})
    note = "Mean over seeds" if _several(arms) else "One seed"
    note += f", on the first {' or '.join(f'{n:,}' for n in tasks)} test tasks" if tasks else ""
    note += band_note(curves, "these tasks")
    note += ". From the first step on: what the weights do unadapted is in the table." if longest else "."
    title = f"Test {measure} after adaptation steps, {mode}"
    return FigureSpec(f"adaptation-{mode}", title, note, place, data, layout, _drawn(data, arms))


def _adaptation_plain(place: int, arms: list[Arm], _: list[Comparison], look: dict[str, str]) -> FigureSpec | None:
    return _adapted(place, arms, "plain", look)


def _adaptation_transductive(
    place: int, arms: list[Arm], _: list[Comparison], look: dict[str, str]
) -> FigureSpec | None:
    return _adapted(place, arms, "transductive", look)


def _published(lines: Sequence[Beside], look: dict[str, str]) -> FigureSpec | None:
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


_PER_SETTING: tuple[Callable[[int, list[Arm], list[Comparison], dict[str, str]], FigureSpec | None], ...] = (
    _accuracy_vs_tasks,
    _accuracy_vs_wallclock,
    _step_time,
    _peak_memory,
    _accuracy_vs_cost,
    _differences,
    _adaptation_plain,
    _adaptation_transductive,
)


def _several(arms: Sequence[Arm]) -> bool:
    return any(len(arm.ok) > 1 for arm in arms)


def _measure(arms: Sequence[Arm]) -> str:
    return arms[0].measure


def _drawn(data: Iterable[dict[str, Any]], arms: Sequence[Arm]) -> list[str]:
    drawn = {trace.get("meta") for trace in data}
    return [arm.label for arm in arms if arm.label in drawn]
