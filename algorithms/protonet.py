"""Prototypical networks: the class whose mean support embedding is nearest; nothing adapts."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import BenchError, Examples, MetaAlgorithm, MetaGrad, Predictor, TaskBatch, TaskLoss, Weights, stack
from bench.registry import register_algorithm


@register_algorithm("protonet")
@dataclass(frozen=True)
class PrototypicalNetwork(MetaAlgorithm):
    """Scores are minus the squared Euclidean distance of a query's embedding to the mean of each class's support.

    The exact gradient of the cross-entropy of these scores. Cost: one forward and one backward pass, no inner loop.

    Attributes:
        embedding: outputs of the network. The paper takes the output of the last convolution itself; here a linear
            layer follows.
    """

    embedding: int = 64

    paper = "Snell et al. 2017, arXiv:1703.05175"
    order = "second"
    by_default = False

    def output_size(self, n_way: int) -> int:
        """Return the size of an embedding, whatever the number of classes."""
        return self.embedding

    def class_weights(self, network: Weights, n_classes: int) -> Weights:
        """Return none, but see that there are classes.

        Raises:
            BenchError: there are none.
        """
        if not n_classes:
            raise BenchError("protonet compares classes, and this data set has none; accepted: image data sets")
        return {}

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        """Return the gradient of the mean cross-entropy of the query images' scores."""
        slow = {name: w.detach().requires_grad_() for name, w in slow.items()}
        scores = self.scores(task_loss, slow, tasks.support, tasks.query.x)  # [T, n, n_way]
        query_loss = task_loss.of_outputs(scores, tasks.query.y)  # [T]
        grads = torch.autograd.grad(query_loss.mean(), list(slow.values()), materialize_grads=True)
        return MetaGrad(dict(zip(slow, grads)), query_loss.detach())

    def predictors(
        self, task_loss: TaskLoss, slow: Weights, support: Examples, steps: int | None, carry: Weights
    ) -> Iterator[Predictor]:
        """Yield the one predictor that there is."""
        yield lambda x: self.scores(task_loss, slow, support, x)

    def scores(self, task_loss: TaskLoss, slow: Weights, support: Examples, x: Tensor) -> Tensor:
        """Return the scores ``[T, n, n_way]`` of inputs, which normalisation sees in one batch with the support's."""
        outputs = task_loss.outputs(stack(slow, support.n_tasks), torch.cat([support.x, x], dim=1))
        shots = support.y.shape[1]
        members = F.one_hot(support.y, support.n_way).to(outputs.dtype).transpose(1, 2)  # [T, n_way, N*K]
        prototypes = members @ outputs[:, :shots] / members.sum(dim=2, keepdim=True)  # [T, n_way, embedding]
        return -(outputs[:, shots:, None] - prototypes[:, None]).square().sum(dim=3)
