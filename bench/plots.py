"""Figures of a comparison: arms in, a matplotlib Figure out, one panel per setting; no state is kept."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bench.comparison import Arm, by_setting
from bench.panels import (
    GREY,
    SMALL,
    Style,
    finish,
    legend,
    line_style,
    literal,
    make_panels,
    scale,
    styles,
    thousands,
    wrapped,
)
from bench.records import MODES
from bench.stats import pareto_front
from bench.text import number
from bench.time_to_accuracy import THRESHOLDS, ArmReached, of_arm


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG picture; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a name in a script that the font lacks
        figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def accuracy_vs_tasks(arms: Sequence[Arm]) -> Figure:
    """Draw validation accuracy against training tasks seen."""
    return _curves(arms, "tasks_seen", "Validation accuracy against tasks", "training tasks seen")


def accuracy_vs_wallclock(arms: Sequence[Arm]) -> Figure:
    """Draw validation accuracy against seconds of meta-steps."""
    return _curves(arms, "train_s", "Validation accuracy against training time", "training time, meta-steps only (s)")


def step_time(arms: Sequence[Arm]) -> Figure:
    """Draw the median time of a meta-step as a bar, with a line to the 95th percentile."""
    label = "time per meta-step (ms): bar median, line to 95th percentile"
    return _bars(arms, "step_ms_median", "step_ms_p95", "Step time", label)


def peak_memory(arms: Sequence[Arm]) -> Figure:
    """Draw the peak memory as a bar, with a line to what was reserved."""
    known = any(arm.values("peak_mem_reserved_mib") for arm in arms)
    label = "peak memory (MiB)" + (": bar allocated, line to reserved" if known else "")
    return _bars(arms, "peak_mem_mib", "peak_mem_reserved_mib", "Peak memory in training", label)


def accuracy_vs_cost(arms: Sequence[Arm]) -> Figure:
    """Draw plain test accuracy against training time, with the arms that no other beats in both."""
    look = styles(arms)
    figure, panels = make_panels(arms, "Test accuracy (plain) against training time", 3.0)
    for axes, members in panels:
        points = [(arm.mean("train_s"), arm.mean("test_acc"), arm) for arm in members]
        points = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
        front = [points[i] for i in pareto_front([p[0] for p in points], [p[1] for p in points])]
        scale(axes, [cost for cost, _, _ in points])
        for cost, accuracy, arm in points:
            style, half = look[arm.label], arm.ci95("test_acc")
            seeds = [(r.row.train_s, r.row.test_acc) for r in arm.ok.values()]
            axes.plot(*zip(*seeds), style.marker, color=style.colour, markersize=3, alpha=0.5, linestyle="none")
            bar = half if math.isfinite(half) else None
            axes.errorbar(
                cost, accuracy, bar, color=style.colour, marker=style.marker, markersize=7, capsize=3, zorder=3
            )
        if front:
            ends = [cost for cost, _, _ in front] + [max(cost for cost, _, _ in points)]
            heights = [accuracy for _, accuracy, _ in front] + [front[-1][1]]
            axes.plot(ends, heights, ls=":", color=GREY, lw=1.2, drawstyle="steps-post", zorder=1)
            names = wrapped("Pareto front: " + ", ".join(arm.label for *_, arm in front), 52)
            axes.set_title(f"{axes.get_title()}\n{literal(names)}", fontsize=SMALL)
        finish(axes, "training time, meta-steps only (s)", "test accuracy (fraction)", bool(points))
    further = [Line2D([], [], ls=":", color=GREY, label="Pareto front")]
    if any(len(arm.ok) > 1 for arm in arms):
        further.append(Line2D([], [], ls="none", marker="o", markersize=3, color=GREY, alpha=0.5, label="one seed"))
    bars = Line2D([], [], ls="none", marker="|", markersize=9, color=GREY, label="95% interval over tasks")
    legend(figure, arms, look, [*further, bars], lines=False)
    return figure


def adaptation(arms: Sequence[Arm]) -> Figure:
    """Draw test accuracy against adaptation steps, plain beside transductive."""
    look = styles(arms)
    figure, panels = make_panels(arms, "Test accuracy after adaptation steps", 2.6, MODES)
    for i, (axes, members) in enumerate(panels):
        curves = [(look[arm.label], arm.adaptation(list(MODES)[i % len(MODES)])) for arm in members]
        for style, curve in curves:
            axes.plot(list(curve), list(curve.values()), **line_style(style, len(curve)))
            if len(curve) == 1:  # a method without adaptation steps, to be compared with every step of the others
                axes.axhline(*curve.values(), color=style.colour, ls=style.dash, lw=1)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
        finish(axes, "adaptation steps", "test accuracy (fraction)", any(curve for _, curve in curves))
    legend(figure, arms, look, [])
    return figure


def time_to_accuracy(arms: Sequence[Arm]) -> Figure:
    """Draw the training time to each validation accuracy: filled where it was reached, hollow at the end where not."""
    look = styles(arms)
    found = {id(arm): of_arm(arm) for arm in arms}
    rows = max((len(members) for _, members in by_setting(a for a in arms if a.ok)), default=1)
    figure, panels = make_panels(
        arms, "Training time to a validation accuracy", 0.9 + len(THRESHOLDS) * (0.2 * rows + 0.1)
    )
    for axes, members in panels:
        shown = [(arm, one) for arm in members for one in found[id(arm)]]
        ends = [s for _, one in shown for s in (one.median_s, *one.full_s) if s is not None]
        scale(axes, ends)
        if axes.get_xscale() == "log":
            axes.set_xlim(min(ends) / 1.5, max(ends) * (max(ends) / min(ends)) ** 0.35)  # room for words at the right
        else:
            axes.set_xlim(0, max(ends, default=0.0) * 1.3 or 1.0)
        for i, arm in enumerate(members):
            for k, one in enumerate(found[id(arm)]):
                _reached(axes, k + (i + 1) / (len(members) + 1) - 0.5, one, look[arm.label])
        for k in range(1, len(THRESHOLDS)):
            axes.axhline(k - 0.5, color="#BBBBBB", lw=0.6)
        axes.set_yticks(range(len(THRESHOLDS)), [f"{threshold:.2f}" for threshold in THRESHOLDS])
        axes.set_ylim(len(THRESHOLDS) - 0.5, -0.5)
        finish(axes, "training time, meta-steps only (s)", "validation accuracy,\ntransductive (fraction)", bool(shown))
        axes.grid(visible=False, axis="y")
    further = [
        Line2D([], [], ls="none", marker="o", color=GREY, label="filled: reached by every seed, median"),
        Line2D(
            [],
            [],
            ls="none",
            marker="o",
            color=GREY,
            mfc="white",
            label="hollow: a seed or all missed it, at the end of the run",
        ),
    ]
    if any(len(arm.ok) > 1 for arm in arms):
        further.append(
            Line2D([], [], ls="none", marker="o", markersize=3, color=GREY, alpha=0.6, label="small: one seed")
        )
    legend(figure, arms, look, further, lines=False)
    return figure


FIGURES: dict[str, Callable[[Sequence[Arm]], Figure]] = {
    f.__name__: f
    for f in (
        accuracy_vs_tasks,
        accuracy_vs_wallclock,
        time_to_accuracy,
        step_time,
        peak_memory,
        accuracy_vs_cost,
        adaptation,
    )
}
"""Every figure by the name of its file."""


def _reached(axes: Axes, y: float, found: ArmReached, style: Style) -> None:
    hit = found.median_s
    x = max(found.full_s) if hit is None else hit
    drawn = [(x, hit is not None, 6)]
    if len(found.runs) > 1:
        seeds = (
            (full if one.train_s is None else one.train_s, bool(one.reached))
            for one, full in zip(found.runs, found.full_s)
        )
        drawn += [(at, reached, 3) for at, reached in seeds]
    for at, reached, size in drawn:
        fill = style.colour if reached else "white"
        axes.plot(at, y, style.marker, color=style.colour, mfc=fill, markersize=size, alpha=1 if size > 3 else 0.6)
    text = (
        f"{number(hit)} s" if hit is not None else f"{found.hits} of {len(found.runs)}" if found.hits else "not reached"
    )
    last = max(at for at, *_ in drawn)
    axes.annotate(text, (last, y), (6, 0), textcoords="offset points", va="center", fontsize=SMALL - 1)


def _curves(arms: Sequence[Arm], column: str, title: str, label: str) -> Figure:
    look = styles(arms)
    figure, panels = make_panels(arms, title, 2.9)
    bands = set()
    for axes, members in panels:
        curves = [(look[arm.label], len(arm.ok), mean_curve(arm, column)) for arm in members]
        scale(axes, [curve[-1][0] for _, _, curve in curves if curve])
        for style, seeds, curve in curves:
            if not curve:
                continue
            x, y, low, high = zip(*curve)
            axes.plot(x, y, **line_style(style, len(curve)))
            if any(a < b for a, b in zip(low, high)):
                axes.fill_between(x, low, high, color=style.colour, alpha=0.15, linewidth=0)
                bands.add("lowest to highest seed" if seeds > 1 else "95% interval over tasks (one seed)")
        finish(axes, label, "validation accuracy,\ntransductive (fraction)", any(curve for *_, curve in curves))
    further: list[Any] = (
        [Patch(color=GREY, alpha=0.25, lw=0, label=f"band: {', '.join(sorted(bands))}")] if bands else []
    )
    if any(len(arm.ok) > 1 for arm in arms):
        further.append(Line2D([], [], color=GREY, label="line: mean over seeds"))
    legend(figure, arms, look, further)
    return figure


def mean_curve(arm: Arm, column: str) -> list[tuple[float, float, float, float]]:
    """Return x, mean, low end and high end of the band, at the meta-steps that all seeds have."""
    by_seed = []
    for run in arm.ok.values():
        points = {p.meta_step: p for p in run.curve if p.val_acc is not None and math.isfinite(p.val_acc)}
        if points:
            by_seed.append(points)
    shared = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
    curve = []
    for step in shared:
        points_here = [points[step] for points in by_seed]
        xs = [float(getattr(p, column)) for p in points_here]
        ys = [float(p.val_acc or 0.0) for p in points_here]
        half = (points_here[0].val_acc_ci95 or 0.0) if len(ys) == 1 else 0.0
        half = half if math.isfinite(half) else 0.0
        if all(map(math.isfinite, xs)):
            curve.append((sum(xs) / len(xs), sum(ys) / len(ys), min(ys) - half, max(ys) + half))
    return curve


def _bars(arms: Sequence[Arm], column: str, further_column: str, title: str, label: str) -> Figure:
    look = styles(arms)
    names = {arm.label: literal(wrapped(arm.label, 26)) for arm in arms}
    rows = max((len(members) for _, members in by_setting(arms)), default=1)
    thickness = max([0.36, *(0.14 * name.count("\n") + 0.24 for name in names.values())])  # inches
    figure, panels = make_panels(
        arms, title + (", mean over seeds" if any(len(a.ok) > 1 for a in arms) else ""), 0.9 + thickness * rows
    )
    for axes, members in panels:
        longest = 0.0
        for i, arm in enumerate(members):
            style, value, end = look[arm.label], arm.mean(column), arm.mean(further_column)
            if math.isfinite(value):
                axes.barh(i, value, 0.65, color=style.colour, edgecolor="white", hatch=style.hatch, lw=0)
            if math.isfinite(value) and end > value:
                axes.errorbar(value, i, xerr=np.array([[0], [end - value]]), color="black", capsize=3, lw=1)
            reach = max((v for v in (value, end) if math.isfinite(v)), default=0.0)
            text = number(value) if math.isfinite(value) else "not measured"
            axes.annotate(text, (max(reach, 0.0), i), (5, 0), textcoords="offset points", va="center", fontsize=SMALL)
            longest = max(longest, reach)
        axes.set_xlim(0, longest * 1.25 or 1.0)
        axes.set_yticks(range(len(members)), [names[arm.label] for arm in members])
        axes.set_ylim(len(members) - 0.5, -0.5)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(4))
        axes.xaxis.set_major_formatter(thousands)
        finish(axes, wrapped(label, 46), "", any(arm.ok for arm in members))
        axes.grid(visible=False, axis="y")
    return figure
