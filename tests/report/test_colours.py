"""Colours: the same algorithm always has the same one, and none is mistaken for another, whoever looks."""

from __future__ import annotations

import itertools
import tomllib

import numpy as np
import pytest
from places import REPOSITORY

from bench.registry import ALGORITHMS, algorithm_names, register_algorithm
from bench.report.drawing.colours import OTHERS, colours, ink, places
from bench.report.drawing.palette import palette

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


BUILT_IN = {"reptile": "#668EFC", "fomaml": "#ED6B16", "maml": "#3FA584", "foml": "#6A225D", "joint": "#764F06"}
PAGE, DARK_PAGE = "#FFFFFF", "#14171B"


def nearest(seen):
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("dark", [False, True])
def test_no_two_colours_look_alike(dark, vision):
    """CIE 1976 distances, of which 2.3 is just noticeable; the code goes by OKLab."""
    seen = [cielab(np.array(VISION[vision]) @ linear(colour)) for colour in palette(OTHERS.stop, dark)]
    assert nearest(seen[:12]) > (14 if vision == "normal" else 9)
    assert nearest(seen[:15]) > (14 if vision == "normal" else 9)  # those of the repository
    assert nearest(seen) > (14 if vision == "normal" else 7)


@pytest.mark.parametrize("dark", [False, True])
def test_no_colour_is_lost_on_its_page_or_nearly_black_or_white(dark):
    for colour in palette(40, dark):
        assert contrast(colour, DARK_PAGE if dark else PAGE) >= (4.3 if dark else 3.0)
        for extreme in ("#000000", "#FFFFFF"):
            assert np.linalg.norm(cielab(linear(colour)) - cielab(linear(extreme))) > (18 if dark else 35)


def test_text_in_a_colour_can_be_read():
    assert all(contrast(ink(c), "#FFFFFF") >= 4.5 for c in palette(40))
    assert ink("#000000") == "#000000"


def test_the_algorithms_of_the_repository_keep_their_colours():
    assert colours(list(BUILT_IN)) == BUILT_IN
    assert colours([*BUILT_IN, "a_plugin", "zz", "another"]).items() >= BUILT_IN.items()


@pytest.mark.parametrize("dark", [False, True])
def test_an_algorithm_has_one_colour_whoever_stands_beside_it(dark):
    """Plugins too, registered or not, unless two want the same place: then the one that has it to itself stays."""
    names = [*BUILT_IN, "proto_maml", "curvature", "leo", "sib"]
    together = colours(names, dark)
    assert len(set(together.values())) == len(names)
    for count in (1, 2, 3):
        for some in itertools.combinations(names, count):
            assert colours(some, dark) == {name: together[name] for name in some}
    assert colours(reversed(names), dark) == together


def test_a_name_that_has_to_move_moves_no_other():
    def home(name):
        return places([name])[name][0]

    names = [f"plugin_{i}" for i in range(60)]
    first = names[0]
    rival = next(name for name in names[1:] if home(name) == home(first))
    neighbour = next(name for name in names if home(name) == home(first) + 1)
    found = colours([first, rival, neighbour])
    assert len(set(found.values())) == 3
    assert found[neighbour] == colours([neighbour])[neighbour]
    assert found[first] == colours([first])[first]


def test_any_number_of_algorithms_has_as_many_colours():
    for count in (1, 12, 17, 40):
        names = [f"plugin_{i}" for i in range(count)]
        assert len(set(colours([*BUILT_IN, *names]).values())) == count + len(BUILT_IN)


def test_arms_of_an_algorithm_are_shades_of_its_colour_and_all_different():
    names = algorithm_names()
    arms = [f"{name} (inner_lr={rate})" for name in names for rate in (0.1, 0.2, 0.4)]
    found = colours([*names, *arms])
    assert {name: found[name] for name in names} == colours(names)
    assert len(set(found.values())) == len(found)
    assert places({"g1": "reptile", "mean": "reptile", "last": "fomaml"}) == {
        "g1": (0, 0),
        "mean": (0, 1),
        "last": (1, 0),
    }


def test_registering_moves_no_colour(monkeypatch):
    """A report has the same colours with and without ``--plugin``, in whatever order things were imported."""
    before = colours([*BUILT_IN, "aaa_plugin", "zzz_plugin"])
    kept = dict(ALGORITHMS._classes)
    monkeypatch.setattr(ALGORITHMS, "_classes", dict(reversed(kept.items())))
    base = ALGORITHMS.get("maml")
    for name, module in (("zzz_plugin", "somebody.elses"), ("aaa_plugin", "algorithms.aaa_file")):
        register_algorithm(name)(type("Added", (base,), {"__module__": module}))
    assert colours([*BUILT_IN, "aaa_plugin", "zzz_plugin"]) == before


def test_every_algorithm_of_the_repository_has_a_place_for_good():
    text = (REPOSITORY / "bench/report/drawing/palette.toml").read_text(encoding="utf-8")
    settled = tomllib.loads(text)["places"]
    own = [name for name in ALGORITHMS.in_order() if ALGORITHMS.get(name).__module__.startswith("algorithms.")]
    assert sorted(settled) == sorted(own)
    assert len(set(settled.values())) == len(settled)
    assert {name: place for name, (place, _) in places(list(settled)).items()} == settled
