"""Interactive figures: arms in, specifications for plotly.js out, one per figure and setting.

They are plain dictionaries and not ``plotly.graph_objects``, whose import alone takes a second of every run; a test has
plotly check them. Colours of axes and text are the page's, which knows whether it is light or dark.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.analysis.arms import Arm, by_setting
from bench.analysis.comparison import Comparison
from bench.analysis.results import Results
from bench.report.drawing.colours import Labels, colours
from bench.report.page.bars import peak_memory, step_time
from bench.report.page.lines import accuracy_vs_tasks, accuracy_vs_wallclock, adaptation_plain, adaptation_transductive
from bench.report.page.points import accuracy_vs_cost, differences, published
from bench.report.page.spec import FigureSpec
from bench.report.page.traces import (
    faint,
)


def on_dark(labels: Labels) -> dict[str, str]:
    """Return for every colour that figures of these arms are drawn in the one that takes its place on a dark page."""
    dark = colours(labels, dark=True)
    pairs = [(light, dark[label]) for label, light in colours(labels).items()]
    return dict([*pairs, *((faint(a), faint(b)) for a, b in pairs)])


def figures(results: Results, look: dict[str, str]) -> list[FigureSpec]:
    """Return every figure that there is something to draw for, setting by setting."""
    found = []
    for place, (setting, members) in enumerate(by_setting(results.compared)):
        pairs = [c for c in results.comparisons if c.setting == setting]
        for draw in PER_SETTING:
            found.append(draw(place, members, pairs, look))
    return [spec for spec in [*found, published(results.published, look)] if spec is not None]


PER_SETTING: tuple[Callable[[int, list[Arm], list[Comparison], dict[str, str]], FigureSpec | None], ...] = (
    accuracy_vs_tasks,
    accuracy_vs_wallclock,
    step_time,
    peak_memory,
    accuracy_vs_cost,
    differences,
    adaptation_plain,
    adaptation_transductive,
)
