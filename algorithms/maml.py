"""Full MAML: the query gradient through the unrolled inner loop, by ``higher``'s differentiable optimizers."""

from dataclasses import dataclass

import higher
import torch
from torch import Tensor

from bench.api import MetaAlgorithm, MetaGrad, TaskBatch, TaskLoss, Weights
from bench.registry import register_algorithm


@register_algorithm("maml")
@dataclass(frozen=True)
class MAML(MetaAlgorithm):
    """Model-agnostic meta-learning, second order.

    Adapts weights w_t to every support set t by differentiable SGD and returns the mean over t of
    dL_query(w_t)/dw_0. Memory grows linearly with ``inner_steps``, whose graphs are all kept.
    """

    inner_lr: float = 0.1
    inner_steps: int = 5

    paper = "Finn et al. 2017, arXiv:1703.03400"
    order = "second"

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        """Return the gradient of the mean query loss after adaptation with respect to the weights before it."""
        slow = {name: w.detach().requires_grad_() for name, w in slow.items()}
        fast = self.adapt(task_loss, slow, tasks.support)  # each [T, ...]
        query_loss = task_loss(fast, tasks.query)  # [T]
        grads = torch.autograd.grad(query_loss.mean(), list(slow.values()), materialize_grads=True)
        return MetaGrad(dict(zip(slow, grads)), query_loss.detach())

    def inner_step(self, loss: Tensor, fast: Weights, carry: Weights, step: int) -> tuple[Weights, Weights]:
        """Return the weights one step of ``higher``'s SGD later, differentiable if they lead back to slow ones.

        SGD without momentum has no state, so a new optimizer for each step is the same as one for all.
        """
        names = self.adapted(fast)
        params = [fast[name] for name in names]
        stand_ins = [torch.empty(0) for _ in params]  # torch's optimizers take leaves only; higher wants their number
        optimizer = higher.optim.get_diff_optim(
            torch.optim.SGD(stand_ins, lr=self.inner_lr),
            stand_ins,
            track_higher_grads=not all(w.is_leaf for w in params),
        )
        return dict(zip(names, optimizer.step(loss.sum(), params=params))), carry
