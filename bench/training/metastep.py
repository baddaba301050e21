"""One meta-step as a function of tensors that stay where they are, so that it can be captured once and replayed."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from bench.api import MetaAlgorithm, MetaGrad, TaskBatch, TaskLoss, Weights
from bench.settings.config import RunConfig
from bench.tasks.stream import TaskStream, TaskWindow
from bench.training.contract import check_form
from bench.training.outer import MetaOptimizer

_NEVER = 2**62  # more meta-steps than there are
PROBES = 2  # meta-steps by which a captured step is held against the step itself


class MetaStep:
    """Tasks, meta-gradient, meta-optimizer, loss and carry of one meta-step after another.

    What a step reads and writes (``done``, the slow weights, the carry, the optimizer's state, the window of tasks,
    ``losses``, since when gradients are bad) is changed in place and never replaced. Before a step, ``hold`` must have
    seen to its tasks; the step itself asks nothing of the host where ``captured`` is set.

    Args:
        slow, carry: where the run begins; the slow weights are changed in place, the carry is copied.
        chunk: how many tasks to hold at once; the result is the same up to rounding.
        captured: build for capturing (see ``MetaOptimizer``).
    """

    def __init__(
        self,
        config: RunConfig,
        algorithm: MetaAlgorithm,
        task_loss: TaskLoss,
        slow: dict[str, Tensor],
        carry: Weights,
        stream: TaskStream,
        chunk: int,
        captured: bool,
    ) -> None:
        self.config, self.algorithm, self.task_loss, self.chunk = config, algorithm, task_loss, chunk
        device = stream.device
        self.slow = slow
        self.carry = {name: c.detach().clone().to(device) for name, c in carry.items()}
        self.optimizer = MetaOptimizer(config, slow, captured)
        self.phase = self.phase_at(0)
        self.done = torch.zeros(1, dtype=torch.long, device=device)
        self.losses = torch.zeros(config.meta_steps, dtype=torch.float64, device=device)
        self._names = [name for name, w in slow.items() if w.numel()]
        self._bad_since = torch.full((len(self._names),), _NEVER, dtype=torch.long, device=device)
        self.window = TaskWindow(stream, max(stream.block, PROBES * config.meta_batch))
        self._offsets = torch.arange(config.meta_batch, device=device)

    def __call__(self) -> None:
        """Take one meta-step."""
        self.apply(self.estimate())

    def go_to(self, done: int) -> None:
        """Let the next step be the one after ``done`` meta-steps."""
        self.done.fill_(done)
        self.hold(done)

    def hold(self, done: int, steps: int = 1) -> None:
        """Have the tasks of the ``steps`` meta-steps after ``done`` ready."""
        self.window.hold(done * self.config.meta_batch, steps * self.config.meta_batch)
        self.phase = self.phase_at(done)

    def phase_at(self, done: int) -> int:
        """Return the algorithm's phase after ``done`` meta-steps."""
        return self.algorithm.phase(done / self.config.meta_steps)

    def estimate(self) -> MetaGrad:
        """Return the algorithm's estimate on the next meta-batch, walking the task axis in chunks and averaging."""
        size, whole = self.config.meta_batch, None
        for start in range(0, size, self.chunk):
            part = self.estimate_of(start, min(start + self.chunk, size))
            if self.chunk >= size:
                return part
            share = part.query_loss.shape[0] / size
            grads = {name: share * g for name, g in part.grads.items()}
            carry = {name: share * c for name, c in part.carry.items()}
            if whole is None:
                whole = MetaGrad(grads, part.query_loss, carry)
            else:
                whole = MetaGrad(
                    {name: total + grads[name] for name, total in whole.grads.items()},
                    torch.cat([whole.query_loss, part.query_loss]),
                    {name: total + carry[name] for name, total in whole.carry.items()},
                )
        assert whole is not None, "meta_batch is at least 1"
        return whole

    def estimate_of(self, start: int, end: int) -> MetaGrad:
        """Return the algorithm's estimate on the tasks start..end-1 of the next meta-batch, its form checked."""
        slow = {name: w.detach() for name, w in self.slow.items()}
        tasks = self.window.batch(torch.add(self._offsets[start:end], self.done, alpha=self.config.meta_batch))
        progress = (self.done / self.config.meta_steps)[0]
        batch = TaskBatch(tasks.support, tasks.query, self.carry, progress, self.phase)
        result = self.algorithm.meta_grad(self.task_loss, slow, batch)
        check_form(self.config.algo, slow, self.carry, end - start, result)
        return result

    def apply(self, result: MetaGrad) -> None:
        """Move weights and carry to where ``result`` says, note loss and bad gradients and count the step."""
        self._note_bad(result.grads)
        self.optimizer.step(result.grads, self.done)
        own = {c.untyped_storage().data_ptr() for c in self.carry.values()}
        new = {n: c.clone() if c.untyped_storage().data_ptr() in own else c for n, c in result.carry.items()}
        for dtype in dict.fromkeys(c.dtype for c in self.carry.values()):  # of each all at once
            names = [name for name, c in self.carry.items() if c.dtype == dtype]
            torch._foreach_copy_([self.carry[name] for name in names], [new[name] for name in names])
        self.losses.index_copy_(0, self.done, result.query_loss.mean().to(self.losses.dtype).view(1))
        self.done += 1

    def bad_gradients(self) -> tuple[int, list[str]]:
        """Return the first meta-step with a gradient that was not finite, and whose they were; 0 if there is none."""
        since = self._bad_since.tolist()
        first = min(since, default=_NEVER)
        if first == _NEVER:
            return 0, []
        return first + 1, [name for name, done in zip(self._names, since) if done == first]

    def _note_bad(self, grads: Weights) -> None:
        # The largest absolute value, which is NaN if any is; the sum of squares would overflow where no gradient does.
        largest = torch.stack(torch._foreach_norm([grads[name] for name in self._names], math.inf))
        since = torch.where(largest < math.inf, _NEVER, self.done)
        torch.minimum(self._bad_since, since, out=self._bad_since)

    def snapshot(self) -> dict[int, Tensor]:
        """Return copies of all that a step changes, for ``restore``."""
        return {id(t): t.clone() for t in self._state()}

    def restore(self, saved: dict[int, Tensor]) -> None:
        """Put everything back, in place; what the optimizer has made since then begins at zero again."""
        for t in self._state():
            before = saved.get(id(t))
            if before is None:
                t.zero_()
            else:
                t.copy_(before)

    def _state(self) -> Iterator[Tensor]:
        yield from (*self.slow.values(), *self.carry.values(), self.done, self.losses, self._bad_since)
        yield from self.optimizer.tensors()
