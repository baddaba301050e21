"""Pages and their panels, one panel per setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from bench.analysis.arms import Arm, by_setting
from bench.analysis.naming import heading, short_places
from bench.report.drawing.styles import GREY, TEXT, TITLE, literal, wrapped

PADS: dict[str, Any] = {"h_pad": 0.06, "w_pad": 0.05}  # inches


@dataclass(frozen=True)
class Page:
    """A width and the greatest height that figures are made for, in inches, and how many panels stand in a row.

    ``part`` is which of how many figures the settings are shared out to, the first being 0.
    """

    width: float
    columns: int
    tallest: float
    part: tuple[int, int] = (0, 1)

    def share(self, settings: Sequence[Any]) -> Sequence[Any]:
        """Return those settings that this figure is about."""
        place, of = self.part
        return settings[len(settings) * place // of : len(settings) * (place + 1) // of]


COLUMN = Page(3.4, 1, 9.0)
"""A column of a paper, where the smallest text has 7 points."""
SLIDE = Page(5.6, 2, 4.2)
"""A slide: shown twice as large and more, so that the same text has 15 points."""


def panel_width(page: Page, panels: int) -> float:
    """Return about how many inches a panel's x axis takes, where so many stand on the page."""
    return page.width / min(page.columns, max(1, panels)) - 1.0


def make_panels(
    arms: Sequence[Arm],
    title: str,
    height: float | Callable[[Sequence[Arm]], float],
    parts: Sequence[str] = ("",),
    page: Page = COLUMN,
    around: float = 0.0,
) -> tuple[Figure, list[tuple[Axes, list[Arm]]]]:
    """Return a figure with one panel per setting and part, and the arms of each.

    Parts stand beside each other under one title and share their y axis; what they are is for their x labels to say.

    Args:
        height: of a panel in inches, or what it is for a panel of some arms.
        around: inches that its labels take on top of that.
    """
    everywhere = by_setting(a for a in arms if a.ok)
    found, (place, of) = page.share(everywhere), page.part
    wanted = [(members, part) for _, members in found for part in parts]
    columns = min(max(page.columns, len(parts)), max(1, len(wanted)))
    heights = [float(height(members)) if callable(height) else height for members, _ in wanted] or [1.0]
    rows = [max(heights[i : i + columns]) for i in range(0, len(heights), columns)]
    total = sum(rows) + around * len(rows)
    figure = new_figure(page, total)
    counted = f" ({place + 1}\u00a0of\u00a0{of})" if of > 1 else ""  # on one line
    entitle(figure, f"{title}: {heading(arm.setting for arm in arms)}{counted}", total)
    if not wanted:
        figure.text(0.5, 0.4, "no finished run", ha="center", va="center", color=GREY, fontsize=TEXT)
    names = short_places(setting for setting, _ in everywhere)
    grid = figure.add_gridspec(len(rows), columns, height_ratios=rows)
    panels: list[tuple[Axes, list[Arm]]] = []
    for i, (members, _) in enumerate(wanted):
        beside = panels[-1][0] if i % len(parts) else None
        axes = figure.add_subplot(grid[divmod(i, columns)], sharey=beside)
        if beside is None:
            width = len(parts) * page.width / columns - 1.0  # less what stands left of the panel
            name = literal(wrapped(names[members[0].setting], int(15 * width)))
            axes.set_title(name, fontsize=TEXT, loc="left" if len(parts) > 1 else "center")
        panels.append((axes, members))
    return figure, panels


def in_panels(panels: Iterable[tuple[Axes, list[Arm]]]) -> list[Arm]:
    """Return the arms that panels show, each once."""
    return list({id(arm): arm for _, members in panels for arm in members}.values())


def new_figure(page: Page, height: float) -> Figure:
    """Return an empty figure whose panels take ``height`` inches."""
    return Figure(figsize=(page.width, height), layout=ConstrainedLayoutEngine(**PADS))


def entitle(figure: Figure, title: str, height: float) -> None:
    """Put a title above panels that keep their ``height`` in inches."""
    text = wrapped(title, int(12.5 * figure.get_figwidth()))
    figure.set_figheight(height + 0.15 + 0.15 * (text.count("\n") + 1))
    figure.suptitle(literal(text), fontsize=TITLE, weight="bold")


def row_of(axes: Axes) -> int:
    """Return the row in which a panel stands."""
    spec = axes.get_subplotspec()
    return spec.rowspan.start if spec is not None else 0
