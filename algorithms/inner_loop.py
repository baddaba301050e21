"""What algorithms share that adapt by gradient steps: the inner rule as a setting, by ``higher``'s optimizers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import higher
import torch
from torch import Tensor

from algorithms.flat import Layout, at_once
from bench.api import MetaAlgorithm, Weights, searched
from bench.registry import unknown

RULES: dict[str, tuple[str, ...]] = {"sgd": (), "momentum": ("momentum_buffer",), "adam": ("exp_avg", "exp_avg_sq")}
"""The inner rules, with what each keeps of a weight from step to step, as torch's optimizers call it."""


State = dict[str, dict[str, Tensor]]
ALL = "all weights"


class AdamInsideRoot(torch.optim.Adam):
    """Adam whose epsilon is below the root, so that the step has a derivative where a gradient is zero."""


class DifferentiableAdamInsideRoot(higher.optim.DifferentiableOptimizer):
    """Its differentiable counterpart: ``p - lr * m / sqrt(v + eps)``, m and v corrected for their bias.

    ``higher``'s own Adam adds epsilon behind the root, whose derivative at zero is infinite.
    """

    def _update(self, grouped_grads: Any, **kwargs: Any) -> None:
        for group, grads, states in zip(self.param_groups, grouped_grads, self.state, strict=True):
            beta1, beta2 = group["betas"]
            for place, (p, grad) in enumerate(zip(group["params"], grads, strict=True)):
                state, g = states[place], grad + group["weight_decay"] * p if group["weight_decay"] else grad
                state["step"] += 1
                state["exp_avg"] = beta1 * state["exp_avg"] + (1 - beta1) * g
                state["exp_avg_sq"] = beta2 * state["exp_avg_sq"] + (1 - beta2) * g.square()
                mean = state["exp_avg"] / (1 - beta1 ** state["step"])
                square = state["exp_avg_sq"] / (1 - beta2 ** state["step"])
                group["params"][place] = p - group["lr"] * mean / (square + group["eps"]).sqrt()


higher.register_optim(AdamInsideRoot, DifferentiableAdamInsideRoot)


