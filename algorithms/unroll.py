"""Meta-gradients led back from inner step to inner step, of which only the weights are kept: no graph of all steps.

A step goes from weights w, along the gradient g(w) of the support loss, to weights U(w, g). What is asked of the latter
(the derivative of the query loss) is led back to w directly, through U, and through g: by a product with the support
loss's Hessian. The step runs again for that: with its graph, or forward over reverse, which needs none of second order.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from algorithms.inner_loop import RULES, GradientBased
from bench.api import BenchError, Examples, MetaGrad, TaskBatch, TaskLoss, Weights, stack
from bench.registry import said

log = logging.getLogger("bench")

_AS_A_STEP = 4  # images of a query pass that take about the memory of one image in a step that is led back through


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


def meta_gradient(
    algorithm: GradientBased,
    task_loss: TaskLoss,
    slow: Weights,
    tasks: TaskBatch,
    mixed: bool,
    importance: Tensor | None = None,
) -> MetaGrad:
    """Return what the graph of the whole inner loop gives, up to rounding.

    Args:
        mixed: forward over reverse, where the task loss can do that; else each step runs again with its graph.
        importance: weight of the query loss after each step, ``[inner_steps]``; that of the last alone unless given.
    Raises:
        BenchError: the algorithm takes its inner steps in a way that cannot be followed back.
    """
    support, steps = tasks.support, algorithm.inner_steps
    mixed = mixed and _can_mix(algorithm, task_loss, slow, support)
    linear = mixed and _is_linear(algorithm)
    path = list(_path(algorithm, task_loss, slow, support, noted=mixed and not linear))
    batches = list(support.minibatches(algorithm.inner_batch, steps, algorithm.replacement))
    numbers = _coefficients(algorithm) if linear else {}
    end = path.pop().fast
    total, found = _query(task_loss, end, tasks, None if importance is None else importance[-1])
    asked = Asked(found, {})
    for step in reversed(range(steps)):
        at = path.pop()
        if linear:
            direct, along = _by_numbers(numbers, algorithm.adapted(at.fast), asked)
        else:
            rule = _Rule(algorithm, at, step, end if step == steps - 1 else None)
            direct, along = rule.noted(asked) if mixed else (rule.again(task_loss, batches[step], asked), {})
        through = hessian_product(task_loss, at.fast, batches[step], along)
        asked = Asked(_sum(direct.fast, through), direct.carry)
        if importance is not None and step:
            loss, found = _query(task_loss, at.fast, tasks, importance[step - 1])
            total, asked = total + loss, Asked(_sum(asked.fast, found), asked.carry)
    return MetaGrad(_to_slow(algorithm, slow, support.n_tasks, asked), total)


def _path(
    algorithm: GradientBased, task_loss: TaskLoss, slow: Weights, support: Examples, noted: bool
) -> Iterator[Stand]:
    """Yield where the inner loop stands before its first step and after each, with the gradients if ``noted``."""
    slow = {name: w.detach() for name, w in slow.items()}
    for state in algorithm.adaptation(task_loss, slow, support, algorithm.inner_steps):
        stand = Stand(state.fast, state.carry)
        for name in algorithm.adapted(state.fast) if noted else ():
            state.fast[name].register_hook(partial(_note, stand.slopes, name))
        yield stand


def _note(slopes: dict[str, Tensor], name: str, grad: Tensor) -> None:
    slopes[name] = grad.detach()


def _query(
    task_loss: TaskLoss, fast: Weights, tasks: TaskBatch, weight: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the query losses ``[T]`` times ``weight``, and their derivatives.

    As many tasks at once as take the memory of a step: they do not see each other, so only rounding may change.
    """
    support, query = tasks.support, tasks.query
    at_once = max(1, _AS_A_STEP * query.n_tasks * support.y.shape[1] // query.y.shape[1])
    losses, found = [], dict[str, Tensor]()
    for start in range(0, query.n_tasks, at_once):
        part = slice(start, start + at_once)
        with torch.enable_grad():
            leaves = _leaves({name: w[part] for name, w in fast.items()})
            loss = task_loss(leaves, _some(query, part))
            loss = loss if weight is None else loss * weight.to(loss)
        losses.append(loss.detach())
        for name, g in _grads({"": loss.sum()}, leaves).items():
            if at_once >= query.n_tasks:
                found[name] = g
            else:
                found.setdefault(name, torch.zeros_like(fast[name]))[part] = g
    return torch.cat(losses), found


def _some(examples: Examples, part: slice) -> Examples:
    classes = None if examples.classes is None else examples.classes[part]
    return Examples(examples.x[part], examples.y[part], n_way=examples.n_way, classes=classes)


def hessian_product(task_loss: TaskLoss, fast: Weights, batch: Examples, along: Weights) -> dict[str, Tensor]:
    """Return by weight how the gradient of each task's loss changes along a direction of some of them, ``[T, ...]``.

    Dual numbers pass through the loss and back; no graph of second order is made.
    """
    if not along:
        return {}
    with forward_ad.dual_level(), torch.enable_grad():
        leaves = _leaves(fast)
        dual = {n: forward_ad.make_dual(w, along[n]) if n in along else w for n, w in leaves.items()}
        grads = _grads({"": task_loss(dual, batch).sum()}, dual)
        moved = {name: forward_ad.unpack_dual(g).tangent for name, g in grads.items()}
    return {name: tangent for name, tangent in moved.items() if tangent is not None}


# Back through a step's rule U(w, g), where w and g are taken apart.


class _Rule:
    """A step of an algorithm, by a graph of that step.

    Args:
        end: the weights behind it, which it is held against; None for not to look.
    """

    def __init__(self, algorithm: GradientBased, at: Stand, step: int, end: Weights | None) -> None:
        self.algorithm, self.step, self.end = algorithm, step, end
        self.fast, self.carry, self.slopes = (_leaves(of) for of in (at.fast, at.carry, at.slopes))
        # No leaves, so that the rule is tracked.
        self._own = {name: w.view_as(w) for name, w in self.fast.items()}

    def again(self, task_loss: TaskLoss, batch: Examples, asked: Asked) -> Asked:
        """Return what is asked in front of the step, all of it."""
        with torch.enable_grad():
            return self._back(task_loss(self._own, batch), asked)[0]

    def noted(self, asked: Asked) -> tuple[Asked, dict[str, Tensor]]:
        """Return what is asked directly, and of the gradients that the step followed."""
        own = [self._own[name] for name in self.slopes]
        with torch.enable_grad():
            loss = _Given.apply(len(next(iter(self.fast.values()))), *own, *self.slopes.values())
            return self._back(loss, asked)

    def _back(self, loss: Tensor, asked: Asked) -> tuple[Asked, dict[str, Tensor]]:
        carry = {name: c.view_as(c) for name, c in self.carry.items()}
        moved, carried = self.algorithm.inner_step(loss, self._own, carry, self.step)
        if self.end is not None:
            self._check(moved, self.end)
        after = {("fast", n): w for n, w in moved.items()} | {("carry", n): c for n, c in carried.items()}
        of = {("fast", n): a for n, a in asked.fast.items()} | {("carry", n): a for n, a in asked.carry.items()}
        groups = {"fast": self.fast, "carry": self.carry, "slopes": self.slopes}
        leaves = {(group, name): w for group, members in groups.items() for name, w in members.items()}
        found = _grads({key: out for key, out in after.items() if key in of}, leaves, of)
        fast, kept, slopes = ({n: g for (where, n), g in found.items() if where == group} for group in groups)
        return Asked(_sum({n: a for n, a in asked.fast.items() if n not in moved}, fast), kept), slopes

    def _check(self, moved: Weights, end: Weights) -> None:
        if any(w.is_cuda for w in moved.values()):
            return  # the host must not wait
        if not all(torch.allclose(w, end[name], rtol=1e-3, atol=1e-5) for name, w in moved.items()):
            raise BenchError(
                f"{type(self.algorithm).__name__}: an inner step that runs again comes to other weights, so that only"
                " its graph leads back: it follows no gradient of the support loss by inner_grads; accepted: unroll"
                " higher"
            )


class _Given(torch.autograd.Function):
    """Losses ``[T]`` of which only the derivatives are known: weights first, then the derivatives by each of them."""

    @staticmethod
    def forward(ctx: Any, n_tasks: int, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors[len(tensors) // 2 :])
        return tensors[0].new_zeros(n_tasks)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        slopes = ctx.saved_tensors
        return (None, *(grad[0].view(-1, *[1] * (s.dim() - 1)) * s for s in slopes), *[None] * len(slopes))


# ... and where it is linear, with the same numbers for every weight.

_KEPT = ("inner_step", "inner_grads", "by_rule", "rates", "adaptation", "descent", "initial_state", "state_of", "start")


def _is_linear(algorithm: GradientBased) -> bool:
    """Say whether a step is a sum of weight, gradient and momentum, each times a number."""
    own = any(getattr(type(algorithm), name) is not getattr(GradientBased, name) for name in _KEPT)
    return not own and algorithm.inner_optimizer != "adam" and algorithm.inner_clip is None


def _coefficients(algorithm: GradientBased) -> dict[str, dict[str, float]]:
    """Return by what number weight and kept ones after a step follow from each before it and from the gradient.

    The rule is linear, so that units tell.
    """
    before = ["w", "g", *(f"{kept}/w" for kept in RULES[algorithm.inner_optimizer])]
    units = dict(zip(before, torch.eye(len(before), dtype=torch.float64)))
    carry = {name: unit for name, unit in units.items() if "/" in name}
    moved, carried = algorithm.by_rule({"w": units["w"]}, {"w": units["g"]}, {}, carry, 0)
    return {name: dict(zip(before, row.tolist())) for name, row in {**moved, **carried}.items()}


def _by_numbers(numbers: Mapping[str, Mapping[str, float]], names: list[str], asked: Asked) -> tuple[Asked, dict[str, Tensor]]:
    """Return what is asked directly in front of a step with these coefficients, and of the gradients it followed."""
    fast, carry, along = dict(asked.fast), dict[str, Tensor](), dict[str, Tensor]()
    places = {"w": fast, "g": along, **{kept: carry for kept in numbers if kept != "w"}}
    for name in names:
        behind = {"w": asked.fast.get(name)} | {k: asked.carry.get(k.removesuffix("w") + name) for k in places if "/" in k}
        fast.pop(name, None)
        for of, place in places.items():
            parts = [(numbers[k].get(of, 0.0), a) for k, a in behind.items() if a is not None]
            total = _combined([(factor, a) for factor, a in parts if factor])
            if total is not None:
                place[of.removesuffix("w") + name if "/" in of else name] = total
    return Asked(fast, carry), along


def _combined(parts: list[tuple[float, Tensor]]) -> Tensor | None:
    total: Tensor | None = None
    for factor, tensor in parts:
        if total is None:
            total = tensor if factor == 1 else factor * tensor
        else:
            total = torch.add(total, tensor, alpha=factor)
    return total


def _to_slow(algorithm: GradientBased, slow: Weights, n_tasks: int, asked: Asked) -> dict[str, Tensor]:
    """Return the mean over tasks of what is asked of the weights that the inner loop begins with."""
    with torch.enable_grad():
        leaves = _leaves(slow)
        begun = stack({**algorithm.initial_state(leaves), **algorithm.initial_carry(leaves)}, n_tasks)
        fast = {("fast", n): w for n, w in algorithm.start(leaves, n_tasks).items()}
        outs = fast | {("carry", n): c for n, c in begun.items()}
    of = {("fast", n): a for n, a in asked.fast.items()} | {("carry", n): a for n, a in asked.carry.items()}
    found = _grads({key: out for key, out in outs.items() if key in of}, leaves, of)
    return {name: found[name] / n_tasks if name in found else torch.zeros_like(w) for name, w in leaves.items()}


# Whether a task loss can be differentiated forward over reverse, asked once.

_REASONS: weakref.WeakKeyDictionary[TaskLoss, str] = weakref.WeakKeyDictionary()


def _can_mix(algorithm: GradientBased, task_loss: TaskLoss, slow: Weights, support: Examples) -> bool:
    """Hold a product with the Hessian of one task's loss against one by reverse over reverse; tell once if it fails."""
    if task_loss not in _REASONS:
        _REASONS[task_loss] = reason = _why_not(algorithm, task_loss, slow, _some(support, slice(1)))
        if reason:
            log.warning("unroll mixed: each inner step runs again with its graph (recompute), because %s", reason)
    return not _REASONS[task_loss]


def _why_not(algorithm: GradientBased, task_loss: TaskLoss, slow: Weights, one: Examples) -> str:
    fast = algorithm.start({name: w.detach() for name, w in slow.items()}, 1)
    with torch.enable_grad():
        leaves = _leaves(fast)
        loss = task_loss(leaves, one).sum()
        names = algorithm.adapted(leaves)
        grads = torch.autograd.grad(loss, [leaves[n] for n in names], create_graph=True, allow_unused=True)
    first = {n: g for n, g in zip(names, grads) if g is not None and g.requires_grad}
    along = {n: torch.linspace(-1, 1, w.numel(), dtype=w.dtype, device=w.device).view_as(w) for n, w in fast.items() if n in first}
    expected = _grads(first, leaves, along)
    try:
        got = hessian_product(task_loss, fast, one, along)
    except (NotImplementedError, RuntimeError) as error:
        if "forward" not in str(error).lower():
            raise
        return "the network has no forward-mode derivative: " + " ".join(said(error).split())[:200]
    apart = total = 0.0
    for name in {*got, *expected}:
        zero = torch.zeros_like(fast[name])
        got_one, one_expected = got.get(name, zero), expected.get(name, zero)
        apart, total = apart + float((got_one - one_expected).square().sum()), total + float(one_expected.square().sum())
    exact = next(iter(fast.values())).dtype == torch.float64
    return "" if apart**0.5 <= (1e-9 if exact else 0.02) * total**0.5 else "forward mode gives another second derivative"


def _leaves(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().requires_grad_(t.is_floating_point()) for name, t in tensors.items()}


def _sum(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {**a, **{name: t + a[name] if name in a else t for name, t in b.items()}}


def _grads(
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
