"""Colours one after another, each as far from all before it as can be: for light pages and, hue by hue, for dark ones.

Distances are those of OKLab (Ottosson 2020), in normal vision and in the two common kinds of colour blindness (Machado
et al. 2009). The first five are given, those of this repository's algorithms; the rule finds all others.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

_GIVEN = ("#668EFC", "#ED6B16", "#3FA584", "#6A225D", "#764F06")
_GIVEN_DARK = ("#0692FC", "#CB5D01", "#95DABA", "#BF5AA1", "#FCA503")
_PAGE = 0.0085  # relative luminance of the dark page
_AT_ONCE = 20  # colours that are sought together: all that most pages need

_VISIONS = (  # normal; deuteranopia and protanopia, whose distances weigh more, since few have to go by them alone
    (1.0, np.eye(3)),
    (1.5, [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]),
    (1.5, [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
)
_TO_CONES = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
_TO_LAB = [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
]


def palette(count: int, dark: bool = False) -> tuple[str, ...]:
    """Return the first ``count`` colours, such as ``#668EFC``; a place in both palettes has about the same hue."""
    return _palettes(-(-count // _AT_ONCE) * _AT_ONCE)[dark][:count]


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour, from 0 for black to 1 for white."""
    return float(_linear([colour])[0] @ _GREY)


_GREY = np.array([0.2126, 0.7152, 0.0722])


@functools.lru_cache(maxsize=8)
def _palettes(count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    light, dark, choice = list(_GIVEN), list(_GIVEN_DARK), _Choice()
    on_light, on_dark = choice.nearest(light), choice.nearest(dark)
    while len(light) < count:
        i = int(np.argmax(np.where(choice.for_light, on_light, 0)))
        alike = np.abs((choice.hue - choice.hue[i] + 180) % 360 - 180) <= 40
        j = int(np.argmax(np.where(choice.for_dark & alike, on_dark, 0)))
        light.append(choice.names[i])
        dark.append(choice.names[j])
        on_light = np.minimum(on_light, choice.nearest(light[-1:]))
        on_dark = np.minimum(on_dark, choice.nearest(dark[-1:]))
    return tuple(light), tuple(dark)


class _Choice:
    """The colours to choose from, a grid of all that there are: what each is good for, and how they look."""

    def __init__(self) -> None:
        self.names = [f"#{r:02X}{g:02X}{b:02X}" for r, g, b in itertools.product(range(0, 256, 15), repeat=3)]
        linear = _linear(self.names)
        self._seen = [_lab(linear, matrix) for _, matrix in _VISIONS]
        light, a, b = self._seen[0].T
        chroma, grey = np.hypot(a, b), linear @ _GREY
        self.hue = np.degrees(np.arctan2(b, a))
        vivid = (chroma >= 0.05) & (chroma <= 0.24)  # neither grey, which marks no algorithm, nor shrill
        self.for_light = vivid & (1.05 / (grey + 0.05) >= 3.0) & (light >= 0.4)
        self.for_dark = vivid & ((grey + 0.05) / (_PAGE + 0.05) >= 4.5) & (light <= 0.9)

    def nearest(self, chosen: Sequence[str]) -> np.ndarray:
        """Return how far each is from the nearest one chosen, rounded so that no machine's last bits decide."""
        linear = _linear(chosen)
        apart = [
            weight * np.linalg.norm(seen[:, None] - _lab(linear, matrix)[None], axis=2)
            for seen, (weight, matrix) in zip(self._seen, _VISIONS)
        ]
        return np.round(np.min(apart, axis=(0, 2)), 6)


def _linear(colours: Iterable[str]) -> np.ndarray:
    s = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in colours])
    return np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray, vision: object) -> np.ndarray:
    seen = np.clip(linear @ np.asarray(vision).T, 0, 1)
    return np.asarray(np.cbrt(seen @ np.transpose(_TO_CONES)) @ np.transpose(_TO_LAB))
