"""Omniglot: 1,623 handwritten characters of 50 alphabets, each drawn by the same 20 people."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from bench.api import SPLITS, DataError, DataMissing, Dataset
from bench.registry import register_dataset
from bench.tasks.download import download
from bench.tasks.imagecache import Prepared, cached, prepare
from bench.tasks.images import ROTATIONS, ImageSet
from bench.tasks.pictures import SUFFIXES
from datasets.omniglot_files import HALVES, SIZE, read
from datasets.omniglot_search import ACCEPTED, Found, find, listed, places

SIDE = 28

PIPELINE = (
    "omniglot 1: images_background then images_evaluation, each sorted by ALPHABET/characterNN; 20 images by drawer; "
    "105 x 105 1-bit PNG; nearest-neighbour to 28 x 28 at pixel centres, floor((i + 0.5) * 105 / 28); ink 255 on 0"
)
PREPARED_SHA256 = "a2e0d63df06c22433fe5bda98ec395d3a2ff22af7e53e8f647d5ff568d7dd45a"
"""Of the prepared images, uint8 ``[1623, 20, 28, 28]`` in C order; integer steps only, so it holds on any machine."""

SPLIT_FILE = Path(__file__).with_name("omniglot_split.json")

SOURCE = "https://github.com/brendenlake/omniglot/tree/master/python"


@register_dataset("omniglot")
@dataclass(frozen=True)
class Omniglot(Dataset):
    """Omniglot at 28 x 28, split by base character into 1,100 meta_train, 100 meta_val and 423 meta_test.

    Attributes:
        split: by character, from the committed list, or by alphabet, so that none is in two splits (``by_alphabet``).
    """

    split: Literal["character", "alphabet"] = "character"

    paper = "Lake, Salakhutdinov, Tenenbaum 2015, doi:10.1126/science.aab3050"
    auto_rank = 0
    licence = "MIT, Lake et al. 2015"

    def load(self, root: Path, cache: Path) -> ImageSet:
        """Return the 1,623 characters, uint8 ``[1623, 20, 28, 28]``: from the cache file, the archives, or the network.

        Args:
            root: holds both halves as zip files or folders, itself or at most three folders deeper, as
                ``omniglot_search.find`` finds them; the cache file goes here, and so does what is downloaded where
                nothing is there.
            cache: where the cache file goes if ``root`` cannot be written.
        Raises:
            DataMissing: neither half is under ``root`` and the download did not work.
            DataError: one half is missing, or what is there is damaged or not Omniglot; the message names the file.
        """
        split = read_split(SPLIT_FILE)
        if self.split == "alphabet":
            split = by_alphabet(name for names in split.values() for name in names)
        # What was prepared from another root must not stand in for one that is not there.
        folders = (root, cache) if os.path.exists(root) else (root,)  # noqa: PTH110  # Path.exists may raise
        prepared = cached("omniglot", PIPELINE, folders, lambda: _prepare(root), PREPARED_SHA256)
        number = {name: i for i, name in enumerate(prepared.class_names)}
        splits = {part: tuple(sorted(number[name] for name in split[part])) for part in SPLITS}
        images = torch.from_numpy(prepared.images)
        return ImageSet("omniglot", images, prepared.class_names, splits, PIPELINE, prepared.sha256, ROTATIONS)


def read_split(path: Path) -> Mapping[str, list[str]]:
    """Return the names of the characters of each split.

    Raises:
        DataError: the list is not what its own hash says.
    """
    try:
        split = json.loads(path.read_text(encoding="utf-8"))
        names = {part: list(split[part]) for part in SPLITS}
        intact = split["sha256"] == split_sha256(names)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: not a list of splits ({' '.join(str(error).split())})") from error
    if not intact:
        raise DataError(f"{path}: was changed; its sha256 would have to be {split_sha256(names)}")
    return names


def by_alphabet(characters: Iterable[str]) -> Mapping[str, list[str]]:
    """Return a split that leaves alphabets whole: of Omniglot 35, 3 and 12, with 1,111, 103 and 409 characters.

    Alphabets in the order of a hash of their names fill meta_train, then meta_val, until each holds at least the share
    of characters that it has in the split by character; the others are for meta_test.
    """
    characters = sorted(characters)
    members: dict[str, list[str]] = {}
    for name in characters:
        members.setdefault(name.partition("/")[0], []).append(name)
    split: dict[str, list[str]] = {part: [] for part in SPLITS}
    order = sorted(
        members, key=lambda name: hashlib.sha256(f"metabench omniglot alphabets v1 {name}".encode()).digest()
    )
    done = 0
    for alphabet in order:
        part = SPLITS[sum(done * 1623 >= cut * len(characters) for cut in (1100, 1200))]
        split[part] += members[alphabet]
        done += len(members[alphabet])
    return split


def split_sha256(split: Mapping[str, list[str]]) -> str:
    """Return the hash over the lines 'SPLIT CHARACTER', in the order of SPLITS and of each list."""
    lines = (f"{part} {name}\n" for part in SPLITS for name in split[part])
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def shrink(pixels: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a picture, bool ``[105, 105]`` and True where blank, as uint8 ``[28, 28]`` with ink 255 on 0."""
    nearest = (2 * np.arange(SIDE) + 1) * SIZE // (2 * SIDE)
    return np.where(pixels[nearest[:, None], nearest], 0, 255).astype(np.uint8)


