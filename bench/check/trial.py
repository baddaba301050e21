"""An algorithm under the checks, on one small problem."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.api import Examples, MetaAlgorithm, MetaGrad, TaskBatch, TaskLoss, Weights
from bench.check.problem import image_tasks, one_task, small_classifier
from bench.check.verdicts import Broken
from bench.registry import hyperparameter_names


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

    def trial(self, n_tasks: int = 3, size: int = 8, dtype: torch.dtype = torch.float64, **changed: object) -> Trial:
        """Return it on random images and a small network, the same ones every time, some hyperparameters changed."""
        rng = torch.Generator().manual_seed(0)
        known = hyperparameter_names(self.cls)
        algorithm = self.cls(**{n: v for n, v in changed.items() if n in known})
        task_loss = small_classifier(rng, n_way=algorithm.output_size(5), size=size, dtype=dtype)
        weights = task_loss.weights
        extra = algorithm.extra_weights(weights)
        if misnamed := [name for name in extra if "/" not in name]:
            raise Broken(
                f"extra weights {misnamed} have no slash in their names",
                'name them like "rate/conv1.weight": the slash keeps the inner loop from adapting them',
            )
        slow = {**weights, **extra}
        tasks = image_tasks(rng, n_tasks, size=size, dtype=dtype)
        return Trial(algorithm, task_loss, slow, TaskBatch(tasks.support, tasks.query, algorithm.initial_carry(slow)))

    @property
    def has_inner_loop(self) -> bool:
        """Whether it declares the fields of one that adapts by gradient steps."""
        return {"inner_lr", "inner_steps"} <= set(hyperparameter_names(self.cls))


def copied(weights: Weights) -> dict[str, Tensor]:
    """Return copies of tensors by name."""
    return {name: w.clone() for name, w in weights.items()}


def copied_tasks(tasks: TaskBatch) -> TaskBatch:
    """Return tasks whose tensors may be written to without harm to anybody."""

    def part(e: Examples) -> Examples:
        return Examples(e.x.clone(), e.y.clone(), lambda passes, n: e.orders(passes, n).clone())

    return TaskBatch(part(tasks.support), part(tasks.query), copied(tasks.carry))
