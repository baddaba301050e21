"""Interactive figures: arms in, specifications for plotly.js out, one per figure and setting.

They are plain dictionaries and not ``plotly.graph_objects``, whose import alone takes a second of every run; a test has
plotly check them. Colours of axes and text are the page's, which knows whether it is light or dark.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.anchors import Beside
from bench.colours import Labels, colours, strokes
from bench.comparison import Arm, Comparison, by_setting
from bench.records import MODES, CurvePoint
from bench.stats import pareto_front
from bench.text import number

GREY = "#888888"
DASHES = ("solid", "dash", "dashdot", "dot", "longdash", "longdashdot", "12px 3px", "3px 6px")
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")
PAIRS = 24  # rows of a figure of differences; of more only those with the best arm are drawn
_ROW = 34  # pixels that a row of a figure takes
_LINE = 16  # and a line of its name
_FRAME = 96  # pixels that axis and margins take


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
    return dict([*pairs, *((_faint(a), _faint(b)) for a, b in pairs)])


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
    data, bands = [], set()
    found = [(arm, points) for arm in arms if (points := curve(arm, column))]
    x_axis = _axis(label, [points[-1][0] for _, points in found])
    for arm, points in found:
        if x_axis.get("type") == "log":  # which has no place for the point before training
            points = [point for point in points if point[0] > 0]
        x, y, low, high = zip(*points)
        hover = (
            f"<b>{_short(arm.label)}</b><br>%{{x:,.6~r}} {unit}<br>{measure} %{{y:.4f}}<br>%{{customdata[0]:.4f}} to "
        )
        if any(a < b for a, b in zip(low, high)):
            bands.add("lowest to highest seed" if len(arm.ok) > 1 else "95% interval over validation tasks")
            outline = {"x": [*x, *reversed(x)], "y": [*high, *reversed(low)], "fill": "toself", "mode": "none"}
            fill = {"fillcolor": _faint(look[arm.label]), "hoverinfo": "skip", "type": "scatter", "meta": arm.label}
            data.append({**outline, **fill, "name": _literal(arm.label)})
        data.append(
            {
                **_line(arm, look),
                "x": list(x),
                "y": list(y),
                "customdata": [list(pair) for pair in zip(low, high)],
                "hovertemplate": hover + "%{customdata[1]:.4f}<extra></extra>",
            }
        )
    if not data:
        return None
    several = any(len(arm.ok) > 1 for arm in arms)
    note = f"Transductive meta-validation; line: {'mean over seeds' if several else 'one seed'}"
    note += f"; band: {' or '.join(sorted(bands))}." if bands else "."
    layout = {"xaxis": x_axis, "yaxis": _axis(f"validation {measure}"), "height": 340}
    return FigureSpec(
        f"curves-{column}", f"Validation {measure} {against}", note, place, data, layout, _drawn(data, arms)
    )


def curve(arm: Arm, column: str) -> list[tuple[float, float, float, float]]:
    """Return x, mean measure, low and high end of the band, at the meta-steps that all seeds have."""
    kind = "val_acc" if arm.measure == "accuracy" else "val_error"
    by_seed: list[dict[int, CurvePoint]] = []
    for run in arm.ok.values():
        points = {p.meta_step: p for p in run.curve if _finite(getattr(p, kind))}
        if points:
            by_seed.append(points)
    found = []
    for step in sorted(set.intersection(*map(set, by_seed))) if by_seed else []:
        here = [points[step] for points in by_seed]
        xs = [float(getattr(p, column)) for p in here]
        ys = [float(getattr(p, kind)) for p in here]
        half = getattr(here[0], f"{kind}_ci95") if len(ys) == 1 else 0.0
        half = half if _finite(half) else 0.0
        if all(map(math.isfinite, xs)):
            found.append((sum(xs) / len(xs), sum(ys) / len(ys), min(ys) - half, max(ys) + half))
    return found


def _step_time(place: int, arms: list[Arm], _: list[Comparison], look: dict[str, str]) -> FigureSpec | None:
    spec = _bars(place, arms, look, ("step_ms_median", "step_ms_p95"), "Step time", "time per meta-step (ms)", "ms")
    return spec and _with_note(spec, "Bar: median; line: to the 95th percentile.", arms)


def _peak_memory(place: int, arms: list[Arm], _: list[Comparison], look: dict[str, str]) -> FigureSpec | None:
    columns = ("peak_mem_mib", "peak_mem_reserved_mib")
    spec = _bars(place, arms, look, columns, "Peak memory in training", "peak memory (MiB)", "MiB")
    reserved = any(arm.values(columns[1]) for arm in arms)
    return spec and _with_note(spec, "Bar: allocated; line: to what was reserved." if reserved else "", arms)


def _with_note(spec: FigureSpec, note: str, arms: list[Arm]) -> FigureSpec:
    several = "Means over seeds." if any(len(arm.ok) > 1 for arm in arms) else ""
    if any(any(arm.values("beside")) for arm in arms):
        several += " Some were measured beside other runs."
    text = " ".join(filter(None, (note, several)))
    return FigureSpec(spec.kind, spec.title, text, spec.place, spec.data, spec.layout, spec.labels)


def _bars(
    place: int, arms: list[Arm], look: dict[str, str], columns: tuple[str, str], title: str, label: str, unit: str
) -> FigureSpec | None:
    data = []
    shown = [arm for arm in arms if math.isfinite(arm.mean(columns[0]))]
    for i, arm in enumerate(shown):
        value, end = arm.mean(columns[0]), arm.mean(columns[1])
        seeds = f"<br>mean of {len(arm.ok)} seeds" if len(arm.ok) > 1 else ""
        hover = f"<b>{_short(arm.label)}</b><br>{number(value, 4)} {unit}"
        hover += f"<br>line to {number(end, 4)} {unit}" if end > value else ""
        bar: dict[str, Any] = {"type": "bar", "orientation": "h", "x": [value], "y": [i], "width": 0.6}
        bar |= {"name": _literal(arm.label), "meta": arm.label, "marker": {"color": look[arm.label]}}
        bar["hovertemplate"] = f"{hover}{seeds}<extra></extra>"
        if end > value:
            bar["error_x"] = {"type": "data", "symmetric": False, "array": [end - value], "arrayminus": [0]}
        data.append(bar)
    if not data:
        return None
    rows = [(arm.label, f"{number(arm.mean(columns[0]))} {unit}") for arm in shown]
    x_axis = _axis(label) | {"rangemode": "tozero"}
    layout = {"xaxis": x_axis, **_in_rows(rows, _ROW + 10), "bargap": 0.3}
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
    line = {"color": GREY, "dash": "dot", "shape": "hv", "width": 1.5}
    x, y = ([step[i] for step in steps] for i in (0, 1))
    data.append(
        {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line, "hoverinfo": "skip", "name": "front"}
    )
    for cost, height, arm in points:
        half = arm.ci95(arm.tested["plain"])
        on_front = any(arm is other for *_, other in front)
        hover = f"<b>{_short(arm.label)}</b><br>{number(cost, 4)} s<br>{measure} {height:.4f}"
        hover += f" ± {half:.4f}" if math.isfinite(half) else ""
        hover += "<br>on the front" if on_front else "<br>another is at least as good for less time"
        point: dict[str, Any] = {"type": "scatter", "mode": "markers", "x": [cost], "y": [height], "meta": arm.label}
        point |= {"name": _literal(arm.label), "marker": {"color": look[arm.label], "size": 11}}
        point["hovertemplate"] = f"{hover}<extra></extra>"
        if math.isfinite(half):
            point["error_y"] = {"type": "data", "array": [half], "color": look[arm.label], "thickness": 1.5}
        data.append(point)
        seeds = [(run.row.train_s, getattr(run.row, arm.tested["plain"]), run.row.seed) for run in arm.ok.values()]
        seeds = [seed for seed in seeds if _finite(seed[0]) and _finite(seed[1])]
        if len(seeds) > 1:
            each: dict[str, Any] = {"type": "scatter", "mode": "markers", "meta": arm.label, "opacity": 0.5}
            each |= {"x": [s[0] for s in seeds], "y": [s[1] for s in seeds], "customdata": [s[2] for s in seeds]}
            each |= {"name": _literal(arm.label), "marker": {"color": look[arm.label], "size": 5}}
            each["hovertemplate"] = (
                f"<b>{_short(arm.label)}</b>, seed %{{customdata}}<br>%{{x:,.6~r}} s<br>%{{y:.4f}}<extra></extra>"
            )
            data.append(each)
    several = any(len(arm.ok) > 1 for arm in arms)
    better_than = "more accurate" if measure == "accuracy" else "of lower error"
    note = f"Dotted: the Pareto front, on which nobody is both slower and no {better_than} than another"
    note += "; large: mean over seeds, small: one seed" if several else ""
    x_axis = _axis("training time, meta-steps only (s)", [cost for cost, *_ in points])
    layout = {"xaxis": x_axis, "yaxis": _axis(f"test {measure}, plain"), "height": 340}
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
            f"<b>{_short(f'{c.algo_a} - {c.algo_b}')}</b><br>{mode}<br>{c.diff:+.4f}"
            f" ({c.ci95_low:+.4f} to {c.ci95_high:+.4f})<br>p (Holm) {c.p_value_holm:.2g}, {c.test_tasks:,} pairs<br>"
            f"{_short(c.verdict)}<extra></extra>"
            for c in found
        ]
        for c, place_of_pair, colour, symbol, text in zip(found, y, ink, mark, hover):
            bar = {"type": "data", "symmetric": False, "color": colour, "thickness": 1.5}
            bar |= {"array": [c.ci95_high - c.diff], "arrayminus": [c.diff - c.ci95_low]}
            trace: dict[str, Any] = {"type": "scatter", "mode": "markers", "x": [c.diff], "y": [place_of_pair]}
            trace |= {"error_x": bar, "hovertemplate": text, "name": f"{mode}: {_literal(f'{c.algo_a} - {c.algo_b}')}"}
            data.append(
                trace
                | {"marker": {"color": colour, "symbol": symbol, "size": 9, "line": {"width": 2, "color": colour}}}
            )
    rows = [(f"{a} - {b}", "") for a, b in names]
    x_axis = _axis("accuracy of A - accuracy of B") | {"zeroline": True, "zerolinewidth": 2, "rangemode": "tozero"}
    layout = {"xaxis": x_axis, **_in_rows(rows, _ROW + 14)}
    note = "Circle: plain, diamond: transductive; line: 95% interval over test tasks, not corrected. " + note
    return FigureSpec("differences", "Paired differences", note, place, data, layout)


def _adapted(place: int, arms: list[Arm], mode: str, look: dict[str, str]) -> FigureSpec | None:
    measure = _measure(arms)
    found = [(arm, adaptation(arm, mode)) for arm in arms]
    longest = max((max(points) for _, points in found if points), default=0)
    data = []
    for arm, points in found:
        if not points:
            continue
        x, y = list(points), list(points.values())
        hover = f"<b>{_short(arm.label)}</b>, {mode}<br>%{{x}} steps<br>{measure} %{{y:.4f}}<extra></extra>"
        trace = _line(arm, look)
        if len(x) == 1:  # a method without adaptation steps, to be compared with every step of the others
            x, y, trace["mode"] = [0, longest], y * 2, "lines"
            hover = f"<b>{_short(arm.label)}</b>, {mode}<br>takes no steps<br>{measure} %{{y:.4f}}<extra></extra>"
        data.append(trace | {"x": x, "y": y, "hovertemplate": hover})
    if not data:
        return None
    layout = {"xaxis": _axis("adaptation steps"), "yaxis": _axis(f"test {measure}, {mode}"), "height": 340}
    several = any(len(arm.ok) > 1 for arm in arms)
    tasks = sorted({point.tasks for arm in arms for run in arm.ok.values() for point in run.adaptation if point.tasks})
    note = "Mean over seeds" if several else "One seed"
    note += f", on the first {' or '.join(f'{n:,}' for n in tasks)} test tasks." if tasks else "."
    title = f"Test {measure} after adaptation steps, {mode}"
    return FigureSpec(f"adaptation-{mode}", title, note, place, data, layout, _drawn(data, arms))


def adaptation(arm: Arm, mode: str) -> dict[int, float]:
    """Return the mean accuracy or error over the seeds that have it, by adaptation step."""
    kind = "acc" if arm.measure == "accuracy" else "error"
    found: dict[int, list[float]] = {}
    for run in arm.ok.values():
        for point in run.adaptation:
            value = getattr(point, kind)
            if point.mode == mode and _finite(value):
                found.setdefault(point.step, []).append(value)
    return {step: sum(values) / len(values) for step, values in sorted(found.items())}


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
        where = f"<b>{_short(name)}</b><br>{a.n_way}-way {a.k_shot}-shot, {a.mode}"
        theirs["x"].append(a.published)
        theirs["y"].append(i + 0.15)
        spread["array"].append(a.published_pm or 0)
        pm = "" if a.published_pm is None else f" ± {a.published_pm:.4f}"
        theirs["text"].append(f"{where}<br>published {a.published:.4f}{pm}<br>{_short(a.paper or '')}")
        if line.test_acc is None:
            continue
        colour = look.get(name, look.get(str(a.algo), GREY))
        verdict = _short(str(line.verdict))
        pm = "" if line.test_acc_ci95 is None else f" ± {line.test_acc_ci95:.4f}"
        hover = f"{where}<br>ours {line.test_acc:.4f}{pm}<br>{verdict}<extra></extra>"
        bar = {"type": "data", "array": [line.test_acc_ci95 or 0], "color": colour, "thickness": 1.5}
        trace = {"type": "scatter", "mode": "markers", "x": [line.test_acc], "y": [i - 0.15], "hovertemplate": hover}
        ours.append(
            {**trace, "name": f"ours: {_literal(name)}", "marker": {"color": colour, "size": 10}, "error_x": bar}
        )
    theirs |= {"hovertemplate": "%{text}<extra></extra>", "error_x": spread}
    theirs["marker"] = {"color": GREY, "symbol": "diamond-open", "size": 10, "line": {"width": 2}}
    layout = {"xaxis": _axis("test accuracy"), **_in_rows(rows, _ROW + 10)}
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


def _measure(arms: Sequence[Arm]) -> str:
    return arms[0].measure


def _line(arm: Arm, look: dict[str, str]) -> dict[str, Any]:
    colour, (dash, mark) = look[arm.label], strokes(list(look), len(DASHES))[arm.label]
    style = {"color": colour, "width": 2, "dash": DASHES[dash]}
    trace = {"type": "scatter", "mode": "lines+markers", "name": _literal(arm.label), "meta": arm.label}
    return {**trace, "line": style, "marker": {"color": colour, "size": 7, "symbol": SYMBOLS[mark]}}


def _drawn(data: Iterable[dict[str, Any]], arms: Sequence[Arm]) -> list[str]:
    drawn = {trace.get("meta") for trace in data}
    return [arm.label for arm in arms if arm.label in drawn]


def _axis(title: str, ends: Sequence[float] = ()) -> dict[str, Any]:
    """Return an axis, logarithmic where a linear one would squeeze an arm into a tenth of it."""
    axis: dict[str, Any] = {"title": {"text": title}, "automargin": True}
    positive = [x for x in ends if x > 0]
    if positive and len(positive) == len(ends) and max(positive) > 10 * min(positive):
        axis |= {"type": "log", "dtick": 1 if max(positive) > 100 * min(positive) else "D2"}
    return axis


def _in_rows(rows: Sequence[tuple[str, str]], pixels: int) -> dict[str, Any]:
    """Return a vertical axis with names instead of numbers, the first on top, and room for the longest of them."""
    texts = []
    for name, value in rows:
        lines = [_literal(line) for line in textwrap.wrap(name, 24, break_on_hyphens=False)] or [""]
        texts.append("<br>".join(lines) + (f"<br><i>{value}</i>" if value else ""))
    axis: dict[str, Any] = {"tickmode": "array", "tickvals": list(range(len(rows))), "ticktext": texts}
    axis |= {"range": [len(rows) - 0.5, -0.5], "automargin": True, "showgrid": False, "zeroline": False}
    most = max(text.count("<br>") + 1 for text in texts)
    return {"yaxis": axis, "height": _FRAME + max(pixels, _LINE * most + 8) * len(rows)}


def _literal(text: object) -> str:
    """Keep plotly from reading what an algorithm is called as markup or as a template."""
    return html.escape(str(text), quote=False).replace("%{", "%&#123;")


def _short(text: str) -> str:
    """Return text in lines that fit beside a mark, on a telephone too."""
    return "<br>".join(map(_literal, textwrap.wrap(text, 30)))


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
