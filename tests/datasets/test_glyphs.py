"""Glyphs: many distinct letter shapes, the same everywhere, about as hard as Omniglot."""

import random
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from commands import uncounted
from places import REPOSITORY

from bench.api import SPLITS
from bench.registry import DATASETS
from datasets import glyphs
from datasets.glyphs import distinct, letters, squared_distances, thinned


@pytest.fixture(scope="module")
def cache(prepared_glyphs):
    return prepared_glyphs


@pytest.fixture(scope="module")
def images(cache):
    return DATASETS.get("glyphs")().load(cache / "no such root", cache)


@pytest.fixture(scope="module")
def shapes():
    codes, bitmaps = letters()
    return {code: i for i, code in enumerate(codes)}, bitmaps


def test_there_are_at_least_1200_classes_of_20_binary_images(images):
    n = len(images.class_names)
    assert n >= 1200
    assert images.images.shape == (n, 20, 28, 28)
    assert images.images.dtype == torch.uint8
    assert images.images.flatten().bincount().nonzero().flatten().tolist() == [0, 255]
    assert len(set(images.class_names)) == n
    assert "U+0041 LATIN CAPITAL LETTER A" in images.class_names


def test_no_image_is_blank_and_no_two_are_equal(images):
    flat = images.images.flatten(0, 1).flatten(1)
    assert (flat > 0).sum(dim=1).min() >= 8
    # A picture may by chance equal another of the same letter, never one of another letter.
    owner = {}
    for i, row in enumerate(flat.numpy()):
        assert owner.setdefault(row.tobytes(), i // 20) == i // 20


def test_the_splits_share_out_the_classes_as_omniglots_do(images):
    sizes = {part: len(images.splits[part]) / len(images.class_names) for part in SPLITS}
    assert sizes == pytest.approx(
        {"meta_train": 1100 / 1623, "meta_val": 100 / 1623, "meta_test": 423 / 1623}, abs=1e-3
    )
    assert sorted(i for part in SPLITS for i in images.splits[part]) == list(range(len(images.class_names)))


def test_equal_looking_letters_are_one_class(images):
    codes = {name.split()[0] for name in images.class_names}
    for group in ("A\u0391\u0410", "P\u03a1\u0420", "J\u0408", "C\u0421", "c\u0441", "bq", "dp", "Uun", "r\u0279"):
        assert len({f"U+{ord(letter):04X}" for letter in group} & codes) == 1, group
    for symmetric in "OISZNosz":  # a turn makes the same letter again
        assert f"U+{ord(symmetric):04X}" not in codes


def test_drawing_again_gives_the_same_bytes_and_touches_no_global_generator(images, tmp_path):
    """In another process, with other thread counts, hash seed and global seeds."""
    code = (
        "import random, sys, pathlib, numpy, torch; random.seed(1); numpy.random.seed(1); torch.manual_seed(1)\n"
        "torch.set_num_threads(2)\n"
        "before = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()\n"
        "from datasets.glyphs import Glyphs\n"
        "print(Glyphs().load(pathlib.Path(sys.argv[1], 'root'), pathlib.Path(sys.argv[1])).sha256)\n"
        "assert before == (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist())\n"
    )
    environment = uncounted(PYTHONHASHSEED="7")
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path)],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout.strip() == images.sha256
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]  # and no root was made


def test_a_cached_load_is_quick_and_the_same(images, cache):
    start = time.monotonic()
    again = DATASETS.get("glyphs")().load(cache / "no such root", cache)
    assert time.monotonic() - start < 1
    assert torch.equal(again.images, images.images)
    assert (again.class_names, again.splits, again.sha256) == (images.class_names, images.splits, images.sha256)


def test_a_letters_drawings_do_not_depend_on_the_other_letters(images):
    number = images.class_names.index("U+0052 LATIN CAPITAL LETTER R")
    skeleton = thinned(_bitmap("R"))
    alone = glyphs._drawn(images.class_names[number], np.sqrt(squared_distances(skeleton)[0], dtype=np.float64))
    np.testing.assert_array_equal(images.images[number], alone)


def test_every_letter_is_drawn_by_hands_of_its_own(images):
    """Were hands shared, variant 7 of all letters would lean one way, and a learner could use that."""
    ink = images.images.float() / 255
    across = (ink * torch.arange(28)).sum(dim=(2, 3)) / ink.sum(dim=(2, 3))  # [classes, 20] centres of mass
    within = across - across.mean(dim=1, keepdim=True)
    assert within.std() > 1
    assert within.mean(dim=0).abs().max() < 0.2  # 5 sd of a mean over 1,200 letters


