"""All stacked weights behind one another in one buffer: what is done to numbers is then one launch for them all."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from bench.api import Weights


def at_once(weights: Weights) -> bool:
    """Say whether to treat ``weights`` as one vector: on a GPU, where launching a kernel takes longer than running it.

    On a CPU nothing was gained by it: gathering the gradients is one more pass over memory.
    """
    return _on_gpu(weights) and len({(w.dtype, w.device) for w in weights.values()}) == 1


def _on_gpu(weights: Weights) -> bool:
    return all(w.is_cuda for w in weights.values())


class Layout:
    """How stacked weights lie in such a buffer: one after the other, each a contiguous block in its own memory order.

    Args:
        weights: each ``[T, ...]``; what has these names and shapes, as their gradients, can be laid out so.
    """

    def __init__(self, weights: Weights) -> None:
        self.names = list(weights)
        self._sizes = [w.numel() for w in weights.values()]
        self.orders = [_order(w) for w in weights.values()]
        self._shapes = [w.permute(order).shape for w, order in zip(weights.values(), self.orders)]

    def gather(self, tensors: Weights) -> Tensor:
        """Return the numbers of ``tensors`` as one vector, without a copy where ``split`` has made them of one."""
        ordered = (tensors[name].permute(order) for name, order in zip(self.names, self.orders))
        return _whole([t.reshape(-1) for t in ordered])

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Return the parts of such a vector by name, all of them views."""
        blocks = zip(self.names, flat.split(self._sizes), self._shapes, self.orders)
        return {name: block.view(shape).permute(_inverse(order)) for name, block, shape, order in blocks}


def _order(w: Tensor) -> list[int]:
    """Return the dimensions of ``w [T, ...]`` as they lie in memory, that of the tasks first."""
    strides = w.stride()
    return [0, *sorted(range(1, w.dim()), key=lambda dim: -strides[dim])]


def _inverse(order: list[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)


def _whole(blocks: list[Tensor]) -> Tensor:
    first, base = blocks[0], blocks[0]._base
    size = sum(b.numel() for b in blocks)
    if not _adjoining(blocks):
        return torch.cat(blocks)
    if not any(b.requires_grad for b in blocks):
        return first.as_strided((size,), (1,), first.storage_offset())
    own = base is not None and base.shape == (size,) and all(b._base is base for b in blocks)  # not one is detached
    return base if base is not None and own else torch.cat(blocks)


def _adjoining(blocks: Iterable[Tensor]) -> bool:
    """Say whether each begins in memory where the last one ends."""
    begins: tuple[object, object] | None = None
    for block in blocks:
        memory, at = block.untyped_storage().data_ptr(), block.storage_offset()
        if not block.is_contiguous() or (begins is not None and begins != (memory, at)):
            return False
        begins = (memory, at + block.numel())
    return True


def means(stacked: Weights) -> dict[str, Tensor]:
    """Return the means over tasks of ``[T, ...]``, by name."""
    if len(stacked) < 2 or not at_once(stacked):
        return {name: w.mean(dim=0) for name, w in stacked.items()}
    layout = Layout({name: w[:1] for name, w in stacked.items()})
    ordered = [w.permute(order) for w, order in zip(stacked.values(), layout.orders)]
    mean = torch.cat([w.flatten(1) for w in ordered], dim=1).mean(dim=0)
    return {name: part[0] for name, part in layout.split(mean).items()}
