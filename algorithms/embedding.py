"""What algorithms share that score by embeddings of the support set and adapt nothing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.api import Examples, MetaAlgorithm, MetaGrad, Predictor, TaskBatch, TaskLoss, Weights, stack


@dataclass(frozen=True)
class Embedding(MetaAlgorithm):
    """The network maps inputs to embeddings, and ``scored`` maps those of support and query to scores of the query.

    The exact gradient of the loss of these scores. Cost: one forward and one backward pass, no inner loop.

    Attributes:
        embedding: outputs of the network.
    """

    embedding: int = 64

    order = "second"
    by_default = False

    @abstractmethod
    def scored(self, slow: Weights, support: Examples, known: Tensor, asked: Tensor) -> Tensor:
        """Return the scores ``[T, n, n_way]`` of queries.

        Args:
            known: embeddings of the support set, ``[T, N*K, embedding]``.
            asked: those of n queries, ``[T, n, embedding]``.
        """

    def output_size(self, n_way: int) -> int:
        """Return the size of an embedding, whatever the number of classes."""
        return self.embedding

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        """Return the gradient of the mean loss of the queries' scores."""
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
        return self.scored(slow, support, outputs[:, :shots], outputs[:, shots:])
