"""Task streams: task i is a pure function of (data set, split, episode shape, seed, i), the same for everybody."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import record_function

from bench.api import BenchError, Examples, ImageSet, TaskBatch
from bench.counter import below, distinct, key_from, permutations, random_bits

ROTATIONS = ("pooled", "per_class", "none")
DATA = "bench: data"  # what a profile calls the drawing of tasks

_CLASSES, _ROTATIONS, _IMAGES, _ORDERS = range(4)  # purposes: one family of counters each; orders continue upwards
# Tasks drawn at once: enough that the cost of drawing, some hundred small kernels, does not show in the step time.
_BLOCK = {"cpu": 256, "cuda": 4096}


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


@dataclass(frozen=True)
class _Drawn:
    """T tasks as drawn: ``row [T, N]`` into the pool's classes, ``turns [T, N]``, ``images [T, N, K+Q]``."""

    row: Tensor
    turns: Tensor
    images: Tensor


class TaskStream:
    """An endless, random-access sequence of tasks from one pool of images.

    Args:
        pool: the images, on the device where the tasks are wanted.
        episode: the shape of every task.
        seed: in 0..2**32-1.
    Raises:
        BenchError: more ways than classes, or more images per class than there are.
    """

    dtype = torch.float32
    """Of the images."""

    def __init__(self, pool: ImagePool, episode: Episode, seed: int) -> None:
        self.pool, self.episode = pool, episode
        n_classes, _, n_images = pool.images.shape[:3]
        check_episode(episode, pool.name, pool.rotation, n_classes, n_images)
        shape = f"{episode.n_way} way, {episode.k_shot} shot, {episode.k_query} query"
        self.key = key_from(seed, f"{pool.name}: {shape}")
        self.block = _BLOCK[pool.images.device.type]
        self._window = TaskWindow(self, self.block)

    def indices(self, start: int, count: int) -> TaskIndices:
        """Return which images the tasks start..start+count-1 hold."""
        drawn = self.draw(self.numbers(start, count))
        return TaskIndices(self.pool.classes[drawn.row], drawn.turns, drawn.images)

    def batch(self, start: int, count: int) -> TaskBatch:
        """Return the tasks start..start+count-1 with their images.

        Support ``x [T, N*K, 1, H, W]`` float32 in [0, 1] and ``y [T, N*K]`` int64, classes in label order; query
        alike with N*Q.
        """
        if count > self._window.size:
            self._window = TaskWindow(self, count)
        self._window.hold(start, count)
        number = self.numbers(start, count)
        return self._window.batch(number, functools.partial(self.orders, number))

    def numbers(self, start: int, count: int) -> Tensor:
        """Return start..start+count-1 on the device."""
        return torch.arange(start, start + count, device=self.pool.images.device)

    def draw(self, number: Tensor) -> _Drawn:
        """Return the tasks of the numbers ``[T]``."""
        pool, shape = self.pool, self.episode
        n_classes, n_turns, n_images = pool.images.shape[:3]
        if pool.rotation == "pooled":
            drawn = distinct(random_bits(self.key, _CLASSES, number, shape.n_way), n_classes * n_turns)
            row, turns = drawn // n_turns, drawn % n_turns
        else:
            row = distinct(random_bits(self.key, _CLASSES, number, shape.n_way), n_classes)
            turns = below(random_bits(self.key, _ROTATIONS, number, shape.n_way), n_turns)
        bits = random_bits(self.key, _IMAGES, number, shape.n_way * n_images)
        images = permutations(bits.view(-1, shape.n_way, n_images))[..., : shape.k_shot + shape.k_query]
        return _Drawn(row, turns, images.contiguous())

    def orders(self, number: Tensor, passes: int, n: int) -> Tensor:
        """Return the minibatch orders ``[T, passes, n]`` of the tasks of the numbers ``[T]``."""
        bits = [random_bits(self.key, _ORDERS + p, number, n) for p in range(passes)]
        return permutations(torch.stack(bits, dim=1))


class TaskWindow:
    """A stretch of a stream in tensors that stay where they are, so that a captured step can pick its tasks from it.

    Args:
        size: how many tasks it holds at once.
    """

    def __init__(self, stream: TaskStream, size: int) -> None:
        self.stream, self.size = stream, size
        shape, device = stream.episode, stream.pool.images.device
        self._held: int | None = None  # the number of the first task, as the host knows it
        self._first = torch.zeros((), dtype=torch.long, device=device)
        # Of every image its place among all of the pool's: support and query apart, so that each is gathered in one go.
        self._places = [torch.zeros(size, shape.n_way * k, dtype=torch.long, device=device) for k in self._shots]
        labels = torch.arange(shape.n_way, device=device)
        self._labels = [labels.repeat_interleave(k) for k in self._shots]
        self._orders: dict[tuple[int, int], Tensor] = {}

    @property
    def _shots(self) -> tuple[int, int]:
        return self.stream.episode.k_shot, self.stream.episode.k_query

    def hold(self, start: int, count: int) -> None:
        """See to it that the tasks start..start+count-1 are here; draws only if one of them is not."""
        if count > self.size:
            raise ValueError(f"{count} tasks are wanted at once; this window holds {self.size}")
        if self._held is not None and self._held <= start and start + count <= self._held + self.size:
            return
        with record_function(DATA):
            self._draw(start)

    def _draw(self, start: int) -> None:
        n_turns, n_images = self.stream.pool.images.shape[1:3]
        number = self.stream.numbers(start, self.size)
        drawn = self.stream.draw(number)
        places = (drawn.row * n_turns + drawn.turns)[..., None] * n_images + drawn.images  # [B, N, K+Q]
        for held, new in zip(self._places, places.split(self._shots, dim=2)):
            held.copy_(new.flatten(1))
        for (passes, n), held in self._orders.items():
            held.copy_(self.stream.orders(number, passes, n))
        self._held = start
        self._first.fill_(start)

    def batch(self, number: Tensor, orders: Callable[[int, int], Tensor] | None = None) -> TaskBatch:
        """Return the tasks of the numbers ``[T]``, all of which must be held, as ``TaskStream.batch`` does.

        ``orders`` is what their examples offer as such; left out, these are drawn for the whole window at once and
        must be asked for before the window moves on.
        """
        with record_function(DATA):
            local = number - self._first
            orders = orders or functools.partial(self._held_orders, local, self._held)

            def part(places: Tensor, labels: Tensor) -> Examples:
                images = self.stream.pool.images.flatten(0, 2)[places[local]]  # [T, n, H, W]
                x = images.unsqueeze(2).to(self.stream.dtype).div_(255)
                return Examples(x, labels.expand(len(number), -1), orders)

            support, query = map(part, self._places, self._labels)
            return TaskBatch(support, query)

    def _held_orders(self, local: Tensor, held: int | None, passes: int, n: int) -> Tensor:
        if held is None or held != self._held:
            raise RuntimeError("minibatch orders were asked for after the window had moved on")
        if (passes, n) not in self._orders:
            if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
                raise RuntimeError(f"{passes} orders of {n} examples are first asked for while a step is captured")
            self._orders[passes, n] = self.stream.orders(self.stream.numbers(held, self.size), passes, n)
        return self._orders[passes, n][local]
