"""Colours: the same algorithm always has the same one, and none is mistaken for another, whoever looks."""

from __future__ import annotations

import itertools
import tomllib

import numpy as np
import pytest
from places import REPOSITORY

from bench.registry import ALGORITHMS, algorithm_names, register_algorithm
from bench.report.drawing.colours import DARK_PALETTE, PALETTE, colours, ink, places, registered

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
VISION = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}


def linear(colour):
    s = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)


def cielab(rgb):
    """CIE 1976 L*a*b* of linear sRGB under D65."""
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    )
    t = to_xyz @ np.clip(rgb, 0, 1) / [0.95047, 1, 1.08883]
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(colour, ground):
    a, b = (float(linear(c) @ [0.2126, 0.7152, 0.0722]) + 0.05 for c in (colour, ground))
    return max(a, b) / min(a, b)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("palette", [PALETTE, DARK_PALETTE])
def test_no_two_colours_of_the_palette_look_alike(palette, vision):
    seen = [cielab(np.array(VISION[vision]) @ linear(colour)) for colour in palette]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 10  # 2.3 is just noticeable


def test_colours_stand_out_from_their_page_and_text_in_them_can_be_read():
    assert all(contrast(c, "#FFFFFF") >= 3.0 for c in PALETTE)
    assert all(contrast(c, "#121212") >= 4.5 for c in DARK_PALETTE)
    assert all(contrast(ink(c), "#FFFFFF") >= 4.5 for c in PALETTE)
    assert ink("#000000") == "#000000"


@pytest.mark.parametrize("dark", [False, True])
def test_an_algorithm_has_one_colour_whoever_stands_beside_it(dark):
    names = algorithm_names()
    together = colours(names, dark)
    assert len(set(together.values())) == min(len(names), len(PALETTE))
    for count in (1, 2, 3):
        for some in itertools.combinations(names, count):
            assert colours(some, dark) == {name: together[name] for name in some}
    assert colours(reversed(names), dark) == together
    assert colours([*names, "a_plugin_of_old"], dark).items() >= together.items()


def test_arms_of_an_algorithm_are_shades_of_its_colour_and_all_different():
    names = algorithm_names()
    arms = [f"{name} (inner_lr={rate})" for name in names for rate in (0.1, 0.2, 0.4)]
    found = colours([*names, *arms])
    assert {name: found[name] for name in names} == colours(names)
    assert len(set(found.values())) == len(found)
    first, second, *_ = registered()
    assert places({"g1": first, "mean": first, "last": second}) == {
        "g1": (0, 0),
        "mean": (0, 1),
        "last": (1, 0),
    }


def test_neither_a_new_file_nor_a_plugin_moves_a_colour(monkeypatch):
    """Whatever its name, and in whatever order things were imported."""
    settled = [name for name in registered() if ALGORITHMS.get(name).__module__.startswith("algorithms.")]
    before = colours(settled)
    kept = dict(ALGORITHMS._classes)
    monkeypatch.setattr(ALGORITHMS, "_classes", dict(reversed(kept.items())))
    base = ALGORITHMS.get("maml")
    for name, module in (("aaa_plugin", "somebody.elses"), ("aaa_file", "algorithms.aaa_file")):
        register_algorithm(name)(type("Added", (base,), {"__module__": module}))
    after = registered()
    assert colours(after).items() >= before.items()
    assert after.index("aaa_file") < after.index("aaa_plugin")


def test_every_algorithm_of_the_repository_has_a_place_for_good():
    order = tomllib.loads((REPOSITORY / "bench/report/drawing/palette.toml").read_text(encoding="utf-8"))["order"]
    own = [name for name in ALGORITHMS.in_order() if ALGORITHMS.get(name).__module__.startswith("algorithms.")]
    assert sorted(order) == sorted(own)
    assert registered()[: len(order)] == order
