"""Every algorithm in the order of its test accuracy, untuned and tuned, with what a meta-step costs."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.analysis.arms import Arm
from bench.report.drawing.axes import finish, fraction_axis, thousands
from bench.report.drawing.legends import grow_for_titles, put_legend
from bench.report.drawing.marks import footnote, marked, unmarked
from bench.report.drawing.panels import COLUMN, Page, in_panels, make_panels
from bench.report.drawing.pictures import picture
from bench.report.drawing.styles import GREY, SMALL, Style, literal, styles, wrapped
from bench.settings.protocols import load_protocol, protocol_names
from bench.system.text import number

ROW = 0.26  # inches, of a name on one line
_MODES = (
    ("test_acc", "o", -0.13),
    ("test_acc_transductive", "^", 0.17),
)  # column, marker, place below the row's middle
Rows = dict[str, dict[bool, Arm]]
"""Arms by the name of their row, and whether a search has tuned them."""


@picture(
    "every algorithm in the order of its plain test accuracy, untuned and tuned, with the cost of a meta-step", rank=0
)
def ranking(arms: Sequence[Arm], page: Page = COLUMN) -> Figure:
    """Draw accuracies with their intervals and the step time beside, the best on top.

    A protocol shares the panel of the one that it extends. Test tasks follow from the shape of a task and the seed, so
    those of both are the same.
    """
    look = styles(arms)
    together: dict[str, set[str]] = {}
    for arm in arms:
        together.setdefault(_first(arm.setting.protocol), set()).update([arm.setting.protocol] if arm.ok else [])
    told = {first: ", ".join(sorted(names)) or first for first, names in together.items()}
    joined = [
        replace(arm, setting=replace(arm.setting, protocol=told[_first(arm.setting.protocol)])) for arm in marked(arms)
    ]
    figure, panels = make_panels(
        joined, "Ranking by plain test accuracy", lambda members: row_height(members) * len(rows_of(members)),
        ("accuracy", "cost"), page, around=0.6,
    )  # fmt: skip
    for i, (axes, members) in enumerate(panels):
        rows = rows_of(members)
        (_cost if i % 2 else _accuracy)(axes, rows, look)
        axes.set_yticks(range(len(rows)), [_named(name) for name in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        if i % 2:
            axes.tick_params(axis="y", labelleft=False)
    shown = in_panels(panels)
    tuned = {bool(arm.trials) for arm in shown}
    marks = [
        Line2D([], [], ls="none", marker="o", color=GREY, markersize=4.5, label="plain"),
        Line2D([], [], ls="none", marker="^", color=GREY, markersize=4.5, label="transductive"),
    ]
    if True in tuned:
        marks += [
            Line2D([], [], ls="none", marker="s", color=GREY, markersize=4.5, label=f"filled: {_trials(shown)}"),
            Line2D([], [], ls="none", marker="s", color=GREY, mfc="none", markersize=4.5, label="hollow: untuned"),
        ]
    if len(tuned) == 2:
        marks.append(Line2D([], [], lw=0.8, alpha=0.6, color=GREY, label="from untuned to tuned"))
    marks.append(Line2D([], [], ls="none", marker="_", markersize=8, color=GREY, label="95% interval over tasks"))
    grow_for_titles(figure)
    put_legend(figure, [], [*marks, *footnote(shown)])
    return figure


def _first(protocol: str) -> str:
    """Return the protocol that this one extends in the end, itself if none."""
    while protocol in protocol_names() and (extends := load_protocol(protocol).extends):
        protocol = extends
    return protocol


def rows_of(members: Sequence[Arm]) -> Rows:
    """Return the rows from top to bottom: an algorithm each, or an arm where one has several that are tuned alike.

    Untuned and tuned share a row where their training is as long: elsewhere the budget would pass for tuning's worth.
    """
    often = Counter((arm.algo, bool(arm.trials)) for arm in members)
    rows: Rows = {}
    for arm in members:
        alone = max(often[arm.algo, tuned] for tuned in (False, True)) == 1
        name, row = arm.algo if alone else unmarked(arm), arm.runs[-1].row
        further = (f"{name}, {row.protocol}", f"{name}, {row.meta_steps or 0:,} x {row.meta_batch} tasks")
        numbered = (f"{name} ({place})" for place in itertools.count(2))
        free = next(n for n in itertools.chain((name,), further, numbered) if _fits(rows.get(n, {}), arm))
        rows.setdefault(free, {})[bool(arm.trials)] = arm
    return dict(sorted(rows.items(), key=lambda row: -_best(row[1])))


def _fits(row: Mapping[bool, Arm], arm: Arm) -> bool:
    return bool(arm.trials) not in row and all(_budget(other) == _budget(arm) for other in row.values())


def _budget(arm: Arm) -> tuple[int | None, int | None]:
    return arm.runs[-1].row.meta_steps, arm.runs[-1].row.meta_batch


def row_height(members: Sequence[Arm]) -> float:
    """Return the inches that each row takes, so that the longest name fits."""
    return max([ROW, *(0.125 * (_named(name).count("\n") + 1) + 0.06 for name in rows_of(members))])


def _named(name: str) -> str:
    return literal(wrapped(name, 18))


def _best(row: Mapping[bool, Arm]) -> float:
    value = row[max(row)].mean("test_acc")  # the tuned one where there is one
    return value if math.isfinite(value) else -1.0


def _trials(arms: Sequence[Arm]) -> str:
    return " or ".join(sorted({arm.tuning for arm in arms if arm.trials}))


def _accuracy(axes: Axes, rows: Rows, look: Mapping[str, Style]) -> None:
    heights: list[float] = []
    for place, row in enumerate(rows.values()):
        for column, marker, below in _MODES:
            values = {tuned: arm.mean(column) for tuned, arm in row.items()}
            if len(values) == 2:
                axes.plot(
                    [*values.values()], [place + below] * 2, color=look[unmarked(row[True])].colour, lw=0.8, alpha=0.6
                )
            for tuned, arm in sorted(row.items()):
                half = arm.ci95(column)
                bar = half if math.isfinite(half) else None
                colour = look[unmarked(arm)].colour
                filled = colour if tuned or True not in {t for r in rows.values() for t in r} else "white"
                axes.errorbar(
                    values[tuned], place + below, xerr=bar, color=colour, marker=marker, mfc=filled,
                    markersize=5.2 if len(row) > tuned + 1 else 4,  # the hollow one is seen around the other
                    mew=0.9, capsize=1.5, lw=0.9, ls="none",
                )  # fmt: skip
                heights += [values[tuned] - (bar or 0), values[tuned] + (bar or 0)]
    fraction_axis(axes, heights, "test accuracy", "x")
    finish(axes, "", "", bool(heights))


def _cost(axes: Axes, rows: Rows, look: Mapping[str, Style]) -> None:
    longest = 0.0
    for place, row in enumerate(rows.values()):
        arm = row[max(row)]
        value, mib = arm.mean("step_ms_median"), arm.mean("peak_tensor_mib")
        if math.isfinite(value):
            axes.barh(place, value, 0.6, color=look[unmarked(arm)].colour, alpha=0.8, lw=0)
            longest = max(longest, value)
        text = number(value) if math.isfinite(value) else "-"
        text += f" | {number(mib)}" if math.isfinite(mib) else ""
        starred = " *" if arm.label != unmarked(arm) else ""
        axes.annotate(
            text + starred, (value if math.isfinite(value) else 0, place), (3, 0), textcoords="offset points",
            va="center", fontsize=SMALL,
        )  # fmt: skip
    axes.set_xlim(0, longest * 2.1 or 1.0)
    axes.xaxis.set_major_formatter(thousands)
    finish(axes, "ms a meta-step |\nMiB of tensors", "", bool(longest))
