"""BOIL: MAML whose inner loop adapts all layers but the last, while the outer loop learns all layers."""

from dataclasses import dataclass

from algorithms.inner_loop import head
from algorithms.maml import MAML
from bench.api import Weights
from bench.registry import register_algorithm


@register_algorithm("boil")
@dataclass(frozen=True)
class BOIL(MAML):
    """Body only update in the inner loop: representations change, the head stays as it is.

    The exact gradient through the steps of the body, second order. Cost: that of MAML.
    """

    paper = "Oh et al. 2021, arXiv:2008.08882"
    by_default = False

    def adapted(self, slow: Weights) -> list[str]:
        """Name all layers but the last."""
        last = head(slow)
        return [name for name in super().adapted(slow) if name not in last]
