"""BOIL: MAML whose inner loop adapts all layers but the last, while the outer loop learns all layers."""

from dataclasses import dataclass

from algorithms.head import HeadApart, head
from algorithms.maml import MAML
from bench.api import BenchError, Weights
from bench.registry import register_algorithm


@register_algorithm("boil")
@dataclass(frozen=True)
class BOIL(HeadApart, MAML):
    """Body only update in the inner loop: representations change, the head stays as it is.

    The exact gradient through the steps of the body, second order. Cost: that of MAML.
    """

    paper = "Oh et al. 2021, arXiv:2008.08882"

    def adapted(self, slow: Weights) -> list[str]:
        """Name all layers but the last.

        Raises:
            BenchError: there is no other.
        """
        last = head(slow)
        body = [name for name in super().adapted(slow) if name not in last]
        if not body:
            raise BenchError(
                "boil adapts all layers but the last, and this network has one; accepted: a deeper backbone"
            )
        return body
