"""All stacked weights behind one another in one buffer: what is done to numbers is then one launch for them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.api import Weights

_ALIGNED = 16  # numbers: what Triton asks of a pointer and a stride to load four at a time


def at_once(weights: Weights) -> bool:
    """Say whether to treat ``weights`` as one vector: on a GPU, where launching a kernel takes longer than running it.

    On a CPU nothing was gained by it: gathering the gradients is one more pass over memory.
    """
    return _on_gpu(weights) and len({(w.dtype, w.device) for w in weights.values()}) == 1


def _on_gpu(weights: Weights) -> bool:
    return all(w.is_cuda for w in weights.values())


class Layout:
    """How stacked weights lie in such a buffer ``[T, P]``: in every row the weights of a task, one after the other.

    Each is a contiguous block in its own memory order. Blocks begin, and rows end, at a multiple of 16 numbers as far
    as sizes allow it, which is what kernels load quickly; what rows are filled up with nobody reads.

    Args:
        weights: each ``[T, ...]``; what has these names and shapes, as their gradients, can be laid out so.
    """

    def __init__(self, weights: Weights) -> None:
        self.names = sorted(weights, key=lambda name: not _aligned(weights[name][0].numel()))
        ordered = [weights[name] for name in self.names]
        self.orders = [_order(w) for w in ordered]
        self.sizes = [w[0].numel() for w in ordered]
        self.filling = -sum(self.sizes) % _ALIGNED if _aligned(self.sizes[0]) else 0
        self.width = sum(self.sizes) + self.filling
        self.shapes = [w.permute(order).shape[1:] for w, order in zip(ordered, self.orders)]

    def gather(self, tensors: Weights) -> Tensor:
        """Return the numbers of ``tensors`` as ``[T, P]``, without a copy where ``split`` has made them of that."""
        blocks = [tensors[name].permute(order) for name, order in zip(self.names, self.orders)]
        if (whole := self._whole(blocks)) is not None:
            return whole
        return self.joined(blocks)

    def joined(self, blocks: Sequence[Tensor]) -> Tensor:
        """Return as ``[T, P]`` what ``blocks`` hold, which lie in the order of ``names`` and of their own memory."""
        rows = [block.reshape(len(block), -1) for block in blocks]
        return torch.cat([*rows, rows[0].detach()[:, : self.filling]] if self.filling else rows, dim=1)

    def split(self, whole: Tensor) -> dict[str, Tensor]:
        """Return the parts of ``[T, P]`` by name, all of them views."""
        return dict(zip(self.names, _Parts.apply(whole, self)))

    def views(self, whole: Tensor) -> Iterator[Tensor]:
        """Yield the parts of ``[T, P]`` in the order of ``names``."""
        rows = whole[:, : whole.shape[1] - self.filling].split(self.sizes, dim=1)
        for block, shape, order in zip(rows, self.shapes, self.orders):
            yield block.view(len(block), *shape).permute(_inverse(order))

    def _whole(self, blocks: list[Tensor]) -> Tensor | None:
        """Return what ``blocks`` are all of, None where they are anything else."""
        n_tasks, begin = len(blocks[0]), blocks[0].storage_offset()
        step = blocks[0].stride(0) if n_tasks > 1 else self.width
        memory, place = blocks[0].untyped_storage(), begin
        for block, size in zip(blocks, self.sizes):
            here = (block.untyped_storage().data_ptr(), block.storage_offset()) == (memory.data_ptr(), place)
            if not here or (block.stride(0) != step and n_tasks > 1) or not block[0].is_contiguous():
                return None
            place += size
        end = begin + (n_tasks - 1) * step + self.width
        if step not in (0, self.width) or end * blocks[0].element_size() > memory.nbytes():
            return None
        if not any(b.requires_grad for b in blocks):
            return blocks[0].as_strided((n_tasks, self.width), (step, 1), begin)
        base = blocks[0]._base
        if base is None or any(b._base is not base for b in blocks):  # one is detached
            return None
        rows = n_tasks if step else 1
        if base.shape != (rows, self.width) or base.storage_offset() != begin or not base.is_contiguous():
            return None
        return base if step else base.expand(n_tasks, -1)


class _Parts(torch.autograd.Function):
    """A buffer ``[T, P]`` as the views that a layout says; torch's own would make zeros for each that is not used."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, layout: Layout) -> tuple[Tensor, ...]:
        ctx.layout, ctx.n_tasks = layout, len(whole)
        ctx.set_materialize_grads(False)
        return tuple(layout.views(whole))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None]:
        layout, known = ctx.layout, [g for g in grads if g is not None]
        if not known:
            return None, None
        zero = known[0].new_zeros(()) if len(known) < len(grads) else known[0]
        found = [
            zero.expand(ctx.n_tasks, *shape) if g is None else g.permute(order)
            for g, shape, order in zip(grads, layout.shapes, layout.orders)
        ]
        return layout.joined(found), None


def _aligned(size: int) -> bool:
    return size > 0 and size % _ALIGNED == 0


def _order(w: Tensor) -> list[int]:
    """Return the dimensions of ``w [T, ...]`` as they lie in memory, that of the tasks first."""
    strides = w.stride()
    return [0, *sorted(range(1, w.dim()), key=lambda dim: -strides[dim])]


def _inverse(order: list[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)


def means(stacked: Weights) -> dict[str, Tensor]:
    """Return the means over tasks of ``[T, ...]``, by name."""
    if len(stacked) < 2 or not at_once(stacked):
        return {name: w.mean(dim=0) for name, w in stacked.items()}
    layout = Layout(stacked)
    parts = layout.split(layout.gather(stacked).mean(dim=0, keepdim=True))
    return {name: parts[name][0] for name in stacked}
