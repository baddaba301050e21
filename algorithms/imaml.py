"""Implicit MAML: the meta-gradient at the end of the inner loop by the implicit function theorem, not by its graph."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.flat import means
from algorithms.inner_loop import GradientBased
from bench.api import MetaGrad, TaskBatch, TaskLoss, Weights, searched
from bench.registry import register_algorithm


@register_algorithm("imaml")
@dataclass(frozen=True)
class ImplicitMAML(GradientBased):
    """Adapts to L_support(w) + lambda / 2 |w - w_0|^2; the meta-gradient x solves (I + H / lambda) x = dL_query/dw.

    H is the Hessian of the support loss at the adapted weights. Conjugate gradients solve the system by products of H
    with vectors, task by task in one batch. It is the exact gradient where the inner loop has come to its minimum and
    the solution to its own; short of that it is not, so no order is claimed. Memory does not grow with ``inner_steps``.
    Cost: ``inner_steps + 2`` backward passes and ``cg_steps`` products, each of which costs about two.

    Attributes:
        inner_steps: 16 in the paper.
        proximity: lambda; 2 in the paper.
        cg_steps: of conjugate gradients; 5 in the paper.
    """

    inner_steps: int = 16
    proximity: float = searched(2.0, low=0.1, high=20.0, log=True)
    cg_steps: int = 5

    paper = "Rajeswaran et al. 2019, arXiv:1909.04630"
    by_default = False

    def __post_init__(self) -> None:
        """Refuse a system that has no solution.

        Raises:
            ValueError: proximity is not above 0, or another number is out of range.
        """
        super().__post_init__()
        if not self.proximity > 0:
            raise ValueError(f"proximity {self.proximity}; accepted: above 0")

    def initial_state(self, slow: Weights) -> Weights:
        """Return the weights that the inner loop stays close to, besides the state of its rule."""
        anchors = {f"anchor/{name}": slow[name].detach() for name in self.adapted(slow)}
        return {**super().initial_state(slow), **anchors}

    def inner_step(self, loss: Tensor, fast: Weights, carry: Weights, step: int) -> tuple[Weights, Weights]:
        """Return the weights one step along the gradient of the support loss and of the distance later."""
        apart = [(fast[name] - carry[f"anchor/{name}"]).flatten(1) for name in self.adapted(fast)]
        distance = torch.stack([d.square().sum(dim=1) for d in apart]).sum(dim=0)  # [T]
        return super().inner_step(loss + 0.5 * self.proximity * distance, fast, carry, step)

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        """Return the mean over tasks of the implicit gradient."""
        fast = self.adapt(task_loss, slow, tasks.support)  # leaves, each [T, ...]
        names = self.adapted(fast)
        adapted, others = [fast[n] for n in names], [n for n in fast if n not in names]
        query_loss = task_loss(fast, tasks.query)  # [T]
        direct = dict(zip(fast, torch.autograd.grad(query_loss.sum(), list(fast.values()), materialize_grads=True)))
        inner = torch.autograd.grad(
            task_loss(fast, tasks.support).sum(), adapted, create_graph=True, materialize_grads=True
        )

        def product(x: list[Tensor], of: list[Tensor]) -> tuple[Tensor, ...]:
            return torch.autograd.grad(inner, of, x, retain_graph=True, allow_unused=True, materialize_grads=True)

        def system(x: list[Tensor]) -> list[Tensor]:
            return [a + (h + self.inner_decay * a) / self.proximity for a, h in zip(x, product(x, adapted))]

        solved = conjugate_gradients(system, [direct[n] for n in names], self.cg_steps)
        grads = dict(zip(names, solved))
        if others:  # what the inner loop leaves alone moves its end as well
            cross = product([-x / self.proximity for x in solved], [fast[n] for n in others])
            grads |= {n: direct[n] + c for n, c in zip(others, cross)}
        return MetaGrad(means({n: grads[n] for n in slow}), query_loss.detach())


def conjugate_gradients(
    system: Callable[[list[Tensor]], list[Tensor]], wanted: list[Tensor], steps: int
) -> list[Tensor]:
    """Return the approximate solution x of ``system(x) = wanted`` of T systems at once, each tensor ``[T, ...]``.

    ``system`` is linear and symmetric, each task's apart from the others'. From x = wanted, where the solution of a
    system that is nearly the identity lies.
    """

    def dot(a: list[Tensor], b: list[Tensor]) -> Tensor:
        return torch.stack([(u * v).flatten(1).sum(dim=1) for u, v in zip(a, b)]).sum(dim=0)  # [T]

    def along(a: list[Tensor], length: Tensor, b: list[Tensor]) -> list[Tensor]:
        return [u + length.view(-1, *[1] * (u.dim() - 1)) * v for u, v in zip(a, b)]

    def ratio(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(b == 0, torch.zeros_like(a), a / torch.where(b == 0, torch.ones_like(b), b))

    x = [w.clone() for w in wanted]
    residual = [w - s for w, s in zip(wanted, system(x))]
    direction, square = residual, dot(residual, residual)
    for _ in range(steps):
        moved = system(direction)
        length = ratio(square, dot(direction, moved))
        x, residual = along(x, length, direction), along(residual, -length, moved)
        last, square = square, dot(residual, residual)
        direction = along(residual, ratio(square, last), direction)
    return x