def _other_pictures(root: Path) -> Path | None:
    """Return a picture in a folder of ``root``: it is somebody's own set, where nothing is to be put."""
    with contextlib.suppress(OSError):
        folders = (path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith("."))
        for folder in itertools.islice(folders, 20):
            files = itertools.islice(folder.iterdir(), 50)
            if found := next((file for file in files if file.suffix.lower() in SUFFIXES), None):
                return found
    return None


def _prepare(root: Path) -> Prepared:
    """Return the prepared images of both halves, downloaded first if neither is there."""
    found = find(root, HALVES)
    if not found.halves:
        if (other := _other_pictures(root)) is not None:
            raise _missing(root, found, f"{other} is somebody's own picture; --dataset folder compares on those")
        _download(root, found)
        found = find(root, HALVES)
    for half in HALVES:
        if half.name not in found.halves:
            raise DataError(
                f"{root}: Omniglot is incomplete, {half.name} is missing{_above(root, half.name)}; "
                f"seen: {found}; {ACCEPTED}"
            )
    images, names = [], []
    for half, pictures in [(half, listed(found.halves[half.name], half, root)) for half in HALVES]:
        part, part_names = read(pictures, half, shrink)
        images.append(part)
        names += part_names
    known = {name for part in read_split(SPLIT_FILE).values() for name in part}
    if set(names) != known or len(set(names)) != len(names):
        strange = sorted(set(names) - known) or sorted(name for name in known if names.count(name) != 1)
        raise DataError(f"{root}: {strange[0]!r} is not the name of a character of Omniglot, or there twice")
    prepared = prepare(np.concatenate(images), names)
    if prepared.sha256 != PREPARED_SHA256:  # the source is right, so a step above is not
        raise DataError(
            f"{root}: prepared images hash to {prepared.sha256}, not {PREPARED_SHA256}; a bug, please report"
        )
    return prepared


def _download(root: Path, found: Found) -> None:
    """Let torchvision put both archives and folders under ``root``.

    Args:
        found: what is there and does not do.
    Raises:
        DataMissing: it did not work; the message says what to do instead.
    """

    def fetch(folder: Path) -> None:
        from torchvision.datasets import Omniglot as Downloader  # takes a second, hardly ever needed

        for background in (True, False):
            Downloader(str(folder), background=background, download=True)

    try:
        download(fetch, root, "omniglot-py")
    except DataMissing as error:
        raise _missing(root, found, str(error)) from error
    if not find(root, HALVES).halves:
        raise _missing(root, found, "another process tried just now")


def _missing(root: Path, found: Found, reason: str) -> DataMissing:
    above = _above(root, *(half.name for half in HALVES))
    seen = f"; seen: {found}; {ACCEPTED}" if found.seen else ""
    return DataMissing(
        f"Omniglot is not under {root}{above} and was not downloaded ({reason}){seen}; "
        f"put images_background.zip and images_evaluation.zip from {SOURCE} there, or use --dataset glyphs"
    )


def _above(root: Path, *names: str) -> str:
    """Say if what is missing lies beside ``root`` or above, which is then a folder of it."""
    for folder in list(root.absolute().parents)[:2]:
        for half in HALVES:
            if half.name in names and any(os.path.exists(place) for place in places(folder, half)):  # noqa: PTH110  # Path.exists may raise
                return f" (it is in {folder}: give that as --data-root)"
    return ""
