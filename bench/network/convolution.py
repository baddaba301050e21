"""Products and convolutions of every task with its own weights, closed under differentiation: second order is exact.

Each also says how it moves with its factors (``jvp``), by products that can be differentiated like itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import Recall, Slot

Pair = tuple[int, int]
Geometry = tuple[Pair, Pair, int]
"""Stride, padding and number of groups."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Map ``x [T, n, I]`` by every task's own ``weight [T, O, I]`` and ``bias [T, O]`` to ``[T, n, O]``.

    A weight of another type than ``x`` decides in which the product's inputs are; the result has that of ``x``.
    """
    y: Tensor = _Linear.apply(x.to(weight.dtype), weight, Recall.slot(weight.shape[2], x, weight)).to(x.dtype)
    return y if bias is None else y + bias[:, None]


def grouped(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Convolve ``x [n, T*C, H, W]``, all tasks in one grouped convolution by ``weight [T*O, C, kh, kw]``."""
    return _Convolution.apply(x, weight, geometry, Recall.slot(weight[0].numel(), x, weight))


def by_patches(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
    """Convolve ``x [T, n, H, W, C]`` by ``weight [T, O, C, kh, kw]``: patches times a batched matrix product."""
    n_tasks, n, height, width, _ = x.shape
    out, kernel = weight.shape[1], (weight.shape[3], weight.shape[4])
    patches = _Patches.apply(x, kernel, stride, padding)  # [T, n*H'*W', kh*kw*C]
    y = linear(patches, weight.permute(0, 1, 3, 4, 2).flatten(2), bias)  # a view of channels-last weights
    return y.view(n_tasks, n, *output_size((height, width), kernel, stride, padding), out)


def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """Return height and width behind a convolution."""
    height, width = ((size[i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in (0, 1))
    return height, width


class _Linear(torch.autograd.Function):
    """``y = x w^T`` for every task; it and the two below are bilinear and each other's derivatives.

    Torch's own derivative leaves ``dw`` in another memory order than ``w``. Where all tasks share one weight, seen by
    the task axis that does not move in memory, theirs is one dense product in place of T; the derivative with respect
    to the weight is each task's own all the same.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, slot: Slot | None = None) -> Tensor:
        _keep(ctx, x, w)
        return once(slot, lambda: _product(x, w.transpose(1, 2)))

    @staticmethod
    def backward(ctx: Any, *grad: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        x, w = ctx.saved_tensors
        (dy,) = grad
        dx = _LinearInput.apply(dy, w) if dy is not None and ctx.needs_input_grad[0] else None
        dw = torch.bmm(dy.transpose(1, 2), x) if dy is not None and ctx.needs_input_grad[1] else None
        return dx, dw, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        return _moved(ctx, tangents, _Linear.apply)


class _LinearInput(torch.autograd.Function):
    """The derivative of ``_Linear`` with respect to its input, ``dx = dy w``."""

    @staticmethod
    def forward(ctx: Any, dy: Tensor, w: Tensor) -> Tensor:
        _keep(ctx, dy, w)
        return _product(dy, w)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        dy, w = ctx.saved_tensors
        (v,) = grad
        d_dy = _Linear.apply(v, w) if v is not None and ctx.needs_input_grad[0] else None
        dw = torch.bmm(dy.transpose(1, 2), v) if v is not None and ctx.needs_input_grad[1] else None
        return d_dy, dw

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        return _moved(ctx, tangents, _LinearInput.apply)


def _product(x: Tensor, w: Tensor) -> Tensor:
    """Return ``x [T, n, I]`` times ``w [T, I, O]`` task by task, or all rows times the one ``w`` that tasks share."""
    if w.stride(0) or not x.is_contiguous():
        return torch.bmm(x, w)
    return torch.mm(x.flatten(0, 1), w[0]).view(*x.shape[:2], -1)


class _Convolution(torch.autograd.Function):
    """``y = x * w``, a grouped convolution. It and the two below are bilinear and each other's derivatives."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, geometry: Geometry, slot: Slot | None = None) -> Tensor:
        ctx.geometry = geometry
        _keep(ctx, x, w)
        stride, padding, groups = geometry
        return once(slot, lambda: F.conv2d(_channels_last(x), _channels_last(w), None, stride, padding, 1, groups))

    @staticmethod
    def backward(ctx: Any, *grad: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, w = ctx.saved_tensors
        (dy,), geometry = grad, ctx.geometry
        if dy is None:
            return None, None, None, None
        dx = _ConvolutionInput.apply(dy, w, x.shape, geometry) if ctx.needs_input_grad[0] else None
        dw = _ConvolutionWeight.apply(dy, x, w.shape, geometry) if ctx.needs_input_grad[1] else None
        return dx, dw, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        return _moved(ctx, tangents, lambda x, w: _Convolution.apply(x, w, ctx.geometry))


class _ConvolutionInput(torch.autograd.Function):
    """The derivative of ``_Convolution`` with respect to its input, from ``dy`` and ``w``."""

    @staticmethod
    def forward(ctx: Any, dy: Tensor, w: Tensor, shape: torch.Size, geometry: Geometry) -> Tensor:
        ctx.geometry, ctx.shape = geometry, shape
        _keep(ctx, dy, w)
        return _derivatives(dy, _blank(shape, dy), w, geometry, 0)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None]:
        dy, w = ctx.saved_tensors
        (v,), geometry = grad, ctx.geometry
        if v is None:
            return None, None, None, None
        d_dy = _Convolution.apply(v, w, geometry) if ctx.needs_input_grad[0] else None
        dw = _ConvolutionWeight.apply(dy, v, w.shape, geometry) if ctx.needs_input_grad[1] else None
        return d_dy, dw, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        return _moved(ctx, tangents, lambda dy, w: _ConvolutionInput.apply(dy, w, ctx.shape, ctx.geometry))


class _ConvolutionWeight(torch.autograd.Function):
    """The derivative of ``_Convolution`` with respect to its weight, from ``dy`` and ``x``."""

    @staticmethod
    def forward(ctx: Any, dy: Tensor, x: Tensor, shape: torch.Size, geometry: Geometry) -> Tensor:
        ctx.geometry, ctx.shape = geometry, shape
        _keep(ctx, dy, x)
        return _derivatives(dy, x, _blank(shape, dy), geometry, 1)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None]:
        dy, x = ctx.saved_tensors
        (v,), geometry = grad, ctx.geometry
        if v is None:
            return None, None, None, None
        d_dy = _Convolution.apply(x, v, geometry) if ctx.needs_input_grad[0] else None
        dx = _ConvolutionInput.apply(dy, v, x.shape, geometry) if ctx.needs_input_grad[1] else None
        return d_dy, dx, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        return _moved(ctx, tangents, lambda dy, x: _ConvolutionWeight.apply(dy, x, ctx.shape, ctx.geometry))


def once(slot: Slot | None, make: Callable[[], Tensor]) -> Tensor:
    """Return the result of a product, the one that was kept of it where there is one."""
    if slot is None:
        return make()
    if slot.result is None:
        slot.result = make()
    return slot.result.detach()


def _keep(ctx: Any, *factors: Tensor) -> None:
    """Keep the factors of a product for its derivatives, of which those that are nothing stay None."""
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*factors)
    ctx.save_for_forward(*factors)


def _moved(ctx: Any, tangents: Sequence[Tensor | None], product: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return how a product moves with its two factors; the tangent of one that stands still is None."""
    (a, b), (da, db) = ctx.saved_tensors, tangents[:2]
    parts = [*([] if da is None else [product(da, b)]), *([] if db is None else [product(a, db)])]
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _derivatives(dy: Tensor, x: Tensor, w: Tensor, geometry: Geometry, which: int) -> Tensor:
    stride, padding, groups = geometry
    mask = [which == 0, which == 1, False]
    result: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        _channels_last(dy), _channels_last(x), _channels_last(w), None, stride, padding, (1, 1), False, (0, 0),
        groups, mask,
    )  # fmt: skip
    return result[which]


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _blank(shape: torch.Size, like: Tensor) -> Tensor:
    """Return a tensor of which only the shape is looked at."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


class _Patches(torch.autograd.Function):
    """Images ``[T, n, H, W, C]`` to patches ``[T, n*H'*W', kh*kw*C]``; its adjoint is ``_FoldPatches``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Pair, stride: Pair, padding: Pair) -> Tensor:
        ctx.geometry = (x.shape, kernel, stride, padding)
        x = F.pad(x, (0, 0, padding[1], padding[1], padding[0], padding[0])).contiguous()
        n_tasks, n, height, width, channels = x.shape
        rows, columns = output_size((height, width), kernel, stride, (0, 0))
        s = x.stride()
        view = x.as_strided(
            (n_tasks, n, rows, columns, *kernel, channels),
            (s[0], s[1], s[2] * stride[0], s[3] * stride[1], s[2], s[3], s[4]),
        )
        return view.reshape(n_tasks, n * rows * columns, kernel[0] * kernel[1] * channels)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _FoldPatches.apply(grad[0], *ctx.geometry), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _Patches.apply(tangents[0], *ctx.geometry[1:])


class _FoldPatches(torch.autograd.Function):
    """Patches back to images, overlapping ones added up; the adjoint of ``_Patches``."""

    @staticmethod
    def forward(ctx: Any, patches: Tensor, shape: torch.Size, kernel: Pair, stride: Pair, padding: Pair) -> Tensor:
        ctx.geometry, ctx.shape = (kernel, stride, padding), shape
        n_tasks, n, height, width, channels = shape
        rows, columns = output_size((height, width), kernel, stride, padding)
        patches = patches.reshape(n_tasks, n, rows, columns, *kernel, channels)
        x = patches.new_zeros(n_tasks, n, height + 2 * padding[0], width + 2 * padding[1], channels)
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                down, right = slice(i, i + stride[0] * rows, stride[0]), slice(j, j + stride[1] * columns, stride[1])
                x[:, :, down, right].add_(patches[:, :, :, :, i, j])  # += would also assign it
        return x[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width]

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        return _Patches.apply(grad[0], *ctx.geometry), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _FoldPatches.apply(tangents[0], ctx.shape, *ctx.geometry)
