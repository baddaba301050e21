"""The two figures: functions before and after adaptation, and error against adaptation steps."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bench.report.drawing.axes import direct, finish, label_ends
from bench.report.drawing.colours import ink
from bench.report.drawing.legends import put_legend
from bench.report.drawing.panels import COLUMN, Page, entitle, new_figure
from bench.report.drawing.styles import GREY, TEXT, line_style, literal, styles_of, wrapped
from bench.studies.sine.follow import DRAWN, STEPS, TASKS, Followed, FunctionPoint
from bench.studies.sine.tables import SineRow, by_algo

_WAVE = "#BBBBBB"
_BEFORE: dict[str, Any] = {"color": GREY, "ls": "--"}
_ADAPTED_TO: dict[str, Any] = {"color": "black", "ls": "none", "marker": "o", "ms": 1.8, "zorder": 3}


def functions_figure(found: Sequence[Followed], page: Page = COLUMN) -> Figure:
    """Draw the functions of the first seed: a row for every wave, a column for every algorithm, four in a row."""
    first = [f for f in found if f.run.row.seed == found[0].run.row.seed] if found else []
    points = f"{first[0].run.row.k_shot} points" if first else "some points"
    across = min(4, max(1, len(first)))
    blocks = math.ceil(len(first) / 4) or 1
    height = (0.3 + 0.85 * TASKS) * blocks
    figure = new_figure(page, height)
    entitle(figure, f"Sine waves before and after adaptation to {points}", height)
    if not first:
        figure.text(0.5, 0.4, "no finished run", ha="center", va="center", color=GREY, fontsize=TEXT)
        return figure
    look = styles_of(f.run.row.algo for f in first)
    panels = figure.subplots(TASKS * blocks, across, sharex=True, sharey="row", squeeze=False)
    for i, f in enumerate(first):
        colour = look[f.run.row.algo].colour
        for task in range(TASKS):
            axes, here = panels[TASKS * (i // 4) + task, i % 4], [p for p in f.functions if p.task == task]
            _draw_functions(axes, here, colour)
            bottom = task == TASKS - 1
            finish(axes, "x" if bottom else "", f"wave {task + 1}: y" if i % 4 == 0 else "", bool(here))
            axes.xaxis.set_major_locator(ticker.MultipleLocator(5))
            axes.yaxis.set_major_locator(ticker.MaxNLocator(2, symmetric=True))
            if task == 0:
                name = literal(wrapped(f.run.row.algo, 9 if page.columns == 1 else 16))
                axes.set_title(name, fontsize=TEXT, color=ink(colour), weight="bold")
    for empty in panels.ravel()[[not axes.lines for axes in panels.ravel()]]:
        empty.set_axis_off()
    handles = [
        Line2D([], [], color=_WAVE, lw=2.6, label="wave"),
        Line2D([], [], **_ADAPTED_TO, label="points adapted to"),
        Line2D([], [], lw=0.9, **_BEFORE, label="before adaptation"),
    ]
    some = ", ".join(map(str, DRAWN[1:-1]))
    further = [Line2D([], [], color=GREY, lw=0.9, alpha=0.5, label=f"pale to full: after {some} and {DRAWN[-1]} steps")]
    put_legend(figure, handles, further)
    return figure


def _draw_functions(axes: Axes, points: Sequence[FunctionPoint], colour: str) -> None:
    line = sorted({p.x: p for p in points}.values(), key=lambda p: p.x)
    adapted_to = [p for p in points if p.support]
    x = [p.x for p in line]
    axes.plot(x, [p.wave for p in line], color=_WAVE, lw=2.6)
    for i, step in enumerate(DRAWN):
        shade = {"color": colour, "ls": "-", "alpha": 0.2 + 0.8 * i / (len(DRAWN) - 1)} if step else _BEFORE
        axes.plot(x, [getattr(p, f"step_{step}") for p in line], lw=0.9, **shade)
    axes.plot([p.x for p in adapted_to], [p.wave for p in adapted_to], **_ADAPTED_TO)


def error_figure(rows: Sequence[SineRow], page: Page = COLUMN) -> Figure:
    """Draw the error against adaptation steps with its interval, a line per algorithm."""
    height = 2.5
    figure = new_figure(page, height)
    entitle(figure, "Error on new sine waves against adaptation steps", height)
    axes, found = figure.subplots(), by_algo(rows)
    look = styles_of(list(found))
    handles: list[Any] = []
    for algo, by_step in found.items():
        steps, means = list(by_step), [mean for mean, _ in by_step.values()]
        halves = [half if math.isfinite(half) else 0.0 for _, half in by_step.values()]
        axes.plot(steps, means, **line_style(look[algo], 1))
        low, high = zip(*((mean - half, mean + half) for mean, half in zip(means, halves)))
        axes.fill_between(steps, low, high, color=look[algo].colour, alpha=0.2, lw=0)
        handles.append(Line2D([], [], label=literal(algo), **line_style(look[algo], 1)))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_xticks([step for step in STEPS if step % 8 == 0])
    axes.set_xticks(STEPS, minor=True)
    finish(axes, "adaptation steps", "mean squared error (log scale)", bool(found))
    beside_lines = bool(found) and direct(found, height - 0.5)
    if beside_lines:
        axes.set_ylim(axes.get_ylim())
        ends = {algo: (list(by_step.values())[-1][0], look[algo].colour) for algo, by_step in found.items()}
        label_ends(axes, ends, height - 0.5)
    band = Patch(color=GREY, alpha=0.25, lw=0, label="band: 95% interval over waves")
    put_legend(figure, [] if beside_lines else handles, [band])
    return figure
