"""Full MAML: the query gradient through the unrolled inner loop, by ``higher``'s differentiable optimizers."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from algorithms.inner_loop import GradientBased
from algorithms.unroll import meta_gradient
from bench.api import MetaGrad, TaskBatch, TaskLoss, Weights
from bench.registry import register_algorithm, unknown

Unroll = Literal["higher", "mixed", "recompute"]


@dataclass(frozen=True)
class SecondOrder(GradientBased):
    """What differentiates through its inner loop, by the graph of all its steps."""

    order = "second"

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        """Return the gradient of the mean query loss after adaptation with respect to the weights before it."""
        slow = {name: w.detach().requires_grad_() for name, w in slow.items()}
        fast = self.adapt(task_loss, slow, tasks.support)  # each [T, ...]
        query_loss = task_loss(fast, tasks.query)  # [T]
        grads = torch.autograd.grad(query_loss.mean(), list(slow.values()), materialize_grads=True)
        return MetaGrad(dict(zip(slow, grads)), query_loss.detach())


@register_algorithm("maml")
@dataclass(frozen=True)
class MAML(SecondOrder):
    """Model-agnostic meta-learning, second order.

    Adapts weights w_t to every support set t by a differentiable rule and returns the mean over t of
    dL_query(w_t)/dw_0. How the derivative passes through the inner loop is a setting, which changes cost alone.

    Attributes:
        unroll: ``higher`` keeps the graphs of all inner steps, so that memory grows linearly with ``inner_steps``. The
            others keep of each step the weights and what costly products gave, and run it again on the way back:
            ``recompute`` with its graph, ``mixed`` in mixed mode (Kemaev et al. 2025, arXiv:2505.00793). A network that
            forward mode cannot follow takes the way of ``recompute`` and says so.
    """

    unroll: Unroll = "higher"

    paper = "Finn et al. 2017, arXiv:1703.03400"

    def __post_init__(self) -> None:
        """Refuse settings that would silently mean something else.

        Raises:
            ValueError: an unknown unroll or inner_optimizer, or a number out of range.
        """
        super().__post_init__()
        if self.unroll not in get_args(Unroll):
            raise ValueError(unknown("unroll", self.unroll, get_args(Unroll)))

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        """Return the gradient of the mean query loss after adaptation with respect to the weights before it."""
        if self.unroll == "higher":
            return super().meta_grad(task_loss, slow, tasks)
        return meta_gradient(self, task_loss, slow, tasks, self.unroll == "mixed")
