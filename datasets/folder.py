"""Folder: pictures of one's own, in a folder per class, brought to one size."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from bench.api import SPLITS, BenchError, DataError, Dataset
from bench.registry import register_dataset
from bench.system.files import write_atomic
from bench.system.load import cores
from bench.tasks.imagecache import Prepared, cached, prepare, writable
from bench.tasks.images import ImageSet
from bench.tasks.pictures import RULE, Reading, picture_size, read_picture
from datasets.folder_layout import Layout, find

_SHOWN = 5  # broken pictures in a message
_SAMPLE = 32  # pictures that are asked for their size


@register_dataset("folder")
@dataclass(frozen=True)
class Folder(Dataset):
    """Pictures under ``--data-root``: a folder per class, split by folders, by lists, or by a hash of the names.

    Attributes:
        image_size: height and width, in pixels, that every picture is brought to.
        channels: 3 for red, green and blue, 1 for grey; none: 3 if any picture has colour.
        fit: cut off what stands out of a square, pad to a square, or stretch.
    """

    image_size: int = 84
    channels: int | None = None
    fit: Literal["crop", "pad", "stretch"] = "crop"

    paper = "your own pictures"
    licence = "yours"

    def __post_init__(self) -> None:
        """Refuse options that make no picture.

        Raises:
            ValueError: one is out of range.
        """
        if not 4 <= self.image_size <= 1024:
            raise ValueError(f"image_size {self.image_size}; accepted: 4 to 1024")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels {self.channels}; accepted: none, 1, 3")

    def load(self, root: Path, cache: Path) -> ImageSet:
        """Return all classes, uint8 ``[images, C, H, W]`` each, prepared once for as long as no file changes.

        Args:
            root: holds the pictures; nothing is written there.
            cache: keeps the prepared pictures and, beside them, which class is in which split.
        Raises:
            DataMissing: ``root`` is not there or holds no picture.
            DataError: its form is unknown, or pictures cannot be read or are blank; names them.
        """
        layout = find(root)
        names = sorted(layout.classes)
        kind = f"{self.image_size} x {self.image_size}, {self.fit}, channels {self.channels or 'as found'}"
        pipeline = f"folder 1: {kind}; {RULE}; bilinear"
        notes = [*layout.told, *self._enlarged(layout)]
        prepared = cached(
            "folder", f"{pipeline}; files {_fingerprint(root, layout)}", (cache,), lambda: self._prepare(layout)
        )
        number = {name: i for i, name in enumerate(names)}
        splits = {split: tuple(number[name] for name in layout.splits[split]) for split in SPLITS}
        if writable(cache):
            _write_splits(cache / f"folder-{prepared.sha256[:12]}-splits.csv", layout)
        classes = torch.from_numpy(prepared.images).split(list(prepared.counts))
        return ImageSet(
            "folder", classes, prepared.class_names, splits, f"{pipeline}; {layout.form}", prepared.sha256,
            ("none",), self._reading(prepared.images.shape[1]), tuple(notes),
        )  # fmt: skip

    def _reading(self, channels: int) -> Reading:
        return Reading(channels, self.image_size, self.image_size, self.fit)

    def _enlarged(self, layout: Layout) -> list[str]:
        """Return a line if most pictures, judged by some, are smaller than what they are brought to."""
        files = [files[0] for files in layout.classes.values()]
        sizes = [size for file in files[:: 1 + len(files) // _SAMPLE] if (size := picture_size(file))]
        usual = statistics.median_low(min(size) for size in sizes) if sizes else self.image_size
        if usual >= self.image_size:
            return []
        return [f"half of the pictures are {usual} pixels high or wide, or less, and are enlarged to {self.image_size},"
                f" which makes training slower and no better; --set image_size={usual} is faster"]  # fmt: skip

    def _prepare(self, layout: Layout) -> Prepared:
        """Return all pictures as one array, read by all cores."""
        names = sorted(layout.classes)
        files = [file for name in names for file in layout.classes[name]]
        images = np.empty((len(files), self.channels or 3, self.image_size, self.image_size), np.uint8)
        reading = self._reading(images.shape[1])

        def fill(place: int) -> str | None:
            try:
                images[place] = read_picture(files[place], reading)
            except BenchError as error:
                return str(error)
            except Exception as error:  # one picture's, of thousands
                return f"{files[place]}: {type(error).__name__}: {error}"
            return None

        with ThreadPoolExecutor(cores()) as pool:  # decoders let go of Python's lock
            told = tqdm(pool.map(fill, range(len(files))), "pictures", len(files), disable=None, leave=False)
            broken = [line for line in told if line]
        if broken:
            more = f"; and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
            raise DataError(f"{'; '.join(broken[:_SHOWN])}{more}. Mend these files, or take them out")
        if self.channels is None and (images == images[:, :1]).all():
            images = images[:, :1]
        return prepare(images, names, [len(layout.classes[name]) for name in names])


def _fingerprint(root: Path, layout: Layout) -> str:
    """Return a hash over which files there are and where, and all that changes when one is written or moved."""
    digest = hashlib.sha256(os.fsencode(os.path.realpath(root)))
    for name in sorted(layout.classes):
        for file in layout.classes[name]:
            try:
                facts = file.stat()
            except OSError as error:
                raise DataError(f"{file}: {error.strerror}") from error
            known = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
            digest.update(os.fsencode(f"{name}/{file.relative_to(root)} {known}\n"))
    return digest.hexdigest()[:16]


def _write_splits(path: Path, layout: Layout) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["split", "class", "images"])
    table.writerows((s, name, len(layout.classes[name])) for s in SPLITS for name in layout.splits[s])
    write_atomic(path, text.getvalue())
