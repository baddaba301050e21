"""Convolution of every task with its own weights by the kernels of ``products``, closed under differentiation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.network.card import products
from bench.network.card.launches import launch
from bench.network.convolution import Pair, output_size

Geometry = tuple[Pair, Pair, str, bool]
"""Stride, padding, how exact products of float32 are (``ieee``, ``tf32x3`` or ``tf32``), and whether weights lie
channels first in memory and not last."""

_PROGRAMS = 128  # that large tiles must make, or smaller ones are taken: as many as a large card has processors
_PART = 1024  # rows of a sum that one program takes where there are more than twice as many


def convolve(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, precision: str = "ieee") -> Tensor:
    """Convolve ``x [T, n, H, W, C]`` by every task's own ``weight [T, O, C, kh, kw]`` to ``[T, n, H', W', O]``.

    A weight of another type than ``x`` decides in which the product's inputs are; the result has that of ``x``.
    """
    y: Tensor = _Convolution.apply(x.to(weight.dtype), weight, (stride, padding, precision, False))
    return y.to(x.dtype)


def linear(x: Tensor, weight: Tensor, precision: str = "ieee") -> Tensor:
    """Map ``x [T, n, H, W, C]`` or ``[T, n, I]`` by every task's own ``weight [T, O, I]`` to ``[T, n, O]``.

    I counts C, H and W in torch's order: images need not be brought into it. Types are as above.
    """
    x = x if x.dim() == 5 else x[:, :, None, None]
    w = weight.unflatten(2, (x.shape[4], *x.shape[2:4]))
    y: Tensor = _Convolution.apply(x.to(weight.dtype), w, ((1, 1), (0, 0), precision, True))
    return y.flatten(2).to(x.dtype)


class _Convolution(torch.autograd.Function):
    """``y = x * w`` with ``w [T, O, C, kh, kw]``. Its derivatives are the class below."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
        ctx.geometry = geometry
        ctx.save_for_backward(x, w)
        return _products([(x, w)], geometry)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, w = ctx.saved_tensors
        dx, dw = _ConvolutionBackward.apply(grad[0], x, w, ctx.geometry, ctx.needs_input_grad[:2])
        return dx, dw, None


