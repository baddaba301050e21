"""How a task is drawn: which classes, rotations and images it holds, as a function of its random bits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.api import Bits, Drawn, Episode, TaskPool
from bench.tasks.counter import below, distinct, permutations

if TYPE_CHECKING:
    from bench.tasks.images import ImageSet

_CLASSES, _ROTATIONS, _IMAGES = range(3)  # purposes: one family of counters each


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
