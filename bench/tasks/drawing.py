"""How a task is drawn: which classes, rotations and images it holds, as a function of its random bits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bench.api import Bits, Drawn, Episode, TaskPool
from bench.tasks.counter import below, distinct, permutations

if TYPE_CHECKING:
    from bench.tasks.images import ImageSet

_CLASSES, _ROTATIONS, _IMAGES = range(3)  # purposes: one family of counters each
_SHUFFLED = 128  # images of a class up to which all are shuffled to draw some; beyond, sorting them all would show
_AT_ONCE = 512  # pictures turned


def grey_levels(device: torch.device) -> dict[torch.dtype, Tensor]:
    """Return what each of the 256 values of a pixel is in [0, 1], as a CPU divides, by type.

    A card divides by a number by multiplying with its inverse, which differs in the last bit.
    """
    return {dtype: torch.arange(256, dtype=dtype).div_(255).to(device) for dtype in (torch.float32, torch.float64)}


def turned(pictures: Tensor, turns: int) -> Tensor:
    """Return pictures ``[images, C, H, W]``, then the same a quarter turned, and so on, ``[turns * images, C, H, W]``.

    NumPy writes each byte once, to where it goes, few enough pictures at a time that a core's cache holds them.
    """
    given = pictures.numpy()
    result = np.empty((turns, *given.shape), given.dtype)
    for start in range(0, len(given), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        for turn in range(turns):
            result[turn, some] = np.rot90(given[some], turn, axes=(-2, -1))
    return torch.from_numpy(result).flatten(0, 1)


@dataclass(frozen=True)
class TaskIndices:
    """Which images T tasks hold: ``classes [T, N]`` (numbers in the data set), ``rotations [T, N]`` in quarter
    turns, ``images [T, N, K+Q]`` within the class, the first K of them support. Position in N is the label.
    """

    classes: Tensor
    rotations: Tensor
    images: Tensor


class ImagePool(TaskPool):
    """The images of one split, held on the device as uint8 ``[turns * images, C, H, W]``, class after class.

    Images that are not turned and are on the device already are the data set's own, not copied.
    """

    def __init__(self, source: ImageSet, split: str, rotation: str, device: torch.device) -> None:
        super().__init__(source, split, rotation, device)
        owned = sorted(source.splits[split])
        counts = [source.counts[c] for c in owned]
        self.classes = torch.tensor(owned, device=device)
        self.counts = torch.tensor(counts, device=device)
        self.turns = 1 if rotation == "none" else 4
        if self.turns == 1 and source.pixels.device == device:
            self.pixels, starts = source.pixels, [source.starts[c] for c in owned]
        else:
            own = torch.cat([source.of_class(c) for c in owned])
            self.pixels = (own if self.turns == 1 else turned(own, self.turns)).to(device)
            starts = [sum(counts[:i]) for i in range(len(counts))]
        self.starts = torch.tensor(starts, device=device)
        self._shuffled = counts[0] if len(set(counts)) == 1 and counts[0] <= _SHUFFLED else 0
        self._labels = cache(lambda n_way, k: torch.arange(n_way, device=device).repeat_interleave(k))
        self._levels = {} if self.pixels.device.type == "cpu" else grey_levels(self.pixels.device)
        self._enough = cache(lambda n_images: (self.counts >= n_images).nonzero().flatten())

    def indices(self, bits: Bits, episode: Episode) -> TaskIndices:
        """Return which images the tasks of the random bits hold."""
        row, turns, images = self._draw(bits, episode)
        return TaskIndices(self.classes[row], turns, images)

    def draw(self, bits: Bits, episode: Episode) -> Drawn:
        """Return the tasks, their parts being the places of their images among all of the pool's, and their classes.

        Support ``[T, N*K]`` and query ``[T, N*Q]`` apart, so that each is gathered in one go.
        """
        row, turns, images = self._draw(bits, episode)
        classes = turns * len(self.classes) + row  # [T, N]
        places = (turns * (len(self.pixels) // self.turns) + self.starts[row])[..., None] + images  # [T, N, K+Q]
        support, query = places.split((episode.k_shot, episode.k_query), dim=2)
        for k in (episode.k_shot, episode.k_query):
            self._labels(episode.n_way, k)  # made here, where no step is captured
        rows = torch.cat([self.classes[row], turns, images.flatten(1)], dim=1)
        return Drawn(rows, (support.flatten(1), query.flatten(1), classes))

    def _draw(self, bits: Bits, episode: Episode) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``row [T, N]`` into the pool's classes, ``turns [T, N]`` and ``images [T, N, K+Q]``."""
        n_way, n_images = episode.n_way, episode.k_shot + episode.k_query
        enough = self._enough(n_images)
        if self.rotation == "pooled":
            drawn = distinct(bits(_CLASSES, n_way), len(enough) * self.turns)
            row, turns = enough[drawn // self.turns], drawn % self.turns
        else:
            row = enough[distinct(bits(_CLASSES, n_way), len(enough))]
            turns = below(bits(_ROTATIONS, n_way), self.turns)
        if self._shuffled:
            keys = bits(_IMAGES, n_way * self._shuffled)
            return row, turns, permutations(keys.view(-1, n_way, self._shuffled))[..., :n_images]
        keys = bits(_IMAGES, n_way * n_images).reshape(-1, n_images)
        return row, turns, distinct(keys, self.counts[row].view(-1, 1)).view(-1, n_way, n_images)

    def examples(
        self, parts: tuple[Tensor, ...], episode: Episode, dtype: torch.dtype
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return images ``[T, n, C, H, W]`` in [0, 1] and labels ``[T, n]`` int64, classes in label order."""

        def part(places: Tensor, k: int) -> tuple[Tensor, Tensor]:
            pixels = self.pixels[places]
            x = self._levels[dtype][pixels.int()] if dtype in self._levels else pixels.to(dtype).div_(255)
            return x, self._labels(episode.n_way, k).expand(len(places), -1)

        support, query, _ = parts
        return part(support, episode.k_shot), part(query, episode.k_query)

    def classes_of(self, parts: tuple[Tensor, ...]) -> Tensor:
        """Return the number of each label's class, ``[T, N]``, images that are turned counted apart."""
        return parts[2]
