"""One colour per algorithm in every figure and page, whichever others are shown beside it.

The algorithms of this repository have the places of ``palette.toml``. Any other has the place that its name decides, so
that it looks the same with and without its plugin, and whoever else is there; of two names with one place the second
moves. What has the same place has the same colour; further arms of one algorithm, with other settings, get darker and
lighter shades.
"""

from __future__ import annotations

import functools
import tomllib
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.report.drawing.palette import luminance, palette

OTHERS = range(15, 20)
"""The places that names without a line in ``palette.toml`` are shared out to; where these are full, those after."""

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
    placed = places(labels)
    base = palette(max((place + 1 for place, _ in placed.values()), default=0), dark)
    found = {}
    for label, (place, variant) in placed.items():
        share = _SHADES[variant % len(_SHADES)] * (-1 if dark else 1)
        found[label] = _mixed(base[place], "#000000" if share > 0 else "#FFFFFF", abs(share))
    return found


def places(labels: Labels) -> dict[str, tuple[int, int]]:
    """Return the place of every label's algorithm and the label's place among those of the same algorithm, from 0.

    The latter follows the order in a mapping, otherwise that of the sorted labels.
    """
    algo_of = labels if isinstance(labels, Mapping) else {label: algorithm(label) for label in sorted(set(labels))}
    place = _shared_out(sorted(set(algo_of.values())))
    found: dict[str, tuple[int, int]] = {}
    for label, algo in algo_of.items():
        found[label] = (place[algo], sum(p == place[algo] for p, _ in found.values()))
    return found


def _shared_out(names: Iterable[str]) -> dict[str, int]:
    """Return a place for every name, each its own: first those that have theirs for themselves, then the others."""
    settled = _settled()
    found = {name: settled[name] for name in names if name in settled}
    taken, late = set(settled.values()), []
    for name in names:
        if name in found:
            continue
        home = OTHERS[zlib.crc32(name.encode()) % len(OTHERS)]
        if home in taken:
            late.append((name, home))
        else:
            found[name] = home
            taken.add(home)
    for name, home in late:
        ring = [*range(home, OTHERS.stop), *OTHERS, *range(OTHERS.stop, OTHERS.stop + len(late))]
        found[name] = next(place for place in ring if place not in taken)
        taken.add(found[name])
    return found


def strokes(labels: Labels, kinds: int) -> dict[str, tuple[int, int]]:
    """Return which of ``kinds`` dashes and which of as many marks every label has, in pictures and on the page alike.

    After a whole turn dashes meet other marks.
    """
    found = {}
    for label, (place, variant) in places(labels).items():
        turn = place // kinds
        found[label] = (place + turn + 3 * variant) % kinds, (place + 3 * turn + 5 * variant) % kinds
    return found


def algorithm(label: str) -> str:
    """Return the algorithm's name in the label of an arm."""
    return label.split(" (")[0]


@functools.cache
def _settled() -> Mapping[str, int]:
    """Return the places of ``palette.toml`` by name."""
    text = Path(__file__).with_name("palette.toml").read_text(encoding="utf-8")
    return {str(name): int(place) for name, place in tomllib.loads(text)["places"].items()}


def ink(colour: str) -> str:
    """Return ``colour`` darkened until text in it reads well on white (a contrast of 4.5)."""
    share = 0.0
    while share < 1 and 1.05 / (luminance(shade := _mixed(colour, "#000000", share)) + 0.05) < 4.5:
        share += 0.05
    return shade


def _channels(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _mixed(colour: str, other: str, share: float) -> str:
    return "#" + "".join(f"{round(a + (b - a) * share):02X}" for a, b in zip(_channels(colour), _channels(other)))
