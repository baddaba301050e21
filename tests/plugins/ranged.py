"""Algorithms that say what of them may be searched, and a data set whose meta-test nobody may draw from."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from algorithms.fomaml import FirstOrderMAML
from bench.api import MetaGrad, TaskBatch, TaskLoss, TaskPool, Weights, searched
from bench.registry import DATASETS, register_algorithm, register_dataset
from bench.tasks.images import ImageSet


@register_algorithm("ranged")
@dataclass(frozen=True)
class Ranged(FirstOrderMAML):
    """First-order MAML with ranges; ``fuse`` makes a gradient that is not finite, or raises."""

    inner_lr: float = searched(0.1, low=0.01, high=1.0, log=True)
    inner_steps: int = searched(2, low=1, high=3)
    fuse: str = searched("whole", choices=("whole", "nan", "raises"))

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        """Return the gradient, or what the fuse makes of it."""
        found = super().meta_grad(task_loss, slow, tasks)
        if self.fuse == "raises" and tasks.progress > 0:
            raise RuntimeError("blown")
        spoilt = self.fuse == "nan" and tasks.progress > 0
        return MetaGrad(found.grads, found.query_loss * torch.nan) if spoilt else found


@register_algorithm("blown")
@dataclass(frozen=True)
class Blown(Ranged):
    """One that always fails after its first meta-step."""

    fuse: str = "raises"


class Sealed(ImageSet):
    """Toy data that raises where meta-test is to be drawn from."""

    def pool(self, split: str, rotation: str, device: torch.device) -> TaskPool:
        """Return the pool of a split that may be drawn from."""
        if split == "meta_test":
            raise RuntimeError("meta-test is sealed")
        return super().pool(split, rotation, device)


@register_dataset("sealed")
class SealedToy(DATASETS.get("toy")):
    """The toy data without a meta-test."""

    def load(self, root: Path, cache: Path) -> ImageSet:
        """Return the patterns."""
        known = super().load(root, cache)
        fields = {f.name: getattr(known, f.name) for f in dataclasses.fields(known) if f.init}
        return Sealed(**fields | {"name": "sealed"})
