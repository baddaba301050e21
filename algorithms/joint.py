"""Joint training: one network for all tasks at once, the baseline that meta-learning has to beat."""

from dataclasses import dataclass

import torch

from algorithms.flat import means
from algorithms.inner_loop import GradientBased
from bench.api import MetaGrad, TaskBatch, TaskLoss, Weights
from bench.registry import register_algorithm


@register_algorithm("joint")
@dataclass(frozen=True)
class Joint(GradientBased):
    """The gradient of the mean loss over all examples of all tasks, at the slow weights: no inner loop in training.

    At test it adapts by ``inner_steps`` steps of its inner rule, like everybody. Reptile with one inner step is this
    times ``inner_lr``; with more it is not.

    Attributes:
        train_batch: examples of each task that a training step sees, the first minibatch that Reptile would take; none
            for all of them.
    """

    train_batch: int | None = None

    paper = "the baseline of Nichol et al. 2018, arXiv:1803.02999 (also called pretraining)"
    by_default = False

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        """Return the mean over tasks of the gradient at the slow weights, on support and query together."""
        weights = self.start(slow, tasks.support.n_tasks)  # each [T, ...]
        (batch,) = tasks.together().minibatches(self.train_batch, 1)
        loss = task_loss(weights, batch)  # [T]
        per_task = torch.autograd.grad(loss.sum(), list(weights.values()), materialize_grads=True)
        return MetaGrad(means(dict(zip(weights, per_task))), loss.detach())
