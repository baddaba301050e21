"""What a figure shows once it is drawn: its texts, those that run into each other, those that are cut off."""

from __future__ import annotations

import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from bench.report.drawing.panels import COLUMN


def texts_of(figure: Figure) -> list[tuple[Text, Bbox]]:
    """Draw the figure and return every text that was drawn, each with the box that it takes."""
    found: dict[int, Text] = {}
    real = Text.draw

    def draw(self, renderer):
        if self.get_visible() and self.get_text().strip():
            found[id(self)] = self
        real(self, renderer)

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # lays out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", draw)
        canvas.draw()
    return [(text, Text.get_window_extent(text, canvas.get_renderer())) for text in found.values()]


def check_legible(figure: Figure) -> None:
    """Fail if a text is cut off, runs into another, or is smaller than 7 points; if panels or legends overlap."""
    texts, page = texts_of(figure), figure.bbox
    assert figure.get_figwidth() >= COLUMN.width
    for text, box in texts:
        assert text.get_fontsize() >= 7, text.get_text()
        inside = box.x0 >= page.x0 - 1 and box.y0 >= page.y0 - 1 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1 + 1
        assert inside, f"{text.get_text()!r} is cut off: {box} in {page}"
    for (one, a), (other, b) in itertools.combinations(texts, 2):
        apart = min(a.x1, b.x1) - max(a.x0, b.x0) < 1 or min(a.y1, b.y1) - max(a.y0, b.y0) < 2
        assert apart, f"{one.get_text()!r} runs into {other.get_text()!r}"
    renderer = figure.canvas.get_renderer()
    # less the width of titles, which may stand above the next panel; the texts have been compared
    boxes = [axes.get_tightbbox(renderer, for_layout_only=True) for axes in figure.axes]
    boxes += [legend.get_window_extent(renderer) for legend in figure.legends]
    for a, b in itertools.combinations(boxes, 2):
        assert min(a.x1, b.x1) - max(a.x0, b.x0) < 2 or min(a.y1, b.y1) - max(a.y0, b.y0) < 2


def check_apart(figure: Figure) -> None:
    """Draw the figure, and fail if a panel or legend is cut off or lies over another."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [axes.get_tightbbox(canvas.get_renderer()) for axes in figure.axes]
    boxes += [legend.get_window_extent(canvas.get_renderer()) for legend in figure.legends]
    assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= figure.bbox.x1 and b.y1 <= figure.bbox.y1 for b in boxes)
    for a, b in itertools.combinations(boxes, 2):
        assert not a.shrunk(0.98, 0.98).overlaps(b.shrunk(0.98, 0.98))
