"""Prototypical networks: the class whose mean support embedding is nearest; nothing adapts."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from algorithms.embedding import Embedding
from bench.api import BenchError, Examples, Weights
from bench.registry import register_algorithm


@register_algorithm("protonet")
@dataclass(frozen=True)
class PrototypicalNetwork(Embedding):
    """Scores are minus the squared Euclidean distance of a query's embedding to the mean of each class's support.

    The exact gradient of the cross-entropy of these scores. Cost: one forward and one backward pass, no inner loop. The
    paper takes the output of the last convolution as embedding; here a linear layer follows.
    """

    paper = "Snell et al. 2017, arXiv:1703.05175"

    def class_weights(self, network: Weights, n_classes: int) -> Weights:
        """Return none, but see that there are classes.

        Raises:
            BenchError: there are none.
        """
        if not n_classes:
            raise BenchError("protonet compares classes, and this data set has none; accepted: image data sets")
        return {}

    def scored(self, slow: Weights, support: Examples, known: Tensor, asked: Tensor) -> Tensor:
        """Return minus the squared distances ``[T, n, n_way]`` of queries to prototypes."""
        members = F.one_hot(support.y, support.n_way).to(known.dtype).transpose(1, 2)  # [T, n_way, N*K]
        prototypes = members @ known / members.sum(dim=2, keepdim=True)  # [T, n_way, embedding]
        return -(asked[:, :, None] - prototypes[:, None]).square().sum(dim=3)
