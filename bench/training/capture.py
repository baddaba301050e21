"""A meta-step captured in a CUDA graph: held against the step itself before it is used, refused with a reason."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch

from bench.training.memory import is_out_of_memory
from bench.training.metastep import PROBES, MetaStep

_ROUNDING = 1e-6  # of a weight, for those that hardly move
TOLERANCE = 0.01  # of what the probes change: a captured step runs the same kernels, so it is mostly the same bits


class CannotCapture(Exception):
    """The step cannot be captured; the message says why."""


@dataclass(frozen=True)
class Replay:
    """A captured step: ``run`` does what it did, using ``peak`` bytes beyond what is allocated between steps."""

    run: Callable[[], object]
    peak: int = 0


class Recorder(Protocol):
    """What captures: CUDA graphs, or a stand-in for tests on a CPU."""

    def warming(self) -> AbstractContextManager[None]:
        """Return a context in which a step runs as it will when captured, and raises if it waits for the device."""

    def capture(self, step: Callable[[], None]) -> Replay:
        """Return the replay of ``step``, which is recorded and not run."""


class CudaRecorder:
    """Captures in CUDA graphs on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    @contextlib.contextmanager
    def warming(self) -> Iterator[None]:
        """Run on the side stream, with an error where the host would wait for the device (``.item()``, say)."""
        with self._aside():
            before = torch.cuda.get_sync_debug_mode()
            with warnings.catch_warnings():  # torch warns, once, that it does not find all such operations
                warnings.simplefilter("ignore", UserWarning)
                torch.cuda.set_sync_debug_mode("error")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode(before)

    def capture(self, step: Callable[[], None]) -> Replay:
        """Return the replay of ``step``, its memory in a pool of the graph's own."""
        index = torch.cuda.current_device()
        generator = torch.cuda.default_generators[index]
        random_state = generator.clone_state()
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        gc.collect()  # nothing on the device should die while the capture is under way
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        held = torch.cuda.memory_allocated(self.device)
        causes: list[Exception] = []
        try:
            # The outer context is there because torch.cuda.graph leaves its stream current when a capture fails.
            with self._aside(), torch.cuda.graph(graph, pool=pool, stream=self.stream):
                try:
                    step()
                except Exception as error:  # noted, because the end of a failed capture raises again on top of it
                    causes.append(error)
                    raise
        except Exception as error:
            # A failed capture leaves the generator refusing to draw and, before torch 2.12 (pull request 180395), the
            # allocator believing that the capture goes on.
            generator.graphsafe_set_state(random_state)
            with contextlib.suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(index, pool)
            cause = causes.pop() if causes else error  # popped: its traceback holds this frame, and that the list
            try:
                raise cause from None
            finally:
                del cause
        return Replay(graph.replay, torch.cuda.max_memory_allocated(self.device) - held)

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        """Make the side stream current, in order with what came before on the present one and what comes after."""
        present = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(present)
        try:
            with torch.cuda.stream(self.stream):
                yield
        finally:
            torch.cuda.set_stream(present)
            present.wait_stream(self.stream)


def capture(step: MetaStep, recorder: Recorder, at: int = 0) -> Replay:
    """Return the captured step, once it has done PROBES meta-steps as the step itself does; the state stays as it was.

    Args:
        at: after how many meta-steps, of whose phase the captured step is.

    Raises:
        CannotCapture: with the reason, in one line.
        RuntimeError, MemoryError: out of memory.
    """
    before = step.snapshot()
    probes = min(PROBES, step.config.meta_steps - at)
    try:
        step.go_to(at)
        step.hold(at, probes)
        with recorder.warming():
            for _ in range(probes):
                step()
        expected = step.snapshot()
        replay = recorder.capture(step)
        step.restore(before)
        step.go_to(at)
        for _ in range(probes):
            replay.run()
        _compare(step, before, expected)
        return replay
    except Exception as error:  # a plugin may raise anything, and so may CUDA
        if isinstance(error, CannotCapture) or is_out_of_memory(error):
            raise
        raise CannotCapture(" ".join(f"{type(error).__name__}: {error}".split())[:200]) from error
    finally:
        step.restore(before)


def _compare(step: MetaStep, before: dict[int, torch.Tensor], expected: dict[int, torch.Tensor]) -> None:
    """Hold weights and losses after the probes against those of the step itself."""
    # All weights together: one whose gradient is rounding noise moves as noise does, which Adam makes large.
    for name, tensors in (("the weights", list(step.slow.values())), ("the loss", [step.losses])):
        got, want, start = (
            torch.cat([t.flatten().double() for t in group])
            for group in (tensors, [expected[id(t)] for t in tensors], [before[id(t)] for t in tensors])
        )
        if not (got - want).norm() <= TOLERANCE * (want - start).norm() + _ROUNDING * want.norm():
            raise CannotCapture(f"a replay does not do what the step does: {name} differ after {PROBES} meta-steps")
