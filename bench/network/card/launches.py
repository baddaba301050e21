"""How many kernels a piece of work launches, without a card: torch's operations by a mode, ours where they start."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# What is no view and yet computes nothing on a card.
_FREE = {
    "aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty", "aten::new_empty_strided",
    "aten::lift_fresh", "aten::_unsafe_view", "aten::set_", "aten::_local_scalar_dense", "aten::is_same_size",
    "aten::_has_same_storage_numel",
}  # fmt: skip


class Launches(TorchDispatchMode):
    """Counts, while it is active, an operation of torch that is no view as one launch, and each of our own kernels.

    On a card some operations take several (a sort does), so that a trace of one counts a little more. ``names`` holds
    how often each was launched.

    Args:
        running: whether our kernels run; otherwise they are counted alone, and what they would write stays 0.
    """

    _active: Launches | None = None

    def __init__(self, running: bool = True) -> None:
        super().__init__()
        self.running = running
        self.names: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Return the number of launches so far."""
        return sum(self.names.values())

    def __enter__(self) -> Launches:
        Launches._active = self
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        Launches._active = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, result = func._schema.name, func(*args, **(kwargs or {}))
        # the stand-ins of an optimizer, say
        nothing = isinstance(result, Tensor) and (result.is_meta or not result.numel())
        if not (func.is_view or nothing or name in _FREE or name.startswith("profiler::")):
            self.names[name] += 1
        return result


def launch(kernel: Any, grid: tuple[int, ...], tensors: tuple[Tensor, ...], *sizes: int, **constants: Any) -> None:
    """Run one of our kernels where its tensors are, and count it."""
    counter = Launches._active
    if counter is not None:
        counter.names[f"{kernel.__module__.rpartition('.')[2]}::{kernel.__name__}"] += 1
        if not counter.running:
            return
    with torch.cuda.device_of(tensors[0]):
        kernel[grid](*tensors, *sizes, **constants)
