"""Sample, meta-step, time, validate, checkpoint: the life of one run; knows no algorithm by name."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.api import BenchError, MetaAlgorithm, MetaGrad, TaskBatch, TaskLoss, Weights
from bench.config import RunConfig
from bench.evaluate import TRANSDUCTIVE, evaluate
from bench.files import write_atomic
from bench.measure import Memory, StepTimes, now
from bench.records import CurvePoint
from bench.stats import mean_ci95
from bench.tasks import TaskStream

log = logging.getLogger("bench")

CHECKPOINT_EVERY_S = 60.0
_HASH_TASKS = 4096  # tasks per read-back when hashing a stream

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}


class Diverged(Exception):
    """A loss or gradient is not finite."""


@dataclass
class Progress:
    """What a run has reached: all that a checkpoint must hold."""

    slow: dict[str, Tensor]
    carry: Weights
    meta_step: int = 0
    train_s: float = 0.0
    eval_s: float = 0.0
    parts: int = 1
    step_ms: list[float] = field(default_factory=list)
    curve: list[CurvePoint] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  # of the meta-steps since the last point of the curve


class Training:
    """One run's training loop.

    Args:
        slow: initial weights, network's and the algorithm's own, on the device; changed in place.
        stream, val_stream: tasks to train on and to validate on.
        checkpoint: where to save and whence to continue.
    Raises:
        Diverged: a loss or gradient became NaN or infinite.
        BenchError: the algorithm breaks its contract.
    """

    def __init__(
        self,
        config: RunConfig,
        algorithm: MetaAlgorithm,
        task_loss: TaskLoss,
        slow: dict[str, Tensor],
        stream: TaskStream,
        val_stream: TaskStream,
        checkpoint: Path,
    ) -> None:
        self.config, self.algorithm, self.task_loss = config, algorithm, task_loss
        self.stream, self.val_stream, self.checkpoint = stream, val_stream, checkpoint
        self.device = stream.pool.images.device
        self.chunk = config.task_chunk or default_chunk(stream, config.meta_batch)
        self.progress = Progress(slow, algorithm.initial_carry(slow))
        optimizer = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[config.meta_optimizer]
        self.optimizer = optimizer(list(slow.values()), lr=config.meta_lr)
        self.memory: Memory | None = None
        self._earlier_memory: dict[str, Any] = {}
        self.resumed = self._resume()

    def warm_up(self) -> None:
        """Run one meta-step without keeping anything of it, and hold its result against the contract.

        Raises:
            BenchError: names, shapes or values are not what the contract asks for.
        """
        p = self.progress
        check_contract(self.config.algo, p.slow, p.carry, self.config.meta_batch, self._estimate(0))
        self.memory = Memory(self.device, self._earlier_memory)

    def run(self, advance: Callable[[int], object] = lambda steps: None) -> None:
        """Train to the end of the budget, validating on the way.

        ``advance`` gets the number of meta-steps done since its last call and may raise to stop: the state is whole
        whenever it is called.
        """
        config, progress = self.config, self.progress
        if self.memory is None:
            self.warm_up()
        points = sorted({round(i * config.meta_steps / config.val_points) for i in range(config.val_points + 1)})
        advance(progress.meta_step)
        for point in points:
            while progress.meta_step < point:
                self._segment(point, advance)
                if progress.meta_step < point:
                    self.save()
            if point not in {seen.meta_step for seen in progress.curve}:
                self._validate()
                self.save()

    def save(self) -> None:
        """Write a checkpoint in one step."""
        p = self.progress
        state = {
            "run_id": self.config.run_id,
            "slow": p.slow,
            "carry": dict(p.carry),
            "optimizer": self.optimizer.state_dict(),
            "counters": {k: getattr(p, k) for k in ("meta_step", "train_s", "eval_s", "parts", "step_ms", "losses")},
            "curve": [asdict(point) for point in p.curve],
            "memory": self.memory.state if self.memory else self._earlier_memory,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(self.checkpoint, buffer.getvalue())

    def stream_sha256(self) -> str:
        """Return a hash over the indices of every training task consumed so far, in order."""
        digest = hashlib.sha256()
        total = self.progress.meta_step * self.config.meta_batch
        for start in range(0, total, _HASH_TASKS):
            self.stream.indices(start, min(_HASH_TASKS, total - start)).digest_into(digest)
        return digest.hexdigest()

    def _segment(self, end: int, advance: Callable[[int], object]) -> None:
        """Train until meta-step ``end``, or until a checkpoint is due; the clock of training runs only here."""
        progress, times = self.progress, StepTimes(self.device)
        losses: list[Tensor] = []
        assert self.memory is not None, "run() has made it"
        self.memory.clear()
        self._estimate(progress.meta_step * self.config.meta_batch)  # warm again, off the clock, after an evaluation
        self.memory.open()
        due = time.monotonic() + CHECKPOINT_EVERY_S
        began = now(self.device)
        times.mark()
        try:
            while progress.meta_step < end and time.monotonic() < due:
                losses.append(self._meta_step())
                times.mark()
                advance(1)
        finally:
            progress.train_s += now(self.device) - began
            times.close()
            progress.step_ms += times.ms
            progress.losses += torch.stack(losses).tolist() if losses else []
            self.memory.close()
        self._check_finite()

    def _meta_step(self) -> Tensor:
        config, progress = self.config, self.progress
        result = self._estimate(progress.meta_step * config.meta_batch)
        for name, w in progress.slow.items():
            w.grad = result.grads[name]
        lr = config.meta_lr * SCHEDULES[config.meta_lr_schedule](progress.meta_step / config.meta_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        progress.carry = result.carry
        progress.meta_step += 1
        return result.query_loss.mean()

    def _estimate(self, first: int) -> MetaGrad:
        """Return the algorithm's estimate on one meta-batch, walking the task axis in chunks and averaging."""
        config, progress = self.config, self.progress
        slow = {name: w.detach() for name, w in progress.slow.items()}
        parts = []
        for start in range(0, config.meta_batch, self.chunk):
            size = min(self.chunk, config.meta_batch - start)
            tasks = self.stream.batch(first + start, size)
            tasks = TaskBatch(tasks.support, tasks.query, progress.carry)
            parts.append((size / config.meta_batch, self.algorithm.meta_grad(self.task_loss, slow, tasks)))
        if len(parts) == 1:
            return parts[0][1]
        return MetaGrad(
            _weighted_sum([(share, part.grads) for share, part in parts]),
            torch.cat([part.query_loss for _, part in parts]),
            _weighted_sum([(share, part.carry) for share, part in parts]),
        )

    def _validate(self) -> None:
        config, progress = self.config, self.progress
        began = now(self.device)
        result = evaluate(
            self.algorithm, self.task_loss, {n: w.detach() for n, w in progress.slow.items()}, progress.carry,
            self.val_stream, config.val_tasks, config.eval_inner_steps, modes=(TRANSDUCTIVE,), along_the_way=False,
        )  # fmt: skip
        mean, ci95 = mean_ci95(result.final(TRANSDUCTIVE))
        loss = math.fsum(progress.losses) / len(progress.losses) if progress.losses else None
        tasks_seen = progress.meta_step * config.meta_batch
        progress.curve.append(CurvePoint(progress.meta_step, tasks_seen, progress.train_s, mean, ci95, loss))
        progress.losses = []
        progress.eval_s += now(self.device) - began

    def _check_finite(self) -> None:
        p = self.progress
        for step, loss in enumerate(p.losses, start=p.meta_step - len(p.losses) + 1):
            if not math.isfinite(loss):
                raise Diverged(f"query loss is {loss} at meta-step {step}; try a lower inner_lr or meta_lr")
        for name, w in p.slow.items():
            if not torch.isfinite(w).all():
                raise Diverged(f"weight {name} is not finite at meta-step {p.meta_step}; try a lower meta_lr")

    def _resume(self) -> bool:
        """Continue from the checkpoint of the same run, if there is one that can be read."""
        try:
            state: dict[str, Any] = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            if state["run_id"] != self.config.run_id:
                return False
            curve = [CurvePoint(**point) for point in state["curve"]]
            carry = {name: c.to(self.device) for name, c in state["carry"].items()}
            progress = Progress(self.progress.slow, carry, curve=curve, **state["counters"])
            memory = dict(state["memory"])
            weights = [state["slow"][name].reshape(w.shape) for name, w in self.progress.slow.items()]
            self.optimizer.load_state_dict(state["optimizer"])
        except FileNotFoundError:
            return False
        except (OSError, EOFError, RuntimeError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
            log.warning("%s: ignored, the run starts anew (%s)", self.checkpoint, str(error).split(". ")[0])
            return False
        with torch.no_grad():
            for w, saved in zip(self.progress.slow.values(), weights):
                w.copy_(saved)
        self.progress, self._earlier_memory = progress, memory
        self.progress.parts += 1
        return True


def default_chunk(stream: TaskStream, meta_batch: int) -> int:
    """Return how many tasks to hold at once: on a CPU what its caches hold, on a GPU the whole meta-batch."""
    if stream.pool.images.is_cuda:
        return meta_batch
    images = stream.episode.n_way * (stream.episode.k_shot + stream.episode.k_query)
    return min(meta_batch, max(1, 400 // images))


def check_contract(algo: str, slow: Weights, carry: Weights, meta_batch: int, result: MetaGrad) -> None:
    """Hold one result of ``meta_grad`` against the contract.

    Raises:
        BenchError: names the algorithm, the tensor and what would be right.
        Diverged: a value is not finite.
    """
    if not isinstance(result, MetaGrad):
        raise BenchError(f"algorithm {algo!r}: meta_grad returned {type(result).__name__}; it must return a MetaGrad")
    if set(result.grads) != set(slow):
        odd = sorted(set(result.grads) ^ set(slow))
        raise BenchError(f"algorithm {algo!r}: gradients must be named like the slow weights; these differ: {odd}")
    for name, w in slow.items():
        grad = result.grads[name]
        if not isinstance(grad, Tensor) or grad.shape != w.shape:
            got = tuple(grad.shape) if isinstance(grad, Tensor) else grad
            raise BenchError(f"algorithm {algo!r}: gradient of {name} is {got}; it must have shape {tuple(w.shape)}")
        if not torch.isfinite(grad).all():
            raise Diverged(f"algorithm {algo!r}: gradient of {name} is not finite at the first meta-step")
    if result.query_loss.shape != (meta_batch,):
        got = tuple(result.query_loss.shape)
        raise BenchError(
            f"algorithm {algo!r}: query_loss has shape {got}; it must hold one loss per task, ({meta_batch},)"
        )
    if {n: c.shape for n, c in result.carry.items()} != {n: c.shape for n, c in carry.items()}:
        raise BenchError(f"algorithm {algo!r}: carry must keep the names and shapes of initial_carry: {sorted(carry)}")
    held = {"query_loss": result.query_loss, **result.grads, **result.carry}
    if attached := [name for name, tensor in held.items() if tensor.requires_grad]:
        raise BenchError(f"algorithm {algo!r}: {attached[0]} still holds its graph; return detached tensors")


def _weighted_sum(parts: list[tuple[float, Weights]]) -> dict[str, Tensor]:
    return {name: sum((share * part[name] for share, part in parts), torch.zeros(())) for name in parts[0][1]}
