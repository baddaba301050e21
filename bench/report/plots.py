"""Figures of a comparison: arms in, a matplotlib Figure out, one panel per setting; no state is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.analysis.comparison import Arm
from bench.analysis.curves import adaptation as after_steps
from bench.analysis.curves import drawn_points, validation
from bench.analysis.time_to_accuracy import THRESHOLDS, ArmReached, of_arm
from bench.records.run import MODES
from bench.records.stats import pareto_front
from bench.report.drawing.marks import footnote, marked, marked_look, unmarked
from bench.report.drawing.panels import (
    COLUMN,
    GREY,
    LINE,
    SMALL,
    TEXT,
    Page,
    Style,
    band_handles,
    direct,
    finish,
    fraction_axis,
    in_panels,
    label_ends,
    legend,
    line_style,
    literal,
    log_ticks,
    make_panels,
    panel_width,
    row_of,
    scale,
    shade,
    styles,
    thousands,
    wrapped,
)
from bench.system.text import number


def accuracy_vs_tasks(arms: Sequence[Arm], page: Page = COLUMN) -> Figure:
    """Draw validation accuracy against training tasks seen."""
    return _curves(arms, "tasks_seen", "Validation accuracy against tasks", "training tasks seen", page)


def accuracy_vs_wallclock(arms: Sequence[Arm], page: Page = COLUMN) -> Figure:
    """Draw validation accuracy against seconds of meta-steps."""
    label = "training time, meta-steps only (s)"
    return _curves(arms, "train_s", "Validation accuracy against training time", label, page)


def step_time(arms: Sequence[Arm], page: Page = COLUMN) -> Figure:
    """Draw the median time of a meta-step as a bar, with a line to the 95th percentile."""
    label = "time per meta-step (ms): bar median, line to 95th percentile"
    return _bars(arms, "step_ms_median", "step_ms_p95", "p95", "Step time", label, page)


def peak_memory(arms: Sequence[Arm], page: Page = COLUMN) -> Figure:
    """Draw the peak memory as a bar, with a line to what was reserved."""
    known = any(arm.values("peak_mem_reserved_mib") for arm in arms)
    label = "peak memory (MiB)" + (": bar allocated, line to reserved" if known else "")
    return _bars(arms, "peak_mem_mib", "peak_mem_reserved_mib", "reserved", "Peak memory in training", label, page)


def accuracy_vs_cost(arms: Sequence[Arm], page: Page = COLUMN) -> Figure:
    """Draw plain test accuracy against training time, with the arms that no other beats in both."""
    look, shown = styles(arms), marked(arms)
    figure, panels = make_panels(shown, "Test accuracy (plain) against training time", 2.1, page=page)
    for axes, members in panels:
        points = [(arm.mean("train_s"), arm.mean("test_acc"), arm) for arm in members]
        points = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
        front = [points[i] for i in pareto_front([p[0] for p in points], [p[1] for p in points])]
        scale(axes, [cost for cost, _, _ in points], panel_width(page, len(panels)))
        heights = []
        for cost, accuracy, arm in points:
            style, half = look[unmarked(arm)], arm.ci95("test_acc")
            seeds = [(r.row.train_s, r.row.test_acc) for r in arm.ok.values()]
            axes.plot(*zip(*seeds), style.marker, color=style.colour, markersize=2.5, alpha=0.5, linestyle="none")
            bar = half if math.isfinite(half) else None
            axes.errorbar(
                cost, accuracy, bar, color=style.colour, marker=style.marker, markersize=6, capsize=2.5, zorder=3
            )
            heights += [accuracy - (bar or 0.0), accuracy + (bar or 0.0), *(y for _, y in seeds if y is not None)]
        if front:
            ends = [cost for cost, _, _ in front] + [max(cost for cost, _, _ in points)]
            steps = [accuracy for _, accuracy, _ in front] + [front[-1][1]]
            axes.plot(ends, steps, ls=":", color=GREY, lw=1.2, drawstyle="steps-post", zorder=1)
            width = int(15 * (page.width / min(page.columns, len(panels)) - 0.6))
            names = "Pareto front: " + ", ".join(arm.label for *_, arm in front)
            if len(names) <= width:  # longer ones would crowd out the panel, whose dotted line shows the same
                axes.set_title(f"{axes.get_title()}\n{literal(names)}", fontsize=SMALL)
        fraction_axis(axes, heights, "test accuracy")
        finish(axes, "training time, meta-steps only (s)", "", bool(points))
    further: list[Any] = [Line2D([], [], ls=":", color=GREY, label="Pareto front")]
    shown = in_panels(panels)
    if any(len(arm.ok) > 1 for arm in shown):
        further.append(Line2D([], [], ls="none", marker="o", markersize=3, color=GREY, alpha=0.5, label="one seed"))
    further.append(Line2D([], [], ls="none", marker="|", markersize=8, color=GREY, label="95% interval over tasks"))
    legend(figure, shown, marked_look(look), [*further, *footnote(shown)], lines=False)
    return figure


def adaptation(arms: Sequence[Arm], page: Page = COLUMN) -> Figure:
    """Draw test accuracy against adaptation steps, from the first one on, plain beside transductive."""
    look, bands = styles(arms), set[str]()
    figure, panels = make_panels(arms, "Test accuracy after adaptation steps", 1.9, tuple(MODES), page)
    for first in range(0, len(panels), len(MODES)):
        values: list[float] = []
        for (axes, members), mode in zip(panels[first : first + len(MODES)], MODES):
            found = [(arm, points) for arm in members if (points := after_steps(arm, mode))]
            longest = max((max(points) for _, points in found), default=0)
            for arm, _ in found:
                style, curve = look[arm.label], drawn_points(arm, mode, longest)
                axes.plot([p.x for p in curve], [p.mean for p in curve], **line_style(style, len(curve)))
                bands |= shade(axes, arm, curve, style)
                values += [end for point in curve for end in (point.low, point.high)]
            if longest > 10:
                axes.set_xscale("log", nonpositive="mask")
                log_ticks(axes, 1, longest, page.width / 2 - 0.7)
                axes.xaxis.set_minor_formatter(ticker.NullFormatter())
                axes.xaxis.set_major_formatter(thousands)
            else:
                axes.xaxis.set_major_locator(ticker.MaxNLocator(4, integer=True))
            finish(axes, f"adaptation steps,\n{mode}", "", bool(found))
        fraction_axis(panels[first][0], values, "test accuracy")
        panels[first][0].yaxis.label.set_fontsize(TEXT)
        for axes, _ in panels[first + 1 : first + len(MODES)]:
            axes.set_ylabel("")
            axes.tick_params(labelleft=False)
    legend(figure, in_panels(panels), look, band_handles(bands))
    return figure


def time_to_accuracy(arms: Sequence[Arm], page: Page = COLUMN) -> Figure:
    """Draw the training time to each validation accuracy: filled where it was reached, hollow at the end where not.

    What nobody in a panel reached is named above it, but for the lowest: that none got there is said by its marks.
    """
    look, arms = styles(arms), marked(arms)
    found = {id(arm): of_arm(arm) for arm in arms}

    def reached(members: Sequence[Arm]) -> list[int]:
        hit = {k for arm in members for k, one in enumerate(found[id(arm)]) if one.hits}
        return sorted(hit) or [0]

    def height(members: Sequence[Arm]) -> float:
        return max(1.1, 0.4 + len(reached(members)) * (LINE * len(members) + 0.12))

    figure, panels = make_panels(arms, "Training time to a validation accuracy", height, page=page, around=0.35)
    for axes, members in panels:
        rows = reached(members)
        shown = [(arm, found[id(arm)][k]) for arm in members if found[id(arm)] for k in rows]
        ends = [s for _, one in shown for s in (one.median_s, *one.full_s) if s is not None]
        width = panel_width(page, len(panels))
        scale(axes, ends, width)
        room = 0.8 / width  # inches that the words at the right take of the panel
        if axes.get_xscale() == "log":
            low, high = min(ends) / 1.3, max(ends)
            far = high * (high / low) ** (room / (1 - room))
            axes.set_xlim(low, far)
            log_ticks(axes, low, far, width)
        else:
            axes.set_xlim(0, max(ends, default=0.0) / (1 - room) or 1.0)
        for i, arm in enumerate(members):
            for row, k in enumerate(rows if found[id(arm)] else ()):
                _reached(axes, row + (i + 1) / (len(members) + 1) - 0.5, found[id(arm)][k], look[unmarked(arm)])
        for row in range(1, len(rows)):
            axes.axhline(row - 0.5, color="#BBBBBB", lw=0.6)
        axes.set_yticks(range(len(rows)), [f"{THRESHOLDS[k]:.2f}" for k in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        if missed := [f"{THRESHOLDS[k]:.2f}" for k in range(len(THRESHOLDS)) if k not in rows] if shown else []:
            axes.set_title(f"{axes.get_title()}\nreached by none: {', '.join(missed)}", fontsize=SMALL)
        finish(axes, "training time, meta-steps only (s)", "validation accuracy,\ntransductive (fraction)", bool(shown))
        axes.grid(visible=False, axis="y")
    further: list[Any] = [Line2D([], [], ls="none", marker="o", color=GREY, label="filled: reached, median over seeds")]
    hollow, drawn = "hollow: missed by a seed or all, run's end", in_panels(panels)
    further.append(Line2D([], [], ls="none", marker="o", color=GREY, mfc="white", label=hollow))
    if any(len(arm.ok) > 1 for arm in drawn):
        further.append(
            Line2D([], [], ls="none", marker="o", markersize=3, color=GREY, alpha=0.6, label="small: one seed")
        )
    legend(figure, drawn, marked_look(look), [*further, *footnote(drawn)], lines=False)
    return figure


FIGURES: dict[str, Callable[..., Figure]] = {
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
"""Every figure by the name of its file: each takes arms and, optionally, the page it is for."""


def shown_in(name: str, arms: Sequence[Arm]) -> list[Arm]:
    """Return the arms that a figure is about: all in one of costs, those with accuracies in any other."""
    return [arm for arm in arms if name in (step_time.__name__, peak_memory.__name__) or arm.measure == "accuracy"]


def _reached(axes: Axes, y: float, found: ArmReached, style: Style) -> None:
    hit = found.median_s
    x = max(found.full_s) if hit is None else hit
    drawn = [(x, hit is not None, 5)]
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
    axes.annotate(text, (last, y), (6, 0), textcoords="offset points", va="center", fontsize=SMALL)


def rows_beside(axes: Axes, panels: Sequence[tuple[Axes, list[Arm]]]) -> int:
    """Return the most arms of a panel in the row of ``axes``, so that all bars of a row are as thick."""
    return max(len(members) for one, members in panels if row_of(one) == row_of(axes))


def _curves(arms: Sequence[Arm], column: str, title: str, label: str, page: Page) -> Figure:
    look, height = styles(arms), 2.2
    timed = column == "train_s"
    arms = marked(arms) if timed else arms
    figure, panels = make_panels(arms, title, height, page=page)
    beside_lines = all(direct([arm.label for arm in members], height - 0.5) for _, members in panels)
    bands: set[str] = set()
    for axes, members in panels:
        curves = [(arm, points) for arm in members if (points := validation(arm, column))]
        scale(axes, [curve[-1].x for _, curve in curves], panel_width(page, len(panels)))
        values: list[float] = []
        for arm, curve in curves:
            style = look[unmarked(arm)]
            axes.plot([p.x for p in curve], [p.mean for p in curve], **line_style(style, len(curve)))
            bands |= shade(axes, arm, curve, style)
            values += [end for point in curve for end in (point.low, point.high)]
        fraction_axis(axes, values, "validation accuracy,\ntransductive")
        finish(axes, label, "", bool(curves))
        if beside_lines:
            ends = {arm.label: (curve[-1].mean, look[unmarked(arm)].colour) for arm, curve in curves}
            label_ends(axes, ends, height - 0.5)
    further, arms = band_handles(bands), in_panels(panels)
    if any(len(arm.ok) > 1 for arm in arms):
        further.append(Line2D([], [], color=GREY, label="line: mean over seeds"))
    notes = footnote(arms) if timed else []
    legend(figure, arms, marked_look(look), [*further, *notes], named=not beside_lines)
    return figure


def _bars(
    arms: Sequence[Arm], column: str, further_column: str, further: str, title: str, label: str, page: Page
) -> Figure:
    look, timed = styles(arms), column.startswith("step_ms")
    arms = marked(arms) if timed else arms
    names = {arm.label: literal(wrapped(arm.label, 20)) for arm in arms}
    thickness = max([0.24, *(0.125 * (name.count("\n") + 1) + 0.06 for name in names.values())])  # inches
    seeds = ", mean over seeds" if any(len(a.ok) > 1 for a in arms) else ""
    figure, panels = make_panels(arms, title + seeds, lambda members: thickness * len(members), page=page, around=0.75)
    for axes, members in panels:
        beside, longest = rows_beside(axes, panels), 0.0
        for i, arm in enumerate(members):
            style, value, end = look[unmarked(arm)], arm.mean(column), arm.mean(further_column)
            if math.isfinite(value):
                axes.barh(i, value, 0.65, color=style.colour, lw=0)
            if math.isfinite(value) and end > value:
                axes.errorbar(value, i, xerr=np.array([[0], [end - value]]), color=GREY, capsize=2.5, lw=1)
            reach = max((v for v in (value, end) if math.isfinite(v)), default=0.0)
            text = number(value) if math.isfinite(value) else "not measured"
            text += f" ({further} {number(end)})" if end > value else ""
            axes.annotate(text, (max(reach, 0.0), i), (4, 0), textcoords="offset points", va="center", fontsize=SMALL)
            longest = max(longest, reach)
        axes.set_xlim(0, longest * 1.7 or 1.0)
        axes.set_yticks(range(len(members)), [names[arm.label] for arm in members])
        axes.set_ylim(beside - 0.5, -0.5)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(3))
        axes.xaxis.set_major_formatter(thousands)
        finish(axes, wrapped(label, 34), "", any(arm.ok for arm in members))
        axes.grid(visible=False, axis="y")
    shown = in_panels(panels)
    legend(figure, shown, marked_look(look), footnote(shown) if timed else [], named=False)
    return figure
