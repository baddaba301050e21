"""Full MAML: the query gradient through the unrolled inner loop, by ``higher``'s differentiable optimizers."""

from dataclasses import dataclass

import torch

from algorithms.inner_loop import GradientBased
from bench.api import MetaGrad, TaskBatch, TaskLoss, Weights
from bench.registry import register_algorithm


@register_algorithm("maml")
@dataclass(frozen=True)
class MAML(GradientBased):
    """Model-agnostic meta-learning, second order.

    Adapts weights w_t to every support set t by a differentiable rule and returns the mean over t of
    dL_query(w_t)/dw_0. Memory grows linearly with ``inner_steps``, whose graphs are all kept.
    """

    paper = "Finn et al. 2017, arXiv:1703.03400"
    order = "second"

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        """Return the gradient of the mean query loss after adaptation with respect to the weights before it."""
        slow = {name: w.detach().requires_grad_() for name, w in slow.items()}
        fast = self.adapt(task_loss, slow, tasks.support)  # each [T, ...]
        query_loss = task_loss(fast, tasks.query)  # [T]
        grads = torch.autograd.grad(query_loss.mean(), list(slow.values()), materialize_grads=True)
        return MetaGrad(dict(zip(slow, grads)), query_loss.detach())
