"""Back through one step of an inner loop: from what is asked of the weights behind it to what is asked in front of it.

A step goes from weights w, along the gradient g(w) of the support loss, to weights U(w, g). Here w and g are taken
apart, so that whoever asks leads g back to the weights: ``algorithms.unroll``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from algorithms.inner_loop import RULES, GradientBased
from bench.api import BenchError, Examples, Recall, TaskLoss, Weights


@dataclass(frozen=True)
class Stand:
    """Where the inner loop stood: weights and carry, ``[T, ...]``, and the gradients that its next step followed."""

    fast: Weights
    carry: Weights
    slopes: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """Derivatives of the query losses with respect to the weights and carry of a step; what is zero is left out."""

    fast: Mapping[str, Tensor]
    carry: Mapping[str, Tensor]


class Rule:
    """A step of an algorithm, by a graph of that step.

    Args:
        end: the weights behind it, which it is held against; None for not to look.
    """

    def __init__(self, algorithm: GradientBased, at: Stand, step: int, end: Weights | None) -> None:
        self.algorithm, self.step, self.end = algorithm, step, end
        self.fast, self.carry, self.slopes = (leaves_of(of) for of in (at.fast, at.carry, at.slopes))
        # No leaves, so that the rule is tracked.
        self._own = {name: w.view_as(w) for name, w in self.fast.items()}

    def again(self, task_loss: TaskLoss, batch: Examples, asked: Asked, kept: Recall) -> Asked:
        """Return what is asked in front of the step, all of it; ``kept`` is of its loss when it was first taken."""
        with torch.enable_grad():
            return self._back(kept.again(lambda: task_loss(self._own, batch)), asked)[0]

    def noted(self, asked: Asked) -> tuple[Asked, dict[str, Tensor]]:
        """Return what is asked directly, and of the gradients that the step followed."""
        like = next(iter(self.fast.values()))
        nothing = like.new_zeros(len(like))
        own = [self._own[name] for name in self.slopes]
        with torch.enable_grad():
            return self._back(_Given.apply(nothing, *own, *self.slopes.values()), asked)

    def _back(self, loss: Tensor, asked: Asked) -> tuple[Asked, dict[str, Tensor]]:
        carry = {name: c.view_as(c) for name, c in self.carry.items()}
        moved, carried = self.algorithm.inner_step(loss, self._own, carry, self.step)
        if self.end is not None:
            self._check(moved, self.end)
        after = {("fast", n): w for n, w in moved.items()} | {("carry", n): c for n, c in carried.items()}
        of = {("fast", n): a for n, a in asked.fast.items()} | {("carry", n): a for n, a in asked.carry.items()}
        groups = {"fast": self.fast, "carry": self.carry, "slopes": self.slopes}
        leaves = {(group, name): w for group, members in groups.items() for name, w in members.items()}
        found = led_back({key: out for key, out in after.items() if key in of}, leaves, of)
        fast, kept, slopes = ({n: g for (where, n), g in found.items() if where == group} for group in groups)
        return Asked(added({n: a for n, a in asked.fast.items() if n not in moved}, fast), kept), slopes

    def _check(self, moved: Weights, end: Weights) -> None:
        if not all(torch.allclose(w, end[name], rtol=1e-3, atol=1e-5, equal_nan=True) for name, w in moved.items()):
            raise BenchError(
                f"{type(self.algorithm).__name__}: an inner step that runs again comes to other weights, so that only"
                " its graph leads back: it follows no gradient of the support loss by inner_grads; accepted: unroll"
                " higher"
            )


class _Given(torch.autograd.Function):
    """Some losses ``[T]`` and their derivatives: weights first, then the derivative by each of them."""

    @staticmethod
    def forward(ctx: Any, losses: Tensor, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors[len(tensors) // 2 :])
        return losses.clone()

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        slopes = ctx.saved_tensors
        return (None, *(grad[0].view(-1, *[1] * (s.dim() - 1)) * s for s in slopes), *[None] * len(slopes))


_OF_A_STEP = ("inner_step", "inner_grads", "by_rule", "rates")
_OF_THE_LOOP = ("adaptation", "descent", "start", "initial_state", "state_of", "initial_carry")


def is_linear(algorithm: GradientBased) -> bool:
    """Say whether a step is a sum of weight, gradient and momentum, each times a number, as far as is known."""
    methods = (*_OF_A_STEP, *_OF_THE_LOOP)
    own = any(getattr(type(algorithm), name) is not getattr(GradientBased, name) for name in methods)
    return not own and algorithm.inner_optimizer != "adam" and algorithm.inner_clip is None


def coefficients(algorithm: GradientBased) -> dict[str, dict[str, float]]:
    """Return by what number weight and kept ones after a step follow from each before it and from the gradient.

    The rule is linear, so that units tell.
    """
    before = ["w", "g", *(f"{kept}/w" for kept in RULES[algorithm.inner_optimizer])]
    units = dict(zip(before, torch.eye(len(before), dtype=torch.float64)))
    carry = {name: unit for name, unit in units.items() if "/" in name}
    moved, carried = algorithm.by_rule({"w": units["w"]}, {"w": units["g"]}, {}, carry, 0)
    return {name: dict(zip(before, row.tolist())) for name, row in {**moved, **carried}.items()}


def by_numbers(
    numbers: Mapping[str, Mapping[str, float]], names: Collection[str], asked: Asked
) -> tuple[Asked, dict[str, Tensor]]:
    """Return what is asked directly in front of a step with these coefficients, and of the gradients it followed."""
    fast = {n: a for n, a in asked.fast.items() if n not in names}
    carry, along = dict[str, Tensor](), dict[str, Tensor]()
    for name in names:
        behind = {of: asked.carry.get(f"{of[:-1]}{name}") for of in numbers if of != "w"} | {"w": asked.fast.get(name)}
        for of in numbers["w"]:
            total = _combined((numbers[k][of], a) for k, a in behind.items())
            if total is None:
                continue
            if of in ("w", "g"):
                (fast if of == "w" else along)[name] = total
            else:
                carry[f"{of[:-1]}{name}"] = total
    return Asked(fast, carry), along


def _combined(parts: Iterable[tuple[float, Tensor | None]]) -> Tensor | None:
    """Return a sum of tensors times numbers; None where nothing is left of it."""
    total: Tensor | None = None
    for factor, tensor in parts:
        if tensor is None or not factor:
            continue
        if total is None:
            total = tensor if factor == 1 else factor * tensor
        else:
            total = torch.add(total, tensor, alpha=factor)
    return total


def leaves_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as leaves that derivatives are taken by."""
    return {name: t.detach().requires_grad_(t.is_floating_point()) for name, t in tensors.items()}


def added(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return sums by name; what is missing in one is the other's."""
    return {**a, **{name: t + a[name] if name in a else t for name, t in b.items()}}


def led_back(
    outs: Mapping[Any, Tensor], leaves: Mapping[Any, Tensor], of: Mapping[Any, Tensor] | None = None
) -> dict[Any, Tensor]:
    """Return the derivatives of ``outs``, each times what ``of`` asks of it, by the leaves that have one."""
    outs = {key: out for key, out in outs.items() if out.requires_grad}
    inputs = {key: leaf for key, leaf in leaves.items() if leaf.requires_grad}
    if not outs:
        return {}
    asked = None if of is None else [of[key] for key in outs]
    found = torch.autograd.grad(list(outs.values()), list(inputs.values()), asked, allow_unused=True)
    return {key: g for key, g in zip(inputs, found) if g is not None}
