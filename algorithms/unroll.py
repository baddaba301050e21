"""Meta-gradients led back from inner step to inner step, of which weights are kept and what is costly: no graph of all.

A step goes from weights w, along the gradient g(w) of the support loss, to weights U(w, g). What is asked of the latter
(the derivative of the query loss) is led back to w directly, through U, and through g: by a product with the support
loss's Hessian. The step runs again for that: with its graph, or in mixed mode (Kemaev et al. 2025, arXiv:2505.00793),
which needs no graph of second order.
"""

from __future__ import annotations

import functools
import logging
import warnings
import weakref
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from algorithms.inner_loop import GradientBased
from algorithms.step_back import Asked, Rule, Stand, added, by_numbers, coefficients, is_linear, leaves_of, led_back
from bench.api import BenchError, Examples, MetaGrad, Recall, TaskBatch, TaskLoss, Weights, stack
from bench.registry import said

log = logging.getLogger("bench")

# Steps that have been held against the loop that took them, once: the host waits for the device then.
_HELD: weakref.WeakKeyDictionary[TaskLoss, set[object]] = weakref.WeakKeyDictionary()

_AS_A_STEP = 2  # images of a query pass that take the memory of one image in a step that is led back through, or less


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
        mixed: products with the Hessian in mixed mode where the loss can; else each step runs again with its graph.
        importance: weight of the query loss after each step, ``[inner_steps]``; that of the last alone unless given.
    Raises:
        BenchError: the algorithm takes its inner steps in a way that cannot be followed back.
    """
    support, steps = tasks.support, algorithm.inner_steps
    product = _product(algorithm, task_loss, slow, support) if mixed else None
    linear = product is not None and is_linear(algorithm)
    numbers = coefficients(algorithm) if linear else {}
    noted = _Noted(task_loss)
    path = list(_path(algorithm, noted, slow, support, product is not None, linear))
    if len(noted.batches) != steps:
        raise BenchError(
            f"{type(algorithm).__name__}: {len(noted.batches)} losses in {steps} inner steps, which only their graph"
            " leads back through; accepted: unroll higher"
        )
    total, found = _query(task_loss, path[-1].fast, tasks, None if importance is None else importance[-1])
    asked, end = Asked(found, {}), path.pop().fast
    held, rule_of = _HELD.setdefault(task_loss, set()), type(algorithm).inner_step
    for step in reversed(range(steps)):
        at, batch = path.pop(), noted.batches[step]
        against = end if step == steps - 1 and rule_of not in held else None
        end = {}
        kept = noted.kept.pop()
        if product is None:
            asked = Rule(algorithm, at, step, against).again(task_loss, batch, asked, kept)
        else:
            rule = Rule(algorithm, at, step, against) if not linear else None
            direct, along = rule.noted(asked) if rule else by_numbers(numbers, algorithm.adapted(at.fast), asked)
            through = product(task_loss, at.fast, batch, along, kept) if along else {}
            asked = Asked(added(direct.fast, through), direct.carry)
            del rule, direct, along, through
        if importance is not None and step:
            loss, found = _query(task_loss, at.fast, tasks, importance[step - 1])
            total, asked = total + loss, Asked(added(asked.fast, found), asked.carry)
    if not linear:
        held.add(rule_of)
    return MetaGrad(_to_slow(algorithm, slow, support.n_tasks, asked), total)


class _Noted:
    """A task loss that notes of which examples it was, and what the network's products gave."""

    def __init__(self, task_loss: TaskLoss) -> None:
        self._task_loss, self.batches, self.kept = task_loss, list[Examples](), list[Recall]()

    def __call__(self, fast: Weights, examples: Examples) -> Tensor:
        return self._noted(examples, lambda: self._task_loss(fast, examples))

    def moving(self, examples: Examples, names: Collection[str]) -> Callable[[Weights], Tensor]:
        known = hasattr(self._task_loss, "moving")
        loss_of = self._task_loss.moving(examples, names) if known else lambda fast: self._task_loss(fast, examples)

        first = len(self.kept)

        def noted(fast: Weights) -> Tensor:
            loss = self._noted(examples, lambda: loss_of(fast))
            self.kept[-1].follow(self.kept[first])
            return loss

        return noted

    def _noted(self, examples: Examples, run: Callable[[], Tensor]) -> Tensor:
        self.batches.append(examples)
        self.kept.append(Recall())
        loss: Tensor = self.kept[-1].note(run)
        return loss

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task_loss, name)


def _path(
    algorithm: GradientBased, task_loss: _Noted, slow: Weights, support: Examples, mixed: bool, linear: bool
) -> Iterator[Stand]:
    """Yield where the inner loop stands before its first step and after each, with what the way back asks for."""
    slow = {name: w.detach() for name, w in slow.items()}
    for state in algorithm.adaptation(task_loss, slow, support, algorithm.inner_steps):
        stand = Stand(state.fast, {} if linear else state.carry)
        for name in algorithm.adapted(state.fast) if mixed and not linear else ():
            state.fast[name].register_hook(functools.partial(_note, stand.slopes, name))
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
            leaves = leaves_of({name: w[part] for name, w in fast.items()})
            loss = task_loss(leaves, _some(query, part))
            loss = loss if weight is None else loss * weight.to(loss)
        losses.append(loss.detach())
        for name, g in led_back({"": loss.sum()}, leaves).items():
            if at_once >= query.n_tasks:
                found[name] = g
            else:
                found.setdefault(name, torch.zeros_like(fast[name]))[part] = g
    return torch.cat(losses), found


def _some(examples: Examples, part: slice) -> Examples:
    classes = None if examples.classes is None else examples.classes[part]
    return Examples(examples.x[part], examples.y[part], n_way=examples.n_way, classes=classes)


