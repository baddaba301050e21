"""Figures as files, the same bytes for the same figure; and the decorator that makes a picture an output."""

from __future__ import annotations

import functools
import io
import re
import warnings
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from bench.analysis.arms import by_setting
from bench.analysis.results import Results
from bench.report.drawing.panels import COLUMN, SLIDE, Page
from bench.report.outputs import Files, output
from bench.system.files import write_atomic

SALT = "meta-learning-benchmark"
"""What the ids in vector files are made from, so that the same figure gives the same file."""
DPI = 300


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG picture; the same figure gives the same bytes."""
    return _saved(figure, "png", dpi=DPI, metadata={"Software": None})


def svg(figure: Figure) -> bytes:
    """Return the figure as an SVG picture, its text as outlines; the same figure gives the same bytes."""
    with rc_context({"svg.hashsalt": SALT, "svg.fonttype": "path"}):
        return _saved(figure, "svg", metadata={"Date": None, "Creator": None})


def _saved(figure: Figure, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a name in a script that the font lacks
        _settle(figure)
        figure.savefig(buffer, format=form, **options)
    return buffer.getvalue()


def _settle(figure: Figure) -> None:
    """Lay the figure out once for all and round that: the solver's last bits depend on where its variables lie."""
    if figure.get_layout_engine() is None:
        return
    figure.set_dpi(DPI)  # letters are a little wider or narrower at another
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(Bbox(axes.get_position(original=True).get_points().round(4)))


def files_of(path: str, draw: Callable[[Page], Figure], settings: int = 1) -> dict[str, bytes]:
    """Return ``path.png`` and ``path.svg`` for a column and ``slides/path.png`` for a slide, by their paths.

    What grows taller than its page is shared out by settings: ``path-2.png`` and so on hold the rest.
    """
    folder, slash, name = path.rpartition("/")
    found = {}
    for i, figure in enumerate(_parts(draw, COLUMN, settings)):
        part = f"{folder}{slash}{name}{f'-{i + 1}' * (i > 0)}"
        found[f"{part}.png"], found[f"{part}.svg"] = png(figure), svg(figure)
    for i, figure in enumerate(_parts(draw, SLIDE, settings)):
        found[f"{folder}{slash}slides/{name}{f'-{i + 1}' * (i > 0)}.png"] = png(figure)
    return found


def write_pictures(folder: Path, name: str, draw: Callable[[Page], Figure], settings: int = 1) -> None:
    """Write the files of a figure into a folder, and delete those of a comparison that took more pages."""
    files = files_of(name, draw, settings)
    for path, content in files.items():
        write_atomic(folder / path, content)
    remove_further_pages(folder, name, files)


def _parts(draw: Callable[[Page], Figure], page: Page, settings: int) -> list[Figure]:
    """Return the figure, or as few as are no taller than the page."""
    for count in range(1, max(settings, 1) + 1):
        figures = [draw(replace(page, part=(i, count))) for i in range(count)]
        if all(figure.get_figheight() <= page.tallest for figure in figures):
            break
    return figures


def remove_further_pages(folder: Path, name: str, kept: Collection[str]) -> None:
    """Delete pages of a picture, ``name-2.png`` and so on, that are not among those ``kept``."""
    for old in (*folder.glob(f"{name}-*.png"), *folder.glob(f"{name}-*.svg"), *folder.glob(f"slides/{name}-*.png")):
        number = old.stem.removeprefix(f"{name}-")
        if old.relative_to(folder).as_posix() not in kept and re.fullmatch(r"[2-9]|[1-9]\d", number):
            old.unlink()


FOLDER = "plots"
"""Where the pictures of a report are, under ``--out``."""

Draw = Callable[..., Figure]
"""Draws arms, a sequence of Arm, for a Page."""

FIGURES: dict[str, Draw] = {}
"""The pictures of a report by name, once ``bench.report.outputs.outputs`` has loaded them."""


def picture(says: str, rank: int, costs: bool = False) -> Callable[[Draw], Draw]:
    """Return a decorator that makes an output of a function from arms and a page to a figure.

    Args:
        says: what it shows.
        rank: its place among the pictures.
        costs: whether it is about costs, which all arms have, and not about accuracies.
    """

    def add(draw: Draw) -> Draw:
        def make(results: Results) -> Files:
            shown = [arm for arm in results.arms if costs or arm.measure == "accuracy"]
            if results.arms and not shown:
                return {}
            settings = len(by_setting(arm for arm in shown if arm.ok))
            return files_of(f"{FOLDER}/{draw.__name__}", functools.partial(draw, shown), settings)

        make.__module__ = draw.__module__
        FIGURES[draw.__name__] = draw
        output(f"{FOLDER}/{draw.__name__}", says, rank=rank)(make)
        return draw

    return add