class _ConvolutionBackward(torch.autograd.Function):
    """Both derivatives of ``x * w`` from ``dy``, None where one is not wanted: linear in ``dy`` and in ``(x, w)``."""

    @staticmethod
    def forward(
        ctx: Any, dy: Tensor, x: Tensor, w: Tensor, geometry: Geometry, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(dy, x, w)
        return _derivatives(dy, x, w, geometry, wanted)

    @staticmethod
    def backward(ctx: Any, *v: Tensor | None) -> tuple[Tensor | None, ...]:
        dy, x, w = ctx.saved_tensors
        (vx, vw), geometry = v, ctx.geometry
        d_dy = dx = dw = None
        if ctx.needs_input_grad[0]:
            d_dy = _ConvolutionSum.apply(
                geometry, *((vx, w) if vx is not None else ()), *((x, vw) if vw is not None else ())
            )
        wanted = (ctx.needs_input_grad[1] and vw is not None, ctx.needs_input_grad[2] and vx is not None)
        if any(wanted):
            dx, dw = _ConvolutionBackward.apply(dy, x if vx is None else vx, w if vw is None else vw, geometry, wanted)
        return d_dy, dx, dw, None, None


class _ConvolutionSum(torch.autograd.Function):
    """``x * w`` of one or two pairs, added up."""

    @staticmethod
    def forward(ctx: Any, geometry: Geometry, *pairs: Tensor) -> Tensor:
        ctx.geometry = geometry
        ctx.save_for_backward(*pairs)
        return _products(list(zip(pairs[::2], pairs[1::2])), geometry)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        pairs, wanted, found = ctx.saved_tensors, ctx.needs_input_grad[1:], []
        for place in range(0, len(pairs), 2):
            if any(asked := wanted[place : place + 2]):
                found += _ConvolutionBackward.apply(grad[0], *pairs[place : place + 2], ctx.geometry, asked)
            else:
                found += [None, None]
        return (None, *found)


def _products(pairs: list[tuple[Tensor, Tensor]], geometry: Geometry) -> Tensor:
    x, w = pairs[0]
    n_tasks, n, height, width, channels = x.shape
    out, kernel = w.shape[1], (w.shape[3], w.shape[4])
    stride, padding = geometry[:2]
    deep, wide = output_size((height, width), kernel, stride, padding)
    y = x.new_empty(n_tasks, n, deep, wide, out)
    rows, side = n * deep * wide, _side(n * deep * wide, out, n_tasks)
    grid = (_blocks(rows, side), _blocks(out, side), n_tasks)
    constants = _constants(w.shape, geometry) | {"TWO": len(pairs) == 2}
    constants |= _tile("B", side, side, _step(channels, kernel[0] * kernel[1] * channels))
    (x, w), (x2, w2) = pairs[0], pairs[-1]
    tensors = (x.contiguous(), _laid(w, geometry), x2.contiguous(), _laid(w2, geometry), y)
    launch(products.forward, grid, tensors, n, height, width, deep, wide, **constants)
    return y


def _derivatives(
    dy: Tensor, x: Tensor, w: Tensor, geometry: Geometry, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    n_tasks, n, height, width, channels = x.shape
    deep, wide = dy.shape[2:4]
    down, right = geometry[0]
    out, places = w.shape[1], w.shape[2:].numel()
    dy = dy.contiguous()
    of_input = of_weight = share = 0
    parts, dx, dw = 1, dy, dy
    constants = _constants(w.shape, geometry) | {"WANT_X": wanted[0], "WANT_W": wanted[1]}
    constants |= _tile("B", 32, 32, 32) | _tile("W", 32, 32, 32)
    if wanted[0]:
        dx = dy.new_empty(x.shape)
        rows = n * _blocks(height, down) * _blocks(width, right)  # alike modulo the stride
        side = _side(rows * down * right, channels, n_tasks)
        of_input = _blocks(rows, side) * down * right * _blocks(channels, side)
        constants |= _tile("B", side, side, 32 if out > 16 else 16)
    if wanted[1]:
        rows = n * deep * wide
        parts = _blocks(rows, _PART) if rows > 2 * _PART else 1
        share = _blocks(_blocks(rows, parts), 32) * 32
        kept = torch.float32 if parts > 1 and dy.dtype == torch.bfloat16 else dy.dtype
        dw = torch.empty(parts, *_laid(w, geometry).shape, dtype=kept, device=dy.device)
        side = _side(out, places, n_tasks * parts)
        broad = side if channels % side == 0 else min(side, 16 if places <= 16 else 32)
        of_weight = _blocks(out, side) * _blocks(places, broad) * parts
        constants |= _tile("W", side, broad, 32)
    tensors, grid = (dy, x.contiguous(), _laid(w, geometry), dx, dw), (of_input + of_weight, 1, n_tasks)
    launch(products.backward, grid, tensors, n, height, width, deep, wide, share, of_input, **constants)
    if not wanted[1]:
        return dx, None
    dw = dw[0] if parts == 1 else dw.sum(0).to(dy.dtype)
    return dx if wanted[0] else None, dw if geometry[3] else dw.permute(0, 1, 4, 2, 3)


def _laid(w: Tensor, geometry: Geometry) -> Tensor:
    """Return weights ``[T, O, C, kh, kw]`` as they are to lie in memory, channels last unless they come first."""
    return (w if geometry[3] else w.permute(0, 1, 3, 4, 2)).contiguous()


def _tile(of: str, high: int, broad: int, step: int) -> dict[str, int]:
    return {f"{of}M": high, f"{of}N": broad, f"{of}K": step}


def _constants(shape: torch.Size, geometry: Geometry) -> dict[str, Any]:
    """Return what the kernels are compiled for, weights being of that shape."""
    _, out, channels, high, broad = shape
    (down, right), (above, before), precision, first = geometry
    return {
        "C": channels, "O": out, "KH": high, "KW": broad, "SY": down, "SX": right, "PY": above, "PX": before,
        "FIRST": first, "PRECISION": precision,
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
