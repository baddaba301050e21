"""Figures as files: PNG and SVG, the same bytes for the same figure."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from bench.report.drawing.panels import COLUMN, SLIDE, Page
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


def write_pictures(folder: Path, name: str, draw: Callable[[Page], Figure], settings: int = 1) -> list[Path]:
    """Write ``name.png`` and ``name.svg`` for a column, ``slides/name.png`` for a slide; return the column's pictures.

    What grows taller than its page is shared out by settings: ``name-2.png`` and so on hold the rest.
    """
    found = []
    for i, figure in enumerate(_parts(draw, COLUMN, settings)):
        path = folder / f"{name}{f'-{i + 1}' * (i > 0)}.png"
        write_atomic(path, png(figure))
        write_atomic(path.with_suffix(".svg"), svg(figure))
        found.append(path)
    slides = []
    for i, figure in enumerate(_parts(draw, SLIDE, settings)):
        slides.append(folder / "slides" / f"{name}{f'-{i + 1}' * (i > 0)}.png")
        write_atomic(slides[-1], png(figure))
    kept = {*found, *(path.with_suffix(".svg") for path in found), *slides}
    for old in (*folder.glob(f"{name}-*.png"), *folder.glob(f"{name}-*.svg"), *folder.glob(f"slides/{name}-*.png")):
        if old not in kept and re.fullmatch(r"[2-9]|[1-9]\d", old.stem.removeprefix(f"{name}-")):
            old.unlink()  # of a comparison that took more pages
    return found


def _parts(draw: Callable[[Page], Figure], page: Page, settings: int) -> list[Figure]:
    """Return the figure, or as few as are no taller than the page."""
    for count in range(1, max(settings, 1) + 1):
        figures = [draw(replace(page, part=(i, count))) for i in range(count)]
        if all(figure.get_figheight() <= page.tallest for figure in figures):
            break
    return figures
