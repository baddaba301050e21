"""Data sets of images: their classes held whole in memory, and the tasks of N classes drawn from them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import SPLITS, BenchError, Episode, Objective, TaskSource
from bench.tasks.drawing import ImagePool

ROTATIONS = ("pooled", "per_class", "none")


class Classification(Objective):
    """Cross-entropy in nats to train on, the share of right answers to measure."""

    measure: ClassVar = "accuracy"
    kind: ClassVar = "acc"

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the cross-entropy of every example, ``[T, n]``, in nats."""
        return F.cross_entropy(outputs.flatten(0, 1), y.flatten(), reduction="none").view(y.shape)

    def score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return 1 where the highest score is that of the right class, else 0, and NaN where a score is not finite.

        The highest of scores that ran away would be the first, which is right once in n_way times.
        """
        right = (outputs.argmax(dim=-1) == y).double()
        return right.masked_fill(~outputs.isfinite().all(dim=-1), math.nan)


@dataclass(frozen=True)
class ImageSet(TaskSource):
    """Every class of a data set, held whole in memory.

    ``images`` is uint8 ``[classes, images_per_class, H, W]`` with ink 255 on 0; ``splits`` maps each of SPLITS to
    the classes it owns; ``pipeline`` names how the pixels were made and ``sha256`` is a hash over ``images``.
    """

    name: str
    images: Tensor
    class_names: tuple[str, ...]
    splits: Mapping[str, tuple[int, ...]]
    pipeline: str
    sha256: str
    objective: ClassVar[Objective] = Classification()

    @property
    def split_sha256(self) -> str:
        """Return a hash over the names of the classes of each split."""
        lines = [f"{split} {self.class_names[place]}" for split in SPLITS for place in self.splits[split]]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (channels, height, width) of an image."""
        return (1, self.images.shape[2], self.images.shape[3])

    def check(self, split: str, rotation: str, episode: Episode) -> None:
        """Refuse an episode that the characters of a split cannot fill.

        Raises:
            BenchError: more ways than classes, or more images per class than there are.
        """
        n_classes, n_images, pool = len(self.splits[split]), self.images.shape[1], f"{self.name}/{split}"
        ways = n_classes * 4 if rotation == "pooled" else n_classes
        if not 2 <= episode.n_way <= ways:
            raise BenchError(f"n_way {episode.n_way}: {pool} has {ways} classes; accepted: 2 to {ways}")
        if episode.k_shot + episode.k_query > n_images:
            raise BenchError(
                f"k_shot {episode.k_shot} + k_query {episode.k_query} is more than the {n_images} images per class"
                f" of {pool}; accepted: a sum of at most {n_images}"
            )

    def pool(self, split: str, rotation: str, device: torch.device) -> ImagePool:
        """Return the images of one of SPLITS on the device."""
        return ImagePool(self, split, rotation, device)
