"""Training from scratch: the initial weights adapt to every test task; the baseline without meta-training."""

from dataclasses import dataclass

import torch

from algorithms.inner_loop import GradientBased
from bench.api import MetaGrad, TaskBatch, TaskLoss, Weights, stack
from bench.registry import register_algorithm


@register_algorithm("scratch")
@dataclass(frozen=True)
class Scratch(GradientBased):
    """Learns nothing from training tasks: the meta-gradient is zero. What it reaches, the support set alone gives.

    All tasks of a seed begin with the same random weights, where the paper draws them for every task. Training costs a
    forward pass of the query set, whose loss is the curve's.

    Attributes:
        inner_steps: at test, where nothing else is said; the paper trains for 100 steps and more.
    """

    inner_steps: int = 50

    paper = "the baseline without pretraining; compare Chen et al. 2019, arXiv:1904.04232"
    by_default = False
    learns = False

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        """Return zeros, with the query losses of the initial weights."""
        with torch.no_grad():
            query_loss = task_loss(stack(slow, tasks.query.n_tasks), tasks.query)  # [T]
        return MetaGrad({name: torch.zeros_like(w) for name, w in slow.items()}, query_loss)
