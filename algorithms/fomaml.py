"""First-order MAML: the query gradient at the adapted weights, used as the meta-gradient."""

from dataclasses import dataclass

import torch

from algorithms.flat import means
from algorithms.inner_loop import GradientBased
from bench.api import MetaGrad, TaskBatch, TaskLoss, Weights
from bench.registry import register_algorithm


@register_algorithm("fomaml")
@dataclass(frozen=True)
class FirstOrderMAML(GradientBased):
    """MAML without its second-order term.

    Adapts weights w_t to every support set t and returns the mean over t of dL_query(w_t)/dw_t.
    Cost: ``inner_steps + 1`` backward passes; memory does not grow with ``inner_steps``.
    """

    paper = "Finn et al. 2017, arXiv:1703.03400, section 5.2"
    order = "first"

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        """Return the mean over tasks of the query gradient at the adapted weights."""
        fast = self.adapt(task_loss, slow, tasks.support)  # each [T, ...]
        query_loss = task_loss(fast, tasks.query)  # [T]
        per_task = torch.autograd.grad(query_loss.sum(), list(fast.values()), materialize_grads=True)
        return MetaGrad(means(dict(zip(fast, per_task))), query_loss.detach())  # each [...]
