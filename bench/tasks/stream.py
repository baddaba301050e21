"""Task streams: task i is a pure function of (data set, split, episode shape, seed, i), the same for everybody."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import record_function

from bench.api import Bits, Drawn, Episode, Examples, TaskBatch, TaskPool
from bench.tasks.corruption import Corrupted
from bench.tasks.counter import key_from, permutations, random_bits

DATA = "bench: data"  # what a profile calls the drawing of tasks

_ORDERS = 3  # the purpose of the bits behind minibatch orders; they continue upwards, those below are the data set's
# Tasks drawn at once: enough that the cost of drawing, some hundred small kernels, does not show in the step time.
_BLOCK = {"cpu": 256, "cuda": 4096}


class TaskStream:
    """An endless, random-access sequence of tasks from one pool.

    Args:
        pool: what the tasks are drawn from, on the device where they are wanted.
        episode: the shape of every task.
        seed: in 0..2**32-1.
        corrupted: what is done to the images of every task, which stay those of the stream without it.
    Raises:
        BenchError: the pool cannot fill the episode, or its data cannot be corrupted so.
    """

    dtype = torch.float32
    """Of all that is floating in the examples."""

    def __init__(self, pool: TaskPool, episode: Episode, seed: int, corrupted: Corrupted | None = None) -> None:
        self.pool, self.episode, self.device, self.corrupted = pool, episode, pool.device, corrupted
        self.objective = pool.source.objective
        pool.source.check(pool.split, pool.rotation, episode)
        if corrupted is not None:
            corrupted.check(pool.source)
        shape = f"{episode.n_way} way, {episode.k_shot} shot, {episode.k_query} query"
        self.key = key_from(seed, f"{pool.name}: {shape}")
        self._corruption_key = key_from(seed, f"corruption of {pool.name}: {shape}")
        self.block = _BLOCK[self.device.type]
        self._window = TaskWindow(self, self.block)

    def digest(self, count: int) -> str:
        """Return a sha256 over what the first ``count`` tasks hold: a row of little-endian int32 each."""
        digest = hashlib.sha256()
        for start in range(0, count, self.block):
            rows = self.draw(self.numbers(start, min(self.block, count - start))).rows
            digest.update(rows.to("cpu", torch.int32).numpy().astype("<i4").tobytes())
        return digest.hexdigest()

    def batch(self, start: int, count: int) -> TaskBatch:
        """Return the tasks start..start+count-1 with their examples."""
        if count > self._window.size:
            self._window = TaskWindow(self, count)
        self._window.hold(start, count)
        number = self.numbers(start, count)
        return self._window.batch(number, functools.partial(self.orders, number))

    def numbers(self, start: int, count: int) -> Tensor:
        """Return start..start+count-1 on the device."""
        return torch.arange(start, start + count, device=self.device)

    def bits(self, number: Tensor) -> Bits:
        """Return the random bits of the tasks of the numbers ``[T]``."""
        return lambda purpose, n: random_bits(self.key, purpose, number, n)

    def draw(self, number: Tensor) -> Drawn:
        """Return the tasks of the numbers ``[T]``."""
        return self.pool.draw(self.bits(number), self.episode)

    def examples(
        self, number: Tensor, parts: tuple[Tensor, ...]
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return (x, y) of support and of query for the tasks of the numbers ``[T]``, corrupted where that is asked."""
        sets = support, query = self.pool.examples(parts, self.episode, self.dtype)
        if self.corrupted is None:
            return sets

        def bits(purpose: int, n: int) -> Tensor:
            return random_bits(self._corruption_key, purpose, number, n)

        return (
            (self.corrupted.images(support[0], bits, query=False), support[1]),
            (self.corrupted.images(query[0], bits, query=True), query[1]),
        )

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
        self._held: int | None = None  # the number of the first task, as the host knows it
        self._first = torch.zeros((), dtype=torch.long, device=stream.device)
        self._parts: tuple[Tensor, ...] = ()
        self._orders: dict[tuple[int, int], Tensor] = {}

    def hold(self, start: int, count: int) -> None:
        """See to it that the tasks start..start+count-1 are here; draws only if one of them is not."""
        if count > self.size:
            raise ValueError(f"{count} tasks are wanted at once; this window holds {self.size}")
        if self._held is not None and self._held <= start and start + count <= self._held + self.size:
            return
        with record_function(DATA):
            self._draw(start)

    def _draw(self, start: int) -> None:
        number = self.stream.numbers(start, self.size)
        parts = self.stream.draw(number).parts
        if not self._parts:
            self._parts = tuple(torch.empty_like(part, memory_format=torch.contiguous_format) for part in parts)
        for held, new in zip(self._parts, parts, strict=True):
            held.copy_(new)
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
            parts = tuple(part[local] for part in self._parts)
            support, query = self.stream.examples(number, parts)
            n_way, classes = self.stream.episode.n_way, self.stream.pool.classes_of(parts)
            return TaskBatch(Examples(*support, orders, n_way, classes), Examples(*query, orders, n_way, classes))

    def _held_orders(self, local: Tensor, held: int | None, passes: int, n: int) -> Tensor:
        if held is None or held != self._held:
            raise RuntimeError("minibatch orders were asked for after the window had moved on")
        if (passes, n) not in self._orders:
            if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
                raise RuntimeError(f"{passes} orders of {n} examples are first asked for while a step is captured")
            self._orders[passes, n] = self.stream.orders(self.stream.numbers(held, self.size), passes, n)
        return self._orders[passes, n][local]
