"""ANIL: MAML whose inner loop adapts the last layer alone, while the outer loop learns all layers."""

from collections.abc import Iterator
from dataclasses import dataclass

from algorithms.inner_loop import check_head, head
from algorithms.maml import MAML
from bench.api import Examples, InnerState, TaskLoss, Weights
from bench.registry import register_algorithm


@register_algorithm("anil")
@dataclass(frozen=True)
class ANIL(MAML):
    """Almost no inner loop: the head of the network adapts, its body is reused as it is.

    The exact gradient through the steps of the head, second order. Cost: the body runs once on the support set
    whatever the number of inner steps; in every step where the network is no sequence of layers that the harness knows.
    """

    paper = "Raghu et al. 2020, arXiv:1909.09157"
    by_default = False

    def adapted(self, slow: Weights) -> list[str]:
        """Name the last layer."""
        return head(slow)

    def adaptation(
        self, task_loss: TaskLoss, slow: Weights, support: Examples, steps: int, carry: Weights | None = None
    ) -> Iterator[InnerState]:
        """Yield where the inner loop stands.

        Raises:
            BenchError: the last layer is not the head.
        """
        check_head(slow, support)
        return super().adaptation(task_loss, slow, support, steps, carry)
