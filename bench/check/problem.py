"""Small problems to hold plugins against: random images, tasks of them one by one, a small network, in float64."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bench.api import Examples, TaskBatch
from bench.network.model import Classifier


def image_tasks(
    rng: torch.Generator,
    n_tasks: int,
    n_way: int = 5,
    k_shot: int = 1,
    k_query: int = 2,
    size: int = 28,
    dtype: torch.dtype = torch.float64,
) -> TaskBatch:
    """Return tasks of random images with balanced labels, and minibatch orders drawn once."""

    def examples(k: int) -> Examples:
        x = torch.rand(n_tasks, n_way * k, 1, size, size, generator=rng, dtype=dtype)
        y = torch.arange(n_way).repeat_interleave(k).expand(n_tasks, -1)
        drawn: dict[int, list[Tensor]] = {}

        def orders(passes: int, n: int) -> Tensor:
            while len(drawn.setdefault(n, [])) < passes:
                drawn[n].append(torch.rand(n_tasks, n, generator=rng).argsort(dim=1))
            return torch.stack(drawn[n][:passes], dim=1)

        return Examples(x, y, orders)

    return TaskBatch(examples(k_shot), examples(k_query))


def one_task(tasks: TaskBatch, t: int, copies: int = 1) -> TaskBatch:
    """Return task t of a batch as a batch of its own, of ``copies`` tasks that are all alike."""

    def part(e: Examples) -> Examples:
        def repeated(x: Tensor) -> Tensor:
            return x[t : t + 1].expand(copies, *x.shape[1:]).clone()

        return Examples(repeated(e.x), repeated(e.y), lambda passes, n: repeated(e.orders(passes, n)))

    return TaskBatch(part(tasks.support), part(tasks.query), tasks.carry)


def small_classifier(
    rng: torch.Generator, n_way: int = 5, size: int = 8, dtype: torch.dtype = torch.float64
) -> Classifier:
    """Return a two-layer convolutional network with BatchNorm, its weights drawn from ``rng``."""
    side = -(-size // 4)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * side * side, n_way),
    ).to(dtype)  # fmt: skip
    for p in network.parameters():
        p.data = 0.5 * torch.randn(p.shape, generator=rng, dtype=dtype)
    return Classifier(network)


def relative_error(got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Return the norm of the difference over the norm of what is expected, over all named tensors."""
    assert set(got) == set(expected)
    return float((flat(got) - flat(expected)).norm() / flat(expected).norm())


def flat(tensors: Mapping[str, Tensor]) -> Tensor:
    """Return all tensors in one vector, float64, in the order of their names."""
    return torch.cat([tensors[name].detach().double().flatten() for name in sorted(tensors)] or [torch.zeros(0)])
