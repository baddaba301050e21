"""ANIL: MAML whose inner loop adapts the last layer alone, while the outer loop learns all layers."""

from dataclasses import dataclass

from algorithms.head import HeadApart, head
from bench.api import Weights
from bench.registry import register_algorithm


@register_algorithm("anil")
@dataclass(frozen=True)
class ANIL(HeadApart):
    """Almost no inner loop: the head of the network adapts, its body is reused as it is.

    The exact gradient through the steps of the head, second order. Cost: the body runs once on the support set
    whatever the number of inner steps; in every step where the network is no sequence of layers that the harness knows.
    """

    paper = "Raghu et al. 2020, arXiv:1909.09157"

    def adapted(self, slow: Weights) -> list[str]:
        """Name the last layer."""
        return head(slow)
