"""Three algorithms unlike the built-in ones, written against bench.api alone: they prove that the contract has room."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import Examples, MetaAlgorithm, MetaGrad, Predictor, TaskBatch, TaskLoss, Weights, stack
from bench.registry import register_algorithm


class SecondOrder(MetaAlgorithm):
    """A meta-gradient straight through the inner loop, by torch's own graph."""

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        slow = {name: w.detach().requires_grad_() for name, w in slow.items()}
        query_loss = task_loss(self.adapt(task_loss, slow, tasks.support), tasks.query)
        grads = torch.autograd.grad(query_loss.mean(), list(slow.values()), materialize_grads=True)
        return MetaGrad(dict(zip(slow, grads)), query_loss.detach())


@register_algorithm("toy-meta-sgd")
@dataclass(frozen=True)
class MetaSGD(SecondOrder):
    """Learns an inner rate for every parameter beside its initial value (Li et al. 2017, arXiv:1707.09835)."""

    inner_lr: float = 0.1  # where the learned rates start
    inner_steps: int = 1

    paper = "Li et al. 2017, arXiv:1707.09835"

    def extra_weights(self, network: Weights) -> Weights:
        return {f"rate/{name}": torch.full_like(w, self.inner_lr) for name, w in network.items()}

    def inner_step(self, loss: Tensor, fast: Weights, carry: Weights, step: int) -> tuple[Weights, Weights]:
        return {n: fast[n] - fast[f"rate/{n}"] * g for n, g in self.inner_grads(loss, fast).items()}, carry


@register_algorithm("toy-anil")
@dataclass(frozen=True)
class ANIL(SecondOrder):
    """Adapts the last layer only (Raghu et al. 2020, arXiv:1909.09157)."""

    inner_lr: float = 0.1
    inner_steps: int = 3

    paper = "Raghu et al. 2020, arXiv:1909.09157"

    def adapted(self, slow: Weights) -> list[str]:
        return list(slow)[-2:]


@register_algorithm("toy-protonet")
@dataclass(frozen=True)
class PrototypicalNetwork(MetaAlgorithm):
    """Assigns queries to the nearest class mean of an embedding, without an inner loop (Snell et al. 2017)."""

    embedding: int = 64

    paper = "Snell et al. 2017, arXiv:1703.05175"

    def output_size(self, n_way: int) -> int:
        return self.embedding

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        slow = {name: w.detach().requires_grad_() for name, w in slow.items()}
        scores = self._scores(task_loss, slow, tasks.support, tasks.query.x)
        loss = F.cross_entropy(scores.flatten(0, 1), tasks.query.y.flatten(), reduction="none")
        query_loss = loss.view(tasks.query.y.shape).mean(dim=1)
        grads = torch.autograd.grad(query_loss.mean(), list(slow.values()), materialize_grads=True)
        return MetaGrad(dict(zip(slow, grads)), query_loss.detach())

    def predictors(
        self, task_loss: TaskLoss, slow: Weights, support: Examples, steps: int | None, carry: Weights
    ) -> Iterator[Predictor]:
        yield lambda x: self._scores(task_loss, slow, support, x)

    def _scores(self, task_loss: TaskLoss, slow: Weights, support: Examples, x: Tensor) -> Tensor:
        outputs = task_loss.outputs(stack(slow, support.n_tasks), torch.cat([support.x, x], dim=1))
        n = support.y.shape[1]
        members = F.one_hot(support.y, support.n_way).to(outputs.dtype).transpose(1, 2)  # [T, N, n]
        prototypes = members @ outputs[:, :n] / members.sum(dim=2, keepdim=True)  # [T, N, embedding]
        return -torch.cdist(outputs[:, n:], prototypes).square()
