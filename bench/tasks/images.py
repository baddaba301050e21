"""Data sets of images: their classes held whole in memory, and the tasks of N classes drawn from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import BenchError, Bits, Drawn, Episode, Objective, TaskPool, TaskSource
from bench.tasks.counter import below, distinct, permutations

ROTATIONS = ("pooled", "per_class", "none")

_CLASSES, _ROTATIONS, _IMAGES = range(3)  # purposes: one family of counters each


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


@dataclass(frozen=True)
class TaskIndices:
    """Which images T tasks hold: ``classes [T, N]`` (numbers in the data set), ``rotations [T, N]`` in quarter
    turns, ``images [T, N, K+Q]`` within the class, the first K of them support. Position in N is the label.
    """

    classes: Tensor
    rotations: Tensor
    images: Tensor


class ImagePool(TaskPool):
    """The images of one split, held on the device as uint8 ``[classes, rotations, images_per_class, H, W]``."""

    def __init__(self, source: ImageSet, split: str, rotation: str, device: torch.device) -> None:
        super().__init__(source, split, rotation, device)
        owned = sorted(source.splits[split])
        self.classes = torch.tensor(owned, device=device)
        chosen = source.images[owned].to(device)
        turns = range(1 if rotation == "none" else 4)
        self.images = torch.stack([torch.rot90(chosen, turn, dims=(-2, -1)) for turn in turns], dim=1).contiguous()
        self._labels = cache(lambda n_way, k: torch.arange(n_way, device=device).repeat_interleave(k))

    def indices(self, bits: Bits, episode: Episode) -> TaskIndices:
        """Return which images the tasks of the random bits hold."""
        row, turns, images = self._draw(bits, episode)
        return TaskIndices(self.classes[row], turns, images)

    def draw(self, bits: Bits, episode: Episode) -> Drawn:
        """Return the tasks, their parts being the places of their images among all of the pool's.

        Support ``[T, N*K]`` and query ``[T, N*Q]`` apart, so that each is gathered in one go.
        """
        row, turns, images = self._draw(bits, episode)
        n_turns, n_images = self.images.shape[1:3]
        places = (row * n_turns + turns)[..., None] * n_images + images  # [T, N, K+Q]
        support, query = places.split((episode.k_shot, episode.k_query), dim=2)
        for k in (episode.k_shot, episode.k_query):
            self._labels(episode.n_way, k)  # made here, where no step is captured
        rows = torch.cat([self.classes[row], turns, images.flatten(1)], dim=1)
        return Drawn(rows, (support.flatten(1), query.flatten(1)))

    def _draw(self, bits: Bits, episode: Episode) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``row [T, N]`` into the pool's classes, ``turns [T, N]`` and ``images [T, N, K+Q]``."""
        n_classes, n_turns, n_images = self.images.shape[:3]
        if self.rotation == "pooled":
            drawn = distinct(bits(_CLASSES, episode.n_way), n_classes * n_turns)
            row, turns = drawn // n_turns, drawn % n_turns
        else:
            row = distinct(bits(_CLASSES, episode.n_way), n_classes)
            turns = below(bits(_ROTATIONS, episode.n_way), n_turns)
        keys = bits(_IMAGES, episode.n_way * n_images)
        images = permutations(keys.view(-1, episode.n_way, n_images))[..., : episode.k_shot + episode.k_query]
        return row, turns, images

    def examples(
        self, parts: tuple[Tensor, ...], episode: Episode, dtype: torch.dtype
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return images ``[T, n, 1, H, W]`` in [0, 1] and labels ``[T, n]`` int64, classes in label order."""

        def part(places: Tensor, k: int) -> tuple[Tensor, Tensor]:
            images = self.images.flatten(0, 2)[places]  # [T, n, H, W]
            x = images.unsqueeze(2).to(dtype).div_(255)
            return x, self._labels(episode.n_way, k).expand(len(places), -1)

        support, query = parts
        return part(support, episode.k_shot), part(query, episode.k_query)
