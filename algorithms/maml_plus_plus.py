"""MAML++: MAML with losses along the inner loop, a learned rate per layer and step, and normalisation per step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from algorithms.inner_loop import normalisation
from algorithms.maml import MAML
from algorithms.unroll import meta_gradient
from bench.api import MetaGrad, TaskBatch, TaskLoss, Weights
from bench.registry import register_algorithm

_SEVERAL, _FIRST = 1, 2  # what is on in a phase of the run: losses of several steps, first order
_LEAST = 0.03  # of the loss's equal share, which every step but the last keeps to the end of the annealing


@register_algorithm("maml++")
@dataclass(frozen=True)
class MAMLPlusPlus(MAML):
    """How to train your MAML: five changes that make MAML's training steadier.

    - Losses of several steps: at first the query losses after all inner steps count alike; their weight moves to the
      last one over the share ``multi_step`` of the run, after which no other is computed.
    - A learned inner rate for each parameter (tensor) and step. The last one goes on where a test takes more steps.
    - Derivative order: the first share ``first_order`` of the run does without second derivatives.
    - Normalisation per step: each number of steps taken has scales and shifts of its own, learned by the outer loop and
      left alone by the inner one. Networks without scales and shifts do without.
    - The outer rate falls along a cosine (``run_defaults``).

    The exact gradient of the weighted query loss, second order but for that first share. Cost: that of MAML, and while
    several losses count, a pass of the query set for every step.

    Attributes:
        multi_step: 10 of 100 epochs in the official Omniglot settings.
        first_order: none there; 50 epochs in the paper.
    """

    multi_step: float = 0.1
    first_order: float = 0.0
    per_step_norm: bool = True

    paper = "Antoniou et al. 2019, arXiv:1810.09502"
    by_default = False
    run_defaults: ClassVar = {"meta_lr_schedule": "cosine"}

    def __post_init__(self) -> None:
        """Refuse shares that are none.

        Raises:
            ValueError: one is out of range.
        """
        super().__post_init__()
        for name in ("multi_step", "first_order"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)}; accepted: a share of the run, 0 to 1")

    def extra_weights(self, network: Weights) -> Weights:
        """Return a rate for every parameter and step, ``[inner_steps]``, and scales and shifts for every state.

        The latter are ``[inner_steps + 1, ...]``, those of a state after so many steps.
        """
        per_step = normalisation(network) if self.per_step_norm else []
        norms = {f"step/{n}": network[n].expand(self.inner_steps + 1, *network[n].shape).clone() for n in per_step}
        inner = [name for name in network if "/" not in name and name not in per_step]
        rates = {f"rate/{n}": network[n].new_full((self.inner_steps,), self.inner_lr) for n in inner}
        return {**rates, **norms}

    def adapted(self, slow: Weights) -> list[str]:
        """Name the weights that have rates."""
        return [name for name in slow if f"rate/{name}" in slow]

    def rates(self, fast: Weights, step: int) -> Mapping[str, Tensor | float]:
        """Return the learned rates of a step, each ``[T, 1, ...]``."""
        step = min(step, self.inner_steps - 1)
        return {n: fast[f"rate/{n}"][:, step].view(-1, *[1] * (fast[n].dim() - 1)) for n in self.adapted(fast)}

    def start(self, slow: Weights, n_tasks: int) -> Weights:
        """Return the stacked weights, with the normalisation of the first step."""
        fast = super().start(slow, n_tasks)
        tracked = any(w.requires_grad for w in slow.values())
        norms = self._normalised(fast, 0)
        return {**fast, **(norms if tracked else {n: w.detach().requires_grad_() for n, w in norms.items()})}

    def inner_step(self, loss: Tensor, fast: Weights, carry: Weights, step: int) -> tuple[Weights, Weights]:
        """Return the weights one step later, with the normalisation that belongs to them."""
        moved, carry = super().inner_step(loss, fast, carry, step)
        return {**moved, **self._normalised(fast, min(step + 1, self.inner_steps))}, carry

    def _normalised(self, fast: Weights, state: int) -> dict[str, Tensor]:
        return {name: fast[f"step/{name}"][:, state] for name in fast if f"step/{name}" in fast}

    def phase(self, progress: float) -> int:
        """Return what is on at that share of the run."""
        return _SEVERAL * (progress < self.multi_step) + _FIRST * (progress < self.first_order)

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        """Return the gradient of the weighted mean of the query losses along the inner loop."""
        algorithm = _FirstOrder(**vars(self)) if tasks.phase & _FIRST else self
        if self.unroll != "higher":
            importance = self.importance(tasks.progress) if tasks.phase & _SEVERAL else None
            return meta_gradient(algorithm, task_loss, slow, tasks, self.unroll == "mixed", importance)
        slow = {name: w.detach().requires_grad_() for name, w in slow.items()}
        states = algorithm.adaptation(task_loss, slow, tasks.support, self.inner_steps)
        next(states)  # before any step, where no loss counts
        if tasks.phase & _SEVERAL:
            losses = torch.stack([task_loss(state.fast, tasks.query) for state in states], dim=1)  # [T, steps]
            query_loss = losses @ self.importance(tasks.progress).to(losses)  # [T]
        else:
            *_, state = states
            query_loss = task_loss(state.fast, tasks.query)
        grads = torch.autograd.grad(query_loss.mean(), list(slow.values()), materialize_grads=True)
        return MetaGrad(dict(zip(slow, grads)), query_loss.detach())

    def importance(self, progress: Tensor) -> Tensor:
        """Return the weight of the loss after each step, ``[inner_steps]``, adding up to 1, at a share of the run."""
        steps, done = self.inner_steps, progress.double() / self.multi_step
        other = ((1 - done) / steps).clamp(min=_LEAST / steps)
        return torch.stack([other] * (steps - 1) + [1 - (steps - 1) * other])


@dataclass(frozen=True)
class _FirstOrder(MAMLPlusPlus):
    """The same without second derivatives: gradients of the support loss are taken as constants."""

    def inner_grads(self, loss: Tensor, fast: Weights) -> dict[str, Tensor]:
        """Return each task's gradient, cut off from what it depends on."""
        return {name: g.detach() for name, g in super().inner_grads(loss, fast).items()}
