"""What algorithms share that adapt a network's head and its body differently."""

from collections.abc import Iterator
from dataclasses import dataclass

from algorithms.maml import SecondOrder
from bench.api import BenchError, Examples, InnerState, TaskLoss, Weights


@dataclass(frozen=True)
class HeadApart(SecondOrder):
    """An algorithm that knows the head, and sees in front of every inner loop that the last layer is one."""

    by_default = False

    def adaptation(
        self, task_loss: TaskLoss, slow: Weights, support: Examples, steps: int, carry: Weights | None = None
    ) -> Iterator[InnerState]:
        """Yield where the inner loop stands.

        Raises:
            BenchError: the last layer is not the head.
        """
        check_head(slow, support)
        return super().adaptation(task_loss, slow, support, steps, carry)


def head(slow: Weights) -> list[str]:
    """Name the parameters of the network's last layer, which is the one whose weights come last."""
    own = [name for name in slow if "/" not in name]
    layer = own[-1].rpartition(".")[0]
    return [name for name in own if name.rpartition(".")[0] == layer]


def check_head(slow: Weights, support: Examples) -> None:
    """Refuse a network whose last layer does not give the outputs, as one that names its head first.

    A head for classes has n_way outputs. Any other has no more than the layers in front of it: of a policy in its world
    the harness sees the return alone.

    Raises:
        BenchError: says which layer was found and what it has.
    """
    last, classes = head(slow), not support.y.is_floating_point()
    most = support.n_way if classes else min(len(w) for name, w in slow.items() if "/" not in name and w.dim() > 1)
    if any(len(slow[name]) != most for name in last):
        shapes = ", ".join(f"{name} {tuple(slow[name].shape)}" for name in last)
        wanted = f"{most} outputs" if classes else f"{most} outputs, the fewest of any layer"
        raise BenchError(
            f"the last layer of the network is taken for its head, and has not {wanted} ({shapes});"
            " accepted: a backbone whose parameters end with those of the head"
        )