def hessian_by_forward(
    task_loss: TaskLoss, fast: Weights, batch: Examples, along: Weights, kept: Recall
) -> dict[str, Tensor]:
    """Return by weight how the gradient of each task's loss changes along a direction of some of them, ``[T, ...]``.

    Reverse over forward: dual numbers pass through the network, and one backward pass through what they tell, how the
    loss changes. So the gradient itself is never computed. Of the loss behind the outputs, which is small, torch takes
    two derivatives backward: some of its forward rules cannot be differentiated.
    """
    _load_rules()
    with torch.enable_grad():
        leaves = leaves_of(fast)
        with forward_ad.dual_level():
            dual = _dual(leaves, along)
            outputs, moved = forward_ad.unpack_dual(kept.again(lambda: task_loss.outputs(dual, batch.x)))
        if moved is None:
            return {}
        loss = task_loss.of_outputs(outputs, batch.y).sum()
        (slope,) = torch.autograd.grad(loss, outputs, create_graph=True)
        return led_back({"": (slope * moved).sum()}, leaves)


def hessian_by_reverse(
    task_loss: TaskLoss, fast: Weights, batch: Examples, along: Weights, kept: Recall
) -> dict[str, Tensor]:
    """Return the same forward over reverse: dual numbers pass through the loss and back."""
    _load_rules()
    with forward_ad.dual_level(), torch.enable_grad():
        dual = _dual(leaves_of(fast), along)
        grads = led_back({"": kept.again(lambda: task_loss(dual, batch)).sum()}, dual)
        moved = {name: forward_ad.unpack_dual(g).tangent for name, g in grads.items()}
    return {name: tangent for name, tangent in moved.items() if tangent is not None}


def _dual(leaves: Weights, along: Weights) -> dict[str, Tensor]:
    return {n: forward_ad.make_dual(_alone(w), along[n]) if n in along else w for n, w in leaves.items()}


def _alone(w: Tensor) -> Tensor:
    """Return ``w`` in memory of its own: torch makes a tangent as large as all that ``w`` shares memory with.

    And none at all for weights that tasks share.
    """
    return w if w.untyped_storage().nbytes() == w.numel() * w.element_size() else w.clone()


@functools.cache
def _load_rules() -> None:
    """Have torch load its rules, which it compiles by something that it calls deprecated at the first dual number."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", FutureWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))


def _to_slow(algorithm: GradientBased, slow: Weights, n_tasks: int, asked: Asked) -> dict[str, Tensor]:
    """Return the mean over tasks of what is asked of the weights that the inner loop begins with."""
    with torch.enable_grad():
        leaves = leaves_of(slow)
        begun = stack({**algorithm.initial_state(leaves), **algorithm.initial_carry(leaves)}, n_tasks)
        fast = {("fast", n): w for n, w in algorithm.start(leaves, n_tasks).items()}
        outs = fast | {("carry", n): c for n, c in begun.items()}
    of = {("fast", n): a for n, a in asked.fast.items()} | {("carry", n): a for n, a in asked.carry.items()}
    found = led_back({key: out for key, out in outs.items() if key in of}, leaves, of)
    return {name: found[name] / n_tasks if name in found else torch.zeros_like(w) for name, w in leaves.items()}


# Which way a task loss can go, asked once.

_Product = Callable[[TaskLoss, Weights, Examples, Weights, Recall], dict[str, Tensor]]
_PRODUCTS: weakref.WeakKeyDictionary[TaskLoss, dict[frozenset[str], _Product | None]] = weakref.WeakKeyDictionary()


def _product(algorithm: GradientBased, task_loss: TaskLoss, slow: Weights, support: Examples) -> _Product | None:
    """Return what gives products with the Hessian of this loss in mixed mode; None if nothing does, said once."""
    known = _PRODUCTS.setdefault(task_loss, {})
    names = frozenset(algorithm.adapted(slow))
    if names not in known:
        why, found = "", None
        for product in (hessian_by_forward, hessian_by_reverse):
            if not (why := _why_not(product, algorithm, task_loss, slow, _some(support, slice(1)))):
                found = product
                break
        else:
            log.warning("unroll mixed: each inner step runs again with its graph (recompute), because %s", why)
        known[names] = found  # only now: memory may have run out on the way
    return known[names]


def _why_not(product: _Product, algorithm: GradientBased, task_loss: TaskLoss, slow: Weights, one: Examples) -> str:
    """Hold a product for one task against reverse over reverse."""
    fast = {n: w.detach() for n, w in algorithm.start({n: w.detach() for n, w in slow.items()}, 1).items()}
    with torch.enable_grad():
        leaves = leaves_of(fast)
        loss = task_loss(leaves, one).sum()
        names = algorithm.adapted(leaves)
        grads = torch.autograd.grad(loss, [leaves[n] for n in names], create_graph=True, allow_unused=True)
    first = {n: g for n, g in zip(names, grads) if g is not None and g.requires_grad}
    along = {n: _ramp(fast[n]) for n in first}
    expected = led_back(first, leaves, along)
    try:
        got = product(task_loss, fast, one, along, Recall())
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of a network whose backward pass has just been differentiated, or of torch with it
        return "forward mode cannot follow the network: " + " ".join(said(error).split())[:200]
    apart, total = (
        sum(float((got.get(n, 0 * w) - share * expected.get(n, 0 * w)).square().sum()) for n, w in fast.items())
        for share in (1, 0)
    )
    rounding = 1e-9 if loss.dtype == torch.float64 else 0.02
    return "" if apart <= rounding**2 * total else "forward mode gives another second derivative"


def _ramp(w: Tensor) -> Tensor:
    return torch.linspace(-1, 1, w.numel(), dtype=w.dtype, device=w.device).view_as(w)
