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
from bench.report.interactive.accuracy_vs_cost import accuracy_vs_cost
from bench.report.interactive.adaptation import adaptation_plain, adaptation_transductive
from bench.report.interactive.costs import peak_memory, step_time
from bench.report.interactive.curves import accuracy_vs_tasks, accuracy_vs_wallclock
from bench.report.interactive.differences import differences
from bench.report.interactive.published import published
from bench.report.interactive.spec import FigureSpec
from bench.report.interactive.traces import faint
from bench.report.interactive.tuning import tuning


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
    found.append(published(results.published, look))
    return [*(spec for spec in found if spec is not None), *tuning(results.searches)]


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
