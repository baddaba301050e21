"""Meta-SGD: MAML that learns an inner rate for every weight, beside the weight itself."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.maml import MAML
from bench.api import Weights, searched
from bench.registry import register_algorithm


@register_algorithm("meta-sgd")
@dataclass(frozen=True)
class MetaSGD(MAML):
    """An inner rate for every single weight, learned by the outer loop; direction and length of a step are learned.

    The exact gradient with respect to weights and rates, second order. Rates may become negative, as in the paper.
    Cost: that of MAML, and twice as many slow weights.

    Attributes:
        inner_lr: where all rates begin; the paper draws them from 0.005 to 0.1.
        inner_steps: 1 in the paper.
    """

    inner_lr: float = searched(0.1, low=0.005, high=1.0, log=True)
    inner_steps: int = 1

    paper = "Li et al. 2017, arXiv:1707.09835"
    by_default = False

    def extra_weights(self, network: Weights) -> Weights:
        """Return the initial rate of every weight that adapts."""
        return {f"rate/{name}": torch.full_like(network[name], self.inner_lr) for name in self.adapted(network)}

    def rates(self, fast: Weights, step: int) -> Mapping[str, Tensor | float]:
        """Return the learned rates ``[T, ...]``, which are the same in every step."""
        return {name: fast[f"rate/{name}"] for name in self.adapted(fast)}
