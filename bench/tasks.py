"""Task streams: task i is a pure function of (data set, split, episode shape, seed, i), the same for everybody."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import record_function

from bench.api import BenchError, Examples, ImageSet, TaskBatch
from bench.counter import below, distinct, key_from, permutations, random_bits

ROTATIONS = ("pooled", "per_class", "none")
DATA = "bench: data"  # what a profile calls the drawing of tasks

_CLASSES, _ROTATIONS, _IMAGES, _ORDERS = range(4)  # purposes: one family of counters each; orders continue upwards
_BLOCK = 256  # tasks drawn at once: enough that the cost of drawing does not show in the step time


@dataclass(frozen=True)
class Episode:
    """The shape of a task: n_way classes with k_shot support and k_query query images each."""

    n_way: int
    k_shot: int
    k_query: int


def check_episode(episode: Episode, pool: str, rotation: str, n_classes: int, n_images: int) -> None:
    """Refuse an episode that a pool of ``n_classes`` characters with ``n_images`` each cannot fill.

    Raises:
        BenchError: more ways than classes, or more images per class than there are.
    """
    ways = n_classes * 4 if rotation == "pooled" else n_classes
    if not 2 <= episode.n_way <= ways:
        raise BenchError(f"n_way {episode.n_way}: {pool} has {ways} classes; accepted: 2 to {ways}")
    if episode.k_shot + episode.k_query > n_images:
        raise BenchError(
            f"k_shot {episode.k_shot} + k_query {episode.k_query} is more than the {n_images} images per class"
            f" of {pool}; accepted: a sum of at most {n_images}"
        )


@dataclass(frozen=True)
class TaskIndices:
    """Which images T tasks hold: ``classes [T, N]`` (numbers in the data set), ``rotations [T, N]`` in quarter
    turns, ``images [T, N, K+Q]`` within the class, the first K of them support. Position in N is the label.
    """

    classes: Tensor
    rotations: Tensor
    images: Tensor

    def __getitem__(self, part: slice) -> TaskIndices:
        """Return the tasks of a slice."""
        return TaskIndices(self.classes[part], self.rotations[part], self.images[part])

    def digest_into(self, digest: hashlib._Hash) -> None:
        """Feed the tasks to a hash, one little-endian int32 row each, so that batching does not show in it."""
        rows = torch.cat([self.classes, self.rotations, self.images.flatten(1)], dim=1)
        digest.update(rows.to("cpu", torch.int32).numpy().astype("<i4").tobytes())


class ImagePool:
    """The images of one split, held on the device as uint8 ``[classes, rotations, images_per_class, H, W]``."""

    def __init__(self, images: ImageSet, split: str, rotation: str, device: torch.device) -> None:
        self.name = f"{images.name}/{split}/{rotation}"
        self.rotation = rotation
        owned = sorted(images.splits[split])
        self.classes = torch.tensor(owned, device=device)
        chosen = images.images[owned].to(device)
        turns = range(1 if rotation == "none" else 4)
        self.images = torch.stack([torch.rot90(chosen, turn, dims=(-2, -1)) for turn in turns], dim=1).contiguous()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (channels, height, width) of an image."""
        return (1, *self.images.shape[-2:])


class TaskStream:
    """An endless, random-access sequence of tasks from one pool of images.

    Args:
        pool: the images, on the device where the tasks are wanted.
        episode: the shape of every task.
        seed: in 0..2**32-1.
    Raises:
        BenchError: more ways than classes, or more images per class than there are.
    """

    def __init__(self, pool: ImagePool, episode: Episode, seed: int) -> None:
        self.pool, self.episode = pool, episode
        n_classes, _, n_images = pool.images.shape[:3]
        check_episode(episode, pool.name, pool.rotation, n_classes, n_images)
        shape = f"{episode.n_way} way, {episode.k_shot} shot, {episode.k_query} query"
        self.key = key_from(seed, f"{pool.name}: {shape}")
        self._block = functools.lru_cache(maxsize=2)(self._draw_block)

    def indices(self, start: int, count: int) -> TaskIndices:
        """Return which images the tasks start..start+count-1 hold."""
        blocks = range(start // _BLOCK, (start + count - 1) // _BLOCK + 1)
        parts = []
        for b in blocks:
            first = b * _BLOCK
            parts.append(self._block(b)[max(start - first, 0) : min(start + count - first, _BLOCK)])
        if len(parts) == 1:
            return parts[0]
        return TaskIndices(
            torch.cat([p.classes for p in parts]),
            torch.cat([p.rotations for p in parts]),
            torch.cat([p.images for p in parts]),
        )

    def batch(self, start: int, count: int) -> TaskBatch:
        """Return the tasks start..start+count-1 with their images.

        Support ``x [T, N*K, 1, H, W]`` float32 in [0, 1] and ``y [T, N*K]`` int64, classes in label order; query
        alike with N*Q.
        """
        with record_function(DATA):
            return self._batch(start, count)

    def _batch(self, start: int, count: int) -> TaskBatch:
        tasks, shape = self.indices(start, count), self.episode
        row = torch.searchsorted(self.pool.classes, tasks.classes)[..., None]
        x = self.pool.images[row, tasks.rotations[..., None], tasks.images]  # [T, N, K+Q, H, W]
        x = x.unsqueeze(3).float().div_(255)
        labels = torch.arange(shape.n_way, device=x.device)
        number = torch.arange(start, start + count, device=x.device)

        def part(x: Tensor, k: int) -> Examples:
            y = labels.repeat_interleave(k).expand(count, -1)
            return Examples(x.flatten(1, 2), y, functools.partial(self._orders, number))

        return TaskBatch(part(x[:, :, : shape.k_shot], shape.k_shot), part(x[:, :, shape.k_shot :], shape.k_query))

    def _draw_block(self, block: int) -> TaskIndices:
        pool, shape = self.pool, self.episode
        number = torch.arange(block * _BLOCK, (block + 1) * _BLOCK, device=pool.images.device)
        n_classes, n_turns, n_images = pool.images.shape[:3]
        if pool.rotation == "pooled":
            drawn = distinct(random_bits(self.key, _CLASSES, number, shape.n_way), n_classes * n_turns)
            row, turns = drawn // n_turns, drawn % n_turns
        else:
            row = distinct(random_bits(self.key, _CLASSES, number, shape.n_way), n_classes)
            turns = below(random_bits(self.key, _ROTATIONS, number, shape.n_way), n_turns)
        bits = random_bits(self.key, _IMAGES, number, shape.n_way * n_images)
        images = permutations(bits.view(_BLOCK, shape.n_way, n_images))[..., : shape.k_shot + shape.k_query]
        return TaskIndices(pool.classes[row], turns, images.contiguous())

    def _orders(self, number: Tensor, passes: int, n: int) -> Tensor:
        with record_function(DATA):
            bits = [random_bits(self.key, _ORDERS + p, number, n) for p in range(passes)]
            return permutations(torch.stack(bits, dim=1))  # [T, passes, n]
