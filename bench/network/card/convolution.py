"""Convolution of every task with its own weights by the kernels of ``products``, closed under differentiation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.network.card import products
from bench.network.card.launches import launch
from bench.network.convolution import Pair, output_size

Geometry = tuple[Pair, Pair, str]
"""Stride, padding, and how exact products of float32 are: ``ieee``, ``tf32x3`` or ``tf32``."""

_PROGRAMS = 128  # that large tiles must make, or smaller ones are taken: as many as a large card has processors
_PART = 1024  # rows of a sum that one program takes where there are more than twice as many


def convolve(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, precision: str = "ieee") -> Tensor:
    """Convolve ``x [T, n, H, W, C]`` by every task's own ``weight [T, O, C, kh, kw]`` to ``[T, n, H', W', O]``.

    A weight of another type than ``x`` decides in which the product's inputs are; the result has that of ``x``.
    """
    y: Tensor = _Convolution.apply(
        x.to(weight.dtype), weight.permute(0, 1, 3, 4, 2), (stride, padding, precision)
    )  # a view of channels-last weights
    return y.to(x.dtype)


class _Convolution(torch.autograd.Function):
    """``y = x * w`` with ``w [T, O, kh, kw, C]``. It and the two below are bilinear and each other's derivatives."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
        ctx.geometry = geometry
        ctx.save_for_backward(x, w)
        return _product(x, w, geometry)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, w = ctx.saved_tensors
        (dy,), geometry = grad, ctx.geometry
        dx = _ConvolutionInput.apply(dy, w, x.shape, geometry) if ctx.needs_input_grad[0] else None
        dw = _ConvolutionWeight.apply(dy, x, w.shape, geometry) if ctx.needs_input_grad[1] else None
        return dx, dw, None


class _ConvolutionInput(torch.autograd.Function):
    """The derivative of ``_Convolution`` with respect to its input, from ``dy`` and ``w``."""

    @staticmethod
    def forward(ctx: Any, dy: Tensor, w: Tensor, shape: torch.Size, geometry: Geometry) -> Tensor:
        ctx.geometry = geometry
        ctx.save_for_backward(dy, w)
        return _by_input(dy, w, shape, geometry)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        dy, w = ctx.saved_tensors
        (v,), geometry = grad, ctx.geometry
        d_dy = _Convolution.apply(v, w, geometry) if ctx.needs_input_grad[0] else None
        dw = _ConvolutionWeight.apply(dy, v, w.shape, geometry) if ctx.needs_input_grad[1] else None
        return d_dy, dw, None, None


class _ConvolutionWeight(torch.autograd.Function):
    """The derivative of ``_Convolution`` with respect to its weight, from ``dy`` and ``x``."""

    @staticmethod
    def forward(ctx: Any, dy: Tensor, x: Tensor, shape: torch.Size, geometry: Geometry) -> Tensor:
        ctx.geometry = geometry
        ctx.save_for_backward(dy, x)
        return _by_weight(dy, x, shape, geometry)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        dy, x = ctx.saved_tensors
        (v,), geometry = grad, ctx.geometry
        d_dy = _Convolution.apply(x, v, geometry) if ctx.needs_input_grad[0] else None
        dx = _ConvolutionInput.apply(dy, v, x.shape, geometry) if ctx.needs_input_grad[1] else None
        return d_dy, dx, None, None


def _product(x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
    n_tasks, n, height, width, channels = x.shape
    out, kernel = w.shape[1], (w.shape[2], w.shape[3])
    stride, padding, _ = geometry
    deep, wide = output_size((height, width), kernel, stride, padding)
    y = x.new_empty(n_tasks, n, deep, wide, out)
    rows, side = n * deep * wide, _side(n * deep * wide, out, n_tasks)
    grid = (_blocks(rows, side), _blocks(out, side), n_tasks)
    constants = _constants(w.shape, geometry, (side, side, _step(channels, kernel[0] * kernel[1] * channels)))
    tensors = (x.contiguous(), w.contiguous(), y)
    launch(products.forward, grid, tensors, n, height, width, deep, wide, **constants)
    return y


def _by_input(dy: Tensor, w: Tensor, shape: torch.Size, geometry: Geometry) -> Tensor:
    n_tasks, n, height, width, channels = shape
    (down, right), _, _ = geometry
    dx = dy.new_empty(shape)
    rows = n * _blocks(height, down) * _blocks(width, right)  # alike modulo the stride
    side = _side(rows * down * right, channels, n_tasks)
    grid = (_blocks(rows, side) * down * right, _blocks(channels, side), n_tasks)
    constants = _constants(w.shape, geometry, (side, side, 32 if w.shape[1] > 16 else 16))
    tensors = (dy.contiguous(), w.contiguous(), dx)
    launch(products.by_input, grid, tensors, n, height, width, *dy.shape[2:4], **constants)
    return dx


def _by_weight(dy: Tensor, x: Tensor, shape: torch.Size, geometry: Geometry) -> Tensor:
    n_tasks, n, height, width, channels = x.shape
    out, places = shape[1], shape[2:].numel()
    rows = n * dy.shape[2] * dy.shape[3]
    parts = _blocks(rows, _PART) if rows > 2 * _PART else 1
    share = _blocks(_blocks(rows, parts), 32) * 32
    dw = torch.empty(parts, *shape, dtype=torch.float32 if parts > 1 else dy.dtype, device=dy.device)
    side = _side(out, places, n_tasks * parts)
    broad = side if channels % side == 0 else min(side, 16 if places <= 16 else 32)
    grid = (_blocks(out, side) * _blocks(places, broad), parts, n_tasks)
    constants = _constants(shape, geometry, (side, broad, 32))
    tensors = (dy.contiguous(), x.contiguous(), dw)
    launch(products.by_weight, grid, tensors, n, height, width, *dy.shape[2:4], share, **constants)
    return dw[0] if parts == 1 else dw.sum(0).to(dy.dtype)


def _constants(shape: torch.Size, geometry: Geometry, tile: tuple[int, int, int]) -> dict[str, Any]:
    """Return what the kernels are compiled for, weights being of that shape."""
    _, out, high, broad, channels = shape
    (down, right), (above, before), precision = geometry
    return {
        "C": channels, "O": out, "KH": high, "KW": broad, "SY": down, "SX": right, "PY": above, "PX": before,
        "PRECISION": precision, "BM": tile[0], "BN": tile[1], "BK": tile[2],
    }  # fmt: skip


def _side(rows: int, columns: int, n_tasks: int) -> int:
    """Return the side of the tiles of a result: a large one reads less, but must leave work for a whole card."""
    return 64 if _blocks(rows, 64) * _blocks(columns, 64) * n_tasks >= _PROGRAMS else 32


def _step(channels: int, places: int) -> int:
    """Return how many places of the kernel a step takes: all of one position, where there are enough channels."""
    if channels % 16 == 0:
        return 32 if channels % 32 == 0 else 16
    return 32 if places > 16 else 16


def _blocks(count: int, size: int) -> int:
    return -(-count // size)