@dataclass(frozen=True)
class GradientBased(MetaAlgorithm):
    """An algorithm whose inner loop follows the gradient of the support loss by a rule that is a setting.

    Attributes:
        inner_optimizer: ``sgd``; ``momentum``, SGD with heavy-ball momentum; ``adam``, Adam with beta 0.9 and 0.999 and
            an epsilon of 1e-8 below the root. Momentum and moments begin at zero in every task.
        inner_momentum: of ``momentum``.
        inner_decay: weight decay, which adds this times the weight to its gradient.
        inner_clip: largest norm of the gradient of a task, over all weights that adapt; none: any.
    """

    inner_lr: float = searched(0.1, low=0.01, high=2.0, log=True)
    inner_steps: int = 5
    inner_optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
    inner_momentum: float = 0.9
    inner_decay: float = 0.0
    inner_clip: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings that would silently mean something else.

        Raises:
            ValueError: an unknown inner_optimizer, or a number out of range.
        """
        if self.inner_optimizer not in RULES:
            raise ValueError(unknown("inner_optimizer", self.inner_optimizer, RULES))
        if not 0 <= self.inner_momentum < 1:
            raise ValueError(f"inner_momentum {self.inner_momentum}; accepted: 0 or more, below 1")
        if self.inner_decay < 0:
            raise ValueError(f"inner_decay {self.inner_decay}; accepted: 0 or more")
        if self.inner_clip is not None and self.inner_clip <= 0:
            raise ValueError(f"inner_clip {self.inner_clip}; accepted: above 0, or none")

    def initial_state(self, slow: Weights) -> Weights:
        """Return the zeros with which momentum or moments begin."""
        return self.state_of({name: slow[name] for name in self.adapted(slow)})

    def state_of(self, moved: Weights) -> dict[str, Tensor]:
        """Return the zeros with which the rule begins on the weights ``moved``."""
        return {
            f"{kept}/{name}": torch.zeros_like(w) for kept in RULES[self.inner_optimizer] for name, w in moved.items()
        }

    def start(self, slow: Weights, n_tasks: int) -> Weights:
        """Return the stacked weights ``[T, ...]`` that the inner loop begins with, on a GPU those of one buffer."""
        fast = super().start(slow, n_tasks)
        moved = {name: slow[name][None] for name in self.adapted(slow)}
        if len(moved) < 2 or not at_once(moved):
            return fast
        layout = Layout(moved)
        parts = layout.split(layout.gather(moved).expand(n_tasks, -1))
        if not any(w.requires_grad for w in slow.values()):
            parts = {name: w.detach().requires_grad_() for name, w in parts.items()}
        return {**fast, **parts}

    def inner_step(self, loss: Tensor, fast: Weights, carry: Weights, step: int) -> tuple[Weights, Weights]:
        """Return the weights one step of the rule later, differentiable where they lead back to slow ones."""
        grads = self.inner_grads(loss, fast)
        return self.by_rule({name: fast[name] for name in grads}, grads, self.rates(fast, step), carry, step)

    def rates(self, fast: Weights, step: int) -> Mapping[str, Tensor | float]:
        """Return the inner rates of single weights by name, for those that have one of their own."""
        return {}

    def by_rule(
        self, weights: Weights, grads: Weights, rates: Mapping[str, Tensor | float], carry: Weights, step: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return weights ``[T, ...]`` a step of the rule along ``grads`` later, and the carry with the rule's state."""
        grads, kept = clipped(grads, self.inner_clip), RULES[self.inner_optimizer]
        state = {k: {name: carry[f"{k}/{name}"] for name in weights} for k in kept}
        if at_once(weights):
            moved, state = self._together(weights, grads, rates, state, step)
        else:
            moved, state = self._moved(weights, grads, rates, state, step)
        return moved, {**carry, **{f"{k}/{name}": s for k in kept for name, s in state[k].items()}}

    def _together(
        self, weights: Weights, grads: Weights, rates: Mapping[str, Tensor | float], state: State, step: int
    ) -> tuple[dict[str, Tensor], State]:
        """Return what ``_moved`` does, to the bit, in as many launches as it takes for a single weight."""
        layout, tracked = Layout(weights), _tracked(weights, grads)
        if not tracked:
            weights, grads = ({name: t.detach() for name, t in of.items()} for of in (weights, grads))
        every = {}
        if rates:
            of_each = {n: _stacked(rates.get(n, self.inner_lr), w) for n, w in weights.items()}
            every = {ALL: layout.gather(of_each)}
        flat = {k: {ALL: layout.gather(s)} for k, s in state.items()}
        moved, flat = self._moved({ALL: layout.gather(weights)}, {ALL: layout.gather(grads)}, every, flat, step)
        after = layout.split(moved[ALL] if tracked else moved[ALL].detach())
        after = after if tracked else {name: w.requires_grad_() for name, w in after.items()}
        return after, {k: layout.split(s[ALL]) for k, s in flat.items()}

    def _moved(
        self, weights: Weights, grads: Weights, rates: Mapping[str, Tensor | float], state: State, step: int
    ) -> tuple[dict[str, Tensor], State]:
        """Return the weights a step later, and the rule's state, what it keeps by its name and the weight's."""
        names = list(weights)
        params = [w if w.requires_grad else w.detach().requires_grad_() for w in weights.values()]
        stand_ins = [torch.empty(0) for _ in params]  # torch's optimizers take leaves only; higher wants their number
        optimizer = higher.optim.get_diff_optim(
            self._rule([{"params": [place]} for place in stand_ins]),
            stand_ins,
            override={"lr": [rates.get(name, self.inner_lr) for name in names]},
            track_higher_grads=_tracked(weights, grads),
        )
        for found, name in zip(optimizer.state, names, strict=True):
            if state:
                found[0] = {"step": step, **{k: s[name] for k, s in state.items()}}
        # higher differentiates a loss, but the gradients are here already: it gets one that nothing is computed for
        nothing = torch.zeros((), device="meta", requires_grad=True)
        moved = optimizer.step(nothing, params=params, grad_callback=lambda _: [grads[name] for name in names])
        after = {k: {n: found[0][k] for found, n in zip(optimizer.state, names, strict=True)} for k in state}
        return dict(zip(names, moved, strict=True)), after

    def _rule(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        if self.inner_optimizer == "adam":
            return AdamInsideRoot(groups, lr=self.inner_lr, eps=1e-8, weight_decay=self.inner_decay)
        momentum = self.inner_momentum if self.inner_optimizer == "momentum" else 0.0
        return torch.optim.SGD(groups, lr=self.inner_lr, momentum=momentum, weight_decay=self.inner_decay)


def _stacked(rate: Tensor | float, w: Tensor) -> Tensor:
    """Return a rate for every number of ``w``."""
    return rate.expand_as(w) if isinstance(rate, Tensor) else torch.full_like(w, rate)


def _tracked(weights: Weights, grads: Weights) -> bool:
    return not all(w.is_leaf for w in (*weights.values(), *grads.values()))


def clipped(grads: Weights, most: float | None) -> Weights:
    """Return gradients ``[T, ...]``, those of each task scaled down to the norm ``most`` where theirs is more."""
    if most is None:
        return grads
    squares = [g.flatten(1).square().sum(dim=1) for g in grads.values()]  # each [T]
    norm = torch.stack(squares).sum(dim=0).clamp(min=most**2).sqrt()  # no less than most: a root of zero has no slope
    return {name: g * (most / norm).view(-1, *[1] * (g.dim() - 1)) for name, g in grads.items()}


def normalisation(network: Weights) -> list[str]:
    """Name the scales and shifts of a network's normalisation: weights and biases ``[C]`` that stand side by side.

    Args:
        network: without a task axis.
    """
    layers = {
        name.removesuffix("weight")
        for name, w in network.items()
        if name.endswith("weight") and w.dim() == 1 and f"{name.removesuffix('weight')}bias" in network
    }
    beside = [name for name in network if name.removesuffix("weight").removesuffix("bias") in layers]
    return beside or [name for name in network if name.endswith("/shift")]
