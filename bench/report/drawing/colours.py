"""One colour per algorithm in every figure and page, whichever others are shown beside it.

An algorithm's place is its place in ``palette.toml``; after those come further ones of this repository by the names of
their files, installed ones and plugins in the order of their registration, and names that are not registered. What has
the same place has the same colour; further arms of one algorithm, with other settings, get darker and lighter shades.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.registry import ALGORITHMS, BUILT_IN

# Found by a search for eight hues that stay as far apart as they can in normal, protan and deutan vision (Machado et
# al. 2009; distances in OKLab) at a contrast of 3 or more with white, or of 4.5 with a near-black page.
PALETTE = ("#668EFC", "#ED6B16", "#3FA584", "#6A225D", "#764F06", "#18789F", "#11090B", "#422306")
DARK_PALETTE = ("#0692FC", "#CB5D01", "#95DABA", "#BF5AA1", "#FCA503", "#63BDEF", "#FEFBFB", "#C19383")

_SHADES = (0.0, 0.40, -0.35, 0.65)
"""How far a further arm of an algorithm goes towards black (above zero) or white (below), on a dark page reversed."""

Labels = Iterable[str] | Mapping[str, str]


def colours(labels: Labels, dark: bool = False) -> dict[str, str]:
    """Return a colour such as ``#668EFC`` for every label.

    Args:
        labels: labels of arms, each the algorithm's name and in brackets what tells it from others of that name
            (``maml``, ``maml (inner_lr=0.4)``); or a mapping from labels of any kind to the names of their algorithms.
        dark: colours for a dark page; the same label keeps its hue.
    """
    palette = DARK_PALETTE if dark else PALETTE
    found = {}
    for label, (place, variant) in places(labels).items():
        share = _SHADES[variant % len(_SHADES)] * (-1 if dark else 1)
        found[label] = _mixed(palette[place % len(palette)], "#000000" if share > 0 else "#FFFFFF", abs(share))
    return found


def places(labels: Labels) -> dict[str, tuple[int, int]]:
    """Return the place of every label's algorithm and the label's place among those of the same algorithm, from 0.

    The latter follows the order in a mapping, otherwise that of the sorted labels.
    """
    algo_of = labels if isinstance(labels, Mapping) else {label: algorithm(label) for label in sorted(set(labels))}
    known = registered()
    order = [*known, *sorted(set(algo_of.values()) - set(known))]
    place = {algo: i for i, algo in enumerate(order)}
    found: dict[str, tuple[int, int]] = {}
    for label, algo in algo_of.items():
        found[label] = (place[algo], sum(p == place[algo] for p, _ in found.values()))
    return found


def strokes(labels: Labels, kinds: int) -> dict[str, tuple[int, int]]:
    """Return which of ``kinds`` dashes and which of as many marks every label has, in pictures and on the page alike.

    After a whole turn of the palette its colours meet other dashes and marks.
    """
    found = {}
    for label, (place, variant) in places(labels).items():
        turn = place // len(PALETTE)
        found[label] = (place + turn + 3 * variant) % kinds, (place + 3 * turn + 5 * variant) % kinds
    return found


def algorithm(label: str) -> str:
    """Return the algorithm's name in the label of an arm."""
    return label.split(" (")[0]


def registered() -> list[str]:
    """Return the names that have places: those of ``palette.toml``, here or not, and all others that are registered."""
    settled = _settled()
    names = [name for name in ALGORITHMS.in_order() if name not in settled]
    modules = {name: ALGORITHMS.get(name).__module__ for name in names}
    own = [name for name in names if modules[name].split(".")[0] in BUILT_IN]
    own.sort(key=lambda name: (modules[name], name))
    return [*settled, *own, *(name for name in names if name not in own)]


@functools.cache
def _settled() -> tuple[str, ...]:
    return tuple(tomllib.loads(Path(__file__).with_name("palette.toml").read_text(encoding="utf-8"))["order"])


def ink(colour: str) -> str:
    """Return ``colour`` darkened until text in it reads well on white (a contrast of 4.5)."""
    share = 0.0
    while share < 1 and 1.05 / (_luminance(shade := _mixed(colour, "#000000", share)) + 0.05) < 4.5:
        share += 0.05
    return shade


def _channels(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _mixed(colour: str, other: str, share: float) -> str:
    return "#" + "".join(f"{round(a + (b - a) * share):02X}" for a, b in zip(_channels(colour), _channels(other)))


def _luminance(colour: str) -> float:
    linear = [(c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4) for c in _channels(colour)]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear))
