"""How an arm looks in every picture, and how its name is written there."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.analysis.arms import Arm
from bench.report.drawing.colours import Labels, colours, strokes

_DASHES: tuple[Any, ...] = (
    *("-", "--", "-.", ":"),
    (0, (7, 1.5)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (1, 2.5)),
    (0, (9, 3, 2, 3)),
)


_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


GREY = "#555555"


SMALL, TEXT, TITLE = 7.0, 7.5, 8.5  # points, at the width at which a page is shown
LINE = 0.145  # inches that a line of small text takes


@dataclass(frozen=True)
class Style:
    """How an arm looks in every figure; the colour tells algorithms apart, and so do dash and marker together."""

    colour: str
    dash: Any
    marker: str


def styles(arms: Iterable[Arm]) -> dict[str, Style]:
    """Return a style per arm's label, which its algorithm decides and, among arms of one algorithm, their order."""
    return styles_of({arm.label: arm.algo for arm in sorted(arms, key=lambda arm: arm.label)})


def styles_of(labels: Labels) -> dict[str, Style]:
    """Return a style per label, from labels or a mapping of labels to algorithms, as ``colours`` takes them."""
    labels = labels if isinstance(labels, Mapping) else list(labels)
    colour_of = colours(labels)
    return {
        label: Style(colour_of[label], _DASHES[dash], _MARKERS[mark])
        for label, (dash, mark) in strokes(labels, len(_DASHES)).items()
    }


def line_style(style: Style, points: int) -> dict[str, Any]:
    """Return the arguments that plot a curve of so many points, with about eight markers."""
    every = max(1, points // 8)
    return {
        "color": style.colour,
        "ls": style.dash,
        "marker": style.marker,
        "markersize": 3.5,
        "lw": 1.3,
        "markevery": every,
    }


def wrapped(text: str, width: int) -> str:
    """Break lines between words; words that are too long after underscores and hyphens, where names like it best."""
    words = (word if len(word) <= width else re.sub("([_-])", "\\1\0 ", word) for word in text.split(" "))
    return textwrap.fill(" ".join(words), width, break_on_hyphens=False).replace("\0 ", "").replace("\0", "")


def literal(text: str) -> str:
    """Keep matplotlib from setting what stands between two dollar signs as mathematics."""
    return text.replace("$", r"\$")
