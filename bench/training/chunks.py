"""How many tasks to hold at once: what some thousand small images take on a CPU, what a card holds on a GPU."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable

import torch

from bench.api import TaskLoss, Weights
from bench.system.waiting import one_thread
from bench.tasks.stream import TaskStream
from bench.training.memory import LiveTensors
from bench.training.metastep import MetaStep

log = logging.getLogger("bench")

# On 2 cores conv4 gains from more tasks at once up to here and little beyond, while its memory goes on growing.
CPU_IMAGES = 2_000
USUAL = 320_000  # bytes, twice what conv4 keeps of an image of 28 x 28 on a CPU; a GPU's patches take as much
SHARE = 0.8  # of a card's memory that a run may take: the rest is for what an allocator cannot fill


def default_chunk(stream: TaskStream, meta_batch: int, task_loss: TaskLoss, slow: Weights) -> int:
    """Return how many tasks to hold at once: on a GPU the whole meta-batch, on a CPU equal parts of it."""
    if stream.device.type == "cuda":
        return meta_batch
    images = stream.episode.n_way * (stream.episode.k_shot + stream.episode.k_query)
    return equal_parts(meta_batch, max(1, inputs_at_once(CPU_IMAGES, stream, task_loss, slow) // images))


def inputs_at_once(usual: int, stream: TaskStream, task_loss: TaskLoss, slow: Weights) -> int:
    """Return ``usual``, or as many inputs as keep no more memory, where the network keeps more than USUAL of each."""
    return min(usual, int(usual * USUAL / max(1.0, kept_of_an_input(stream, task_loss, slow))))


_KEPT: weakref.WeakKeyDictionary[TaskLoss, dict[tuple[int, ...], float]] = weakref.WeakKeyDictionary()


@one_thread()
def kept_of_an_input(stream: TaskStream, task_loss: TaskLoss, slow: Weights) -> float:
    """Return how many bytes the network's outputs of one more input leave in memory for their derivative."""
    shape = tuple(stream.pool.source.shape)
    known = _KEPT.setdefault(task_loss, {})
    if shape not in known:
        fast = {name: w.detach()[None].clone().requires_grad_() for name, w in slow.items()}
        dtype = next((w.dtype for w in slow.values()), None)

        def held(n: int) -> int:
            with LiveTensors() as live, torch.enable_grad():
                outputs = task_loss.outputs(fast, torch.zeros(1, n, *shape, dtype=dtype, device=stream.device))
            return live.held if outputs.requires_grad else 0

        try:
            known[shape] = (held(4) - held(2)) / 2
        except Exception as error:  # of a tensor without storage, say: what is measured must cost no run
            log.warning("memory of the network was not counted: %s", error)
            known[shape] = 0.0
    return known[shape]


def equal_parts(meta_batch: int, most: int) -> int:
    """Return the size of the fewest chunks of a meta-batch that are alike and no larger than ``most``."""
    chunks = -(-meta_batch // most)
    return -(-meta_batch // chunks)


def measured_chunk(step: MetaStep, runs: int = 1) -> int:
    """Return how many tasks fit into the memory that the card has for this run, by the peaks of small chunks of a step.

    Args:
        runs: that share the card, this one among them.
    """
    device = step.done.device

    def peak(n: int) -> int:
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step.estimate_of(0, n)
        return torch.cuda.max_memory_allocated(device) - held

    peak(1)  # libraries take their workspaces at the first call
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device)
    return fitting_chunk(peak, int(SHARE * memory_for(runs, free, total, held)), step.config.meta_batch)


def memory_for(runs: int, free: int, total: int, held: int) -> int:
    """Return the bytes that one of ``runs`` on a card may take: its part of the card, but no more than is free.

    Runs that begin together all see the same free memory. A part of the whole is the same for each of them, whoever
    comes first, and with it the size of their chunks.

    Args:
        free, total: bytes of the card.
        held: bytes that the run has already.
    """
    return max(0, min(free, total // runs - held))


def fitting_chunk(peak: Callable[[int], int], budget: int, meta_batch: int) -> int:
    """Return the size of the fewest equal chunks of a meta-batch of which one fits into ``budget`` bytes.

    Args:
        peak: the memory in bytes that a chunk of 1 or 2 tasks takes; more are taken to cost the same each.
    """
    if meta_batch == 1:
        return 1
    one, two = peak(1), peak(2)
    each = max(two - one, 1)
    return equal_parts(meta_batch, min(max((budget - (one - each)) // each, 1), meta_batch))
