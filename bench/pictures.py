"""Figures as files: PNG and SVG, the same bytes for the same figure."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from bench.files import write_atomic
from bench.panels import COLUMN, SLIDE, Page

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


def write_pictures(folder: Path, name: str, draw: Callable[[Page], Figure]) -> Path:
    """Write ``name.png`` and ``name.svg`` for a column, ``slides/name.png`` for a slide; return the first's path."""
    figure = draw(COLUMN)
    write_atomic(folder / f"{name}.png", png(figure))
    write_atomic(folder / f"{name}.svg", svg(figure))
    write_atomic(folder / "slides" / f"{name}.png", png(draw(SLIDE)))
    return folder / f"{name}.png"
