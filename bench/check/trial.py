"""Small problems in float64, and an algorithm tried on one of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bench.api import BenchError, Examples, MetaAlgorithm, MetaGrad, TaskBatch, TaskLoss, Weights
from bench.check.verdicts import Broken
from bench.network.build import extra_weights
from bench.network.model import Classifier
from bench.registry import hyperparameter_names


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

        return Examples(x, y, orders, n_way, torch.arange(n_tasks * n_way).view(n_tasks, n_way))

    return TaskBatch(examples(k_shot), examples(k_query))


def one_task(tasks: TaskBatch, t: int, copies: int = 1) -> TaskBatch:
    """Return task t of a batch as a batch of its own, of ``copies`` tasks that are all alike."""

    def part(e: Examples) -> Examples:
        def repeated(x: Tensor) -> Tensor:
            return x[t : t + 1].expand(copies, *x.shape[1:]).clone()

        classes = None if e.classes is None else repeated(e.classes)
        return Examples(repeated(e.x), repeated(e.y), lambda passes, n: repeated(e.orders(passes, n)), e.n_way, classes)

    return replace(tasks, support=part(tasks.support), query=part(tasks.query))


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


@dataclass(frozen=True)
class Trial:
    """One algorithm on one small problem; whatever it is given is a copy, so that no check disturbs another."""

    algorithm: MetaAlgorithm
    task_loss: TaskLoss
    slow: Weights
    tasks: TaskBatch

    def estimate(self, tasks: TaskBatch | None = None, slow: Weights | None = None) -> MetaGrad:
        """Return what ``meta_grad`` makes of copies of the tasks and the slow weights."""
        given = self.slow if slow is None else slow
        return self.algorithm.meta_grad(self.task_loss, copied(given), copied_tasks(tasks or self.tasks))

    def alone(self) -> list[MetaGrad]:
        """Return the estimates of the tasks, each in a batch of its own."""
        return [self.estimate(one_task(self.tasks, t)) for t in range(self.tasks.support.n_tasks)]


@dataclass(frozen=True)
class Algorithm:
    """An algorithm under the checks."""

    name: str
    cls: type[MetaAlgorithm]

    def trial(
        self,
        n_tasks: int = 3,
        size: int = 8,
        dtype: torch.dtype = torch.float64,
        n_way: int = 5,
        k_shot: int = 1,
        **changed: object,
    ) -> Trial:
        """Return it on random images and a small network, the same ones every time, some hyperparameters changed."""
        rng = torch.Generator().manual_seed(0)
        known = hyperparameter_names(self.cls)
        algorithm = self.cls(**{n: v for n, v in changed.items() if n in known})
        task_loss = small_classifier(rng, n_way=algorithm.output_size(n_way), size=size, dtype=dtype)
        with told():
            extra = extra_weights(self.name, algorithm, task_loss.weights, n_tasks * n_way)
        slow = {**task_loss.weights, **{name: w.detach().clone() for name, w in extra.items()}}
        tasks = image_tasks(rng, n_tasks, n_way, k_shot, size=size, dtype=dtype)
        carry, half = (
            algorithm.initial_carry(slow),
            torch.tensor(0.5),
        )  # of a run: what is annealed at its beginning is over
        return Trial(
            algorithm, task_loss, slow, TaskBatch(tasks.support, tasks.query, carry, half, algorithm.phase(0.5))
        )

    @property
    def has_inner_loop(self) -> bool:
        """Whether it declares ``inner_steps``, as one that adapts step by step."""
        return "inner_steps" in hyperparameter_names(self.cls)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Make what the harness tells at run time, in one line of what is wrong and what to do, the words of a check.

    Raises:
        Broken: in place of a BenchError.
    """
    try:
        yield
    except BenchError as error:
        found, _, remedy = str(error).partition(": ")[2].rpartition("; ")
        raise Broken(found, remedy) from error


def copied(weights: Weights) -> dict[str, Tensor]:
    """Return copies of tensors by name."""
    return {name: w.clone() for name, w in weights.items()}


def copied_tasks(tasks: TaskBatch) -> TaskBatch:
    """Return tasks whose tensors may be written to without harm to anybody."""

    def part(e: Examples) -> Examples:
        classes = None if e.classes is None else e.classes.clone()
        return Examples(e.x.clone(), e.y.clone(), lambda passes, n: e.orders(passes, n).clone(), e.n_way, classes)

    return replace(tasks, support=part(tasks.support), query=part(tasks.query), carry=copied(tasks.carry))
