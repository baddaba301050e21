"""CIFAR-FS: the hundred classes of CIFAR-100, in colour, cut into meta-splits by Bertinetto et al."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.api import SPLITS, DataError, DataMissing, Dataset
from bench.registry import register_dataset
from bench.tasks.download import download
from bench.tasks.imagecache import Prepared, cached, prepare
from bench.tasks.images import ImageSet
from bench.tasks.pictures import Reading

PER_CLASS, SIDE = 600, 32
PIPELINE = "cifar-fs 1: CIFAR-100, classes by name, training images before test images; 32 x 32 RGB"
FOLDER, ARCHIVE = "cifar-100-python", "cifar-100-python.tar.gz"

META_VAL = (
    *("beaver", "beetle", "butterfly", "camel", "cattle", "crab", "crocodile", "flatfish", "lamp", "maple_tree"),
    *("motorcycle", "otter", "sea", "shark", "television", "tractor"),
)
META_TEST = (
    *("baby", "bed", "bicycle", "chimpanzee", "fox", "leopard", "man", "pickup_truck", "plain", "poppy", "rocket"),
    *("rose", "snail", "sweet_pepper", "table", "telephone", "wardrobe", "whale", "woman", "worm"),
)
"""Of the published split; the 64 others train."""


@register_dataset("cifar-fs")
class CifarFS(Dataset):
    """CIFAR-100 at 32 x 32 in colour, split by class into 64 meta_train, 16 meta_val and 20 meta_test."""

    paper = "Bertinetto et al. 2019, arXiv:1805.08136; images of Krizhevsky 2009"
    licence = "CIFAR-100, not stated; cite Krizhevsky 2009"

    def load(self, root: Path, cache: Path) -> ImageSet:
        """Return the hundred classes, uint8 ``[100, 600, 3, 32, 32]``: from the cache, from files, or from the network.

        Args:
            root: holds ``cifar-100-python`` or its archive; what is downloaded goes here, and the cache file.
            cache: where the cache file goes if ``root`` cannot be written.
        Raises:
            DataMissing: nothing is under ``root`` and the download did not work.
            DataError: what is there is not CIFAR-100.
        """
        folders = (root, cache) if root.exists() else (root,)
        prepared = cached("cifar-fs", PIPELINE, folders, lambda: _prepare(root))
        owners = {"meta_val": META_VAL, "meta_test": META_TEST}
        owners["meta_train"] = tuple(set(prepared.class_names) - {*META_VAL, *META_TEST})
        number = {name: i for i, name in enumerate(prepared.class_names)}
        splits = {split: tuple(sorted(number[name] for name in owners[split])) for split in SPLITS}
        images = torch.from_numpy(prepared.images)
        reading = Reading(3, SIDE, SIDE)
        return ImageSet("cifar-fs", images, prepared.class_names, splits, PIPELINE, prepared.sha256, ("none",), reading)


def _prepare(root: Path) -> Prepared:
    """Return the images of both of CIFAR-100's parts by class, unpacked or downloaded first if need be."""
    from torchvision.datasets import CIFAR100  # takes a second, and only once

    def fetch(folder: Path) -> None:
        if (root / ARCHIVE).exists():
            shutil.copyfile(root / ARCHIVE, folder / ARCHIVE)
        CIFAR100(str(folder), download=True)

    if not (root / FOLDER).is_dir():
        try:
            download(fetch, root, FOLDER)
        except DataMissing as error:
            raise DataMissing(
                f"CIFAR-100 is not under {root} and could not be downloaded ({error}); put {ARCHIVE} from"
                " https://www.cs.toronto.edu/~kriz/cifar.html there"
            ) from error
    try:
        parts = [CIFAR100(str(root), train=train) for train in (True, False)]
    except Exception as error:  # of a pickle that is none, anything
        reason = " ".join(str(error).split())
        raise DataError(
            f"{root / FOLDER}: is not CIFAR-100 as torchvision has it ({reason}); remove it to download it"
        ) from error
    names = list(parts[0].classes)
    pixels: NDArray[np.uint8] = np.concatenate([part.data for part in parts])  # [60000, 32, 32, 3]
    labels = np.concatenate([np.asarray(part.targets) for part in parts])
    counts = np.bincount(labels, minlength=len(names))
    if set(counts.tolist()) != {PER_CLASS} or not {*META_VAL, *META_TEST} <= set(names) or len(names) != 100:
        raise DataError(f"{root / FOLDER}: holds {len(names)} classes of {counts.min()} to {counts.max()} images; "
                        f"CIFAR-100 has 100 of {PER_CLASS}")  # fmt: skip
    order = sorted(range(len(names)), key=names.__getitem__)
    images = np.stack([pixels[labels == label] for label in order]).transpose(0, 1, 4, 2, 3)
    return prepare(images, [names[label] for label in order])