def _bitmap(letter):
    codes, bitmaps = letters()
    return bitmaps[codes.index(ord(letter)), None]


# The steps, against answers from elsewhere.


def test_distances_are_those_of_brute_force():
    ink = (np.random.default_rng(0).random((3, 20, 30)) < 0.01).astype(np.uint8)
    assert ink.any(axis=(1, 2)).all()
    for got, one in zip(squared_distances(ink), ink):
        y, x = np.mgrid[:20, :30]
        ys, xs = one.nonzero()
        far = ((y[..., None] - ys) ** 2 + (x[..., None] - xs) ** 2).min(axis=-1)
        np.testing.assert_array_equal(got[far < 121], far[far < 121])
        assert (got[far >= 121] >= 100).all()


def _euler_number(bitmap):
    """Return components minus holes, 8-connected, by counting 2 x 2 patterns (Gray 1971)."""
    p = np.pad(bitmap, 1).astype(int)
    a, b, c, d = p[:-1, :-1], p[:-1, 1:], p[1:, :-1], p[1:, 1:]
    total = a + b + c + d
    diagonal = (total == 2) & (a == d)
    return ((total == 1).sum() - (total == 3).sum() - 2 * diagonal.sum()) / 4


def test_thinning_keeps_components_and_holes_and_leaves_thin_lines(shapes):
    number, bitmaps = shapes
    chosen = bitmaps[[number[ord(letter)] for letter in "ABCeijnwΞЖש"]]
    expected = {"A": 0, "B": -1, "C": 1, "e": 0, "i": 2, "j": 2, "n": 1, "w": 1, "Ξ": 3, "Ж": 1, "ש": 1}
    thin = thinned(chosen)
    assert [_euler_number(bitmap) for bitmap in thin] == list(expected.values())
    assert ((thin == 1) <= (chosen == 1)).all()
    solid = thin[:, :-1, :-1] & thin[:, :-1, 1:] & thin[:, 1:, :-1] & thin[:, 1:, 1:]
    assert solid.sum(axis=(1, 2)).max() <= 1
    bar = np.zeros((1, 20, 40), np.uint8)
    bar[0, 8:13, 5:35] = 1
    rows = thinned(bar)[0].nonzero()[0]
    assert set(rows.tolist()) == {10}


def test_distinct_drops_rotations_near_copies_and_symmetric_shapes():
    hook = np.zeros((40, 40), np.uint8)
    hook[5:35, 10] = hook[34, 10:30] = 1
    plus = np.zeros((40, 40), np.uint8)
    plus[20, 5:35] = plus[5:35, 20] = 1
    bar = np.zeros((40, 40), np.uint8)
    bar[20, 5:35] = 1
    flag = hook.copy()
    flag[10:20, 25] = 1
    moved = np.roll(hook, 1, axis=1)
    assert distinct(np.stack([hook, np.rot90(hook, 3), plus, moved, flag, bar, np.rot90(flag)])) == [0, 4]
    assert distinct(np.stack([np.fliplr(flag), flag])) == [0, 1]  # a mirror image is another shape


# How it compares with Omniglot.


def nearest_neighbour_accuracy(images, tasks=300):
    """5-way 1-shot by Euclidean distance between raw pixels, over all classes."""
    rng = random.Random(0)
    pixels = images.images.flatten(2).float() / 255
    right = 0.0
    for _ in range(tasks):
        classes = rng.sample(range(len(pixels)), 5)
        chosen = torch.stack([pixels[c, rng.sample(range(20), 10)] for c in classes])  # [5, 10, 784]
        nearest = torch.cdist(chosen[:, 1:].flatten(0, 1), chosen[:, 0]).argmin(dim=1)
        right += (nearest == torch.arange(5).repeat_interleave(9)).float().mean().item()
    return right / tasks


def test_glyphs_are_neither_trivial_nor_hopeless(images):
    assert 0.3 < nearest_neighbour_accuracy(images) < 0.5


@pytest.mark.omniglot
def test_glyphs_look_and_feel_like_omniglot(images, prepared_omniglot):
    real = DATASETS.get("omniglot")().load(prepared_omniglot, prepared_omniglot)
    assert nearest_neighbour_accuracy(images) == pytest.approx(nearest_neighbour_accuracy(real), abs=0.1)
    assert (images.images > 0).float().mean() == pytest.approx((real.images > 0).float().mean(), rel=0.25)
