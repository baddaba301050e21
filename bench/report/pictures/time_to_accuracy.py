"""Training time to each validation accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.analysis.arms import Arm
from bench.analysis.time_to_accuracy import THRESHOLDS, ArmReached, of_arm
from bench.report.drawing.axes import finish, log_ticks, scale
from bench.report.drawing.legends import legend
from bench.report.drawing.marks import footnote, marked, marked_look, unmarked
from bench.report.drawing.panels import COLUMN, Page, in_panels, make_panels, panel_width
from bench.report.drawing.pictures import picture
from bench.report.drawing.styles import GREY, LINE, SMALL, Style, styles
from bench.system.text import number


@picture("training time to each validation accuracy", rank=3)
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
