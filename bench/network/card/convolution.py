"""Convolution of every task with its own weights by the kernels of ``products``, closed under differentiation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.api import Recall, Slot
from bench.network.card import products
from bench.network.card.launches import launch
from bench.network.convolution import Pair, once, output_size

Geometry = tuple[Pair, Pair, str, bool]
"""Stride, padding, how exact products of float32 are (``ieee``, ``tf32x3`` or ``tf32``), and whether weights lie
channels first in memory and not last."""

_PROGRAMS = 128  # that large tiles must make, or smaller ones are taken: as many as a large card has processors
_PART = 1024  # rows of a sum that one program takes where there are more than twice as many


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, precision: str = "ieee"
) -> Tensor:
    """Convolve ``x [T, n, H, W, C]`` by every task's own ``weight [T, O, C, kh, kw]`` to ``[T, n, H', W', O]``.

    ``bias [T, O]`` is added. A weight of another type than ``x`` decides in which the product's inputs are; the result
    has that of ``x``.
    """
    return _convolved(x, weight, bias, (stride, padding, precision, False))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, precision: str = "ieee") -> Tensor:
    """Map ``x [T, n, H, W, C]`` or ``[T, n, I]`` by every task's own ``weight [T, O, I]`` to ``[T, n, O]``.

    I counts C, H and W in torch's order: images need not be brought into it. Bias and types are as above.
    """
    x = x if x.dim() == 5 else x[:, :, None, None]
    w = weight.unflatten(2, (x.shape[4], *x.shape[2:4]))
    return _convolved(x, w, bias, ((1, 1), (0, 0), precision, True)).flatten(2)


def _convolved(x: Tensor, w: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    alike = x.dtype == w.dtype  # otherwise the bias keeps more digits than the product has
    slot = Recall.slot(w[0, 0].numel(), x, w)
    y: Tensor = _Convolution.apply(x.to(w.dtype), w, bias if alike else None, geometry, slot)
    y = y.to(x.dtype)
    return y if alike or bias is None else y + bias[:, None, None, None]


class _Convolution(torch.autograd.Function):
    """``y = x * w + b`` with ``w [T, O, C, kh, kw]``, ``b`` or None. Its derivatives are the class below."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry, slot: Slot | None) -> Tensor:
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, w)
        ctx.save_for_forward(x, w)
        return once(slot, lambda: _products([(x, w)], b, geometry))

    @staticmethod
    def backward(ctx: Any, *grad: Tensor | None) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        if grad[0] is None:
            return None, None, None, None, None
        return (*_ConvolutionBackward.apply(grad[0], x, w, ctx.geometry, ctx.needs_input_grad[:3]), None, None)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        x, w = ctx.saved_tensors
        tx, tw, tb = tangents[:3]
        pairs = ((tx, w) if tx is not None else ()) + ((x, tw) if tw is not None else ())
        if not pairs:
            high, wide = output_size((x.shape[2], x.shape[3]), (w.shape[3], w.shape[4]), *ctx.geometry[:2])
            assert tb is not None, "or nothing moves"
            return tb[:, None, None, None].expand(-1, x.shape[1], high, wide, -1)
        moved: Tensor = _ConvolutionSum.apply(ctx.geometry, tb, *pairs)
        return moved


class _ConvolutionBackward(torch.autograd.Function):
    """The derivatives of ``x * w + b`` from ``dy``, None where not wanted: linear in ``dy`` and in ``(x, w)``."""

    @staticmethod
    def forward(
        ctx: Any, dy: Tensor, x: Tensor, w: Tensor, geometry: Geometry, wanted: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(dy, x, w)
        return _derivatives(dy, x, w, geometry, wanted)

    @staticmethod
    def backward(ctx: Any, *v: Tensor | None) -> tuple[Tensor | None, ...]:
        dy, x, w = ctx.saved_tensors
        (vx, vw, vb), geometry = v, ctx.geometry
        d_dy = dx = dw = None
        if ctx.needs_input_grad[0]:
            pairs = ((vx, w) if vx is not None else ()) + ((x, vw) if vw is not None else ())
            if pairs:
                d_dy = _ConvolutionSum.apply(geometry, vb, *pairs)
            elif vb is not None:
                d_dy = vb[:, None, None, None].expand_as(dy)
        wanted = (ctx.needs_input_grad[1] and vw is not None, ctx.needs_input_grad[2] and vx is not None, False)
        if any(wanted):
            known = (x if vx is None else vx, w if vw is None else vw)
            dx, dw, _ = _ConvolutionBackward.apply(dy, *known, geometry, wanted)
        return d_dy, dx, dw, None, None


class _ConvolutionSum(torch.autograd.Function):
    """``x * w`` of one or two pairs, added up, with ``b`` or None."""

    @staticmethod
    def forward(ctx: Any, geometry: Geometry, b: Tensor | None, *pairs: Tensor) -> Tensor:
        ctx.geometry = geometry
        ctx.save_for_backward(*pairs)
        return _products(list(zip(pairs[::2], pairs[1::2])), b, geometry)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        pairs, wanted = ctx.saved_tensors, ctx.needs_input_grad[2:]
        of_bias, found = ctx.needs_input_grad[1], []
        db: Tensor | None = None
        for place in range(0, len(pairs), 2):
            asked = (*wanted[place : place + 2], of_bias and place == 0)
            dx, dw, d_bias = None, None, None
            if any(asked):
                dx, dw, d_bias = _ConvolutionBackward.apply(grad[0], *pairs[place : place + 2], ctx.geometry, asked)
            db = d_bias if place == 0 else db
            found += [dx, dw]
        return (None, db, *found)


def _products(pairs: list[tuple[Tensor, Tensor]], bias: Tensor | None, geometry: Geometry) -> Tensor:
    x, w = pairs[0]
    n_tasks, n, height, width, channels = x.shape
    out, kernel = w.shape[1], (w.shape[3], w.shape[4])
    stride, padding = geometry[:2]
    deep, wide = output_size((height, width), kernel, stride, padding)
    y = x.new_empty(n_tasks, n, deep, wide, out)
    rows, side = n * deep * wide, _side(n * deep * wide, out, n_tasks, x.dtype)
    grid = (_blocks(rows, side), _blocks(out, side), n_tasks)
    constants = _constants(w.shape, geometry) | {"TWO": len(pairs) == 2, "BIAS": bias is not None}
    constants |= _tile("B", side, side, min(_step(channels, kernel[0] * kernel[1] * channels), side))
    (x, w), (x2, w2) = pairs[0], pairs[-1]
    (w, step), (w2, step2) = _laid(w, geometry), _laid(w2, geometry)
    tensors = (x.contiguous(), w, x2.contiguous(), w2)
    b = y if bias is None else bias if bias.stride(1) == 1 else bias.contiguous()
    steps = (step, step2, b.stride(0) if b is not y else 0)
    launch(products.forward, grid, (*tensors, b, y), n, height, width, deep, wide, *steps, **constants)
    return y


def _derivatives(
    dy: Tensor, x: Tensor, w: Tensor, geometry: Geometry, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    n_tasks, n, height, width, channels = x.shape
    deep, wide = dy.shape[2:4]
    down, right = geometry[0]
    out, places = w.shape[1], w.shape[2:].numel()
    dy, (laid, step) = dy.contiguous(), _laid(w, geometry)
    of_input = programs = share = 0
    parts, dx, dw, db = 1, dy, dy, dy
    constants = _constants(w.shape, geometry) | {"WANT_X": wanted[0], "WANT_W": wanted[1], "WANT_B": all(wanted[1:])}
    constants |= _tile("B", 32, 32, 32) | _tile("W", 32, 32, 32)
    if wanted[0]:
        dx = dy.new_empty(x.shape)
        rows = n * _blocks(height, down) * _blocks(width, right)  # alike modulo the stride
        side = _side(rows * down * right, channels, n_tasks, dy.dtype)
        of_input = _blocks(rows, side) * down * right * _blocks(channels, side)
        constants |= _tile("B", side, side, min(32 if out > 16 else 16, side))
    if wanted[1]:
        rows = n * deep * wide
        parts = _blocks(rows, _PART) if rows > 2 * _PART else 1
        share = _blocks(_blocks(rows, parts), 32) * 32
        kept = torch.float32 if parts > 1 and dy.dtype == torch.bfloat16 else dy.dtype
        dw = torch.empty(parts, *laid.shape, dtype=kept, device=dy.device)
        db = dw.new_empty(parts, n_tasks, out)
        side = _side(out, places, n_tasks * parts, dy.dtype)
        broad = side if channels % side == 0 else min(side, 16 if places <= 16 else 32)
        programs = _blocks(out, side) * _blocks(places, broad) * parts
        constants |= _tile("W", side, broad, min(32, side))
    tensors, grid = (dy, x.contiguous(), laid, dx, dw, db), (of_input + programs, 1, n_tasks)
    if of_input + programs:
        launch(products.backward, grid, tensors, n, height, width, deep, wide, share, of_input, step, **constants)

    def whole(of: Tensor) -> Tensor:
        return of[0] if parts == 1 else of.sum(0).to(dy.dtype)

    of_weight = None if not wanted[1] else whole(dw) if geometry[3] else whole(dw).permute(0, 1, 4, 2, 3)
    beside = None if not wanted[2] else whole(db) if wanted[1] else dy.sum((1, 2, 3))
    return dx if wanted[0] else None, of_weight, beside


def _laid(w: Tensor, geometry: Geometry) -> tuple[Tensor, int]:
    """Return weights ``[T, O, C, kh, kw]`` as they are to lie in memory, channels last unless they come first.

    With them, how far each task's are behind the last one's: 0 where all tasks begin with the very same.
    """
    w = w if geometry[3] else w.permute(0, 1, 3, 4, 2)
    w = w if w[0].is_contiguous() else w.contiguous()
    return w, w.stride(0)


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


def _side(rows: int, columns: int, n_tasks: int, dtype: torch.dtype) -> int:
    """Return the side of the tiles of a result: a large one reads less, but must leave work for a whole card."""
    if dtype == torch.float64:
        return 16
    return 64 if _blocks(rows, 64) * _blocks(columns, 64) * n_tasks >= _PROGRAMS else 32


def _step(channels: int, places: int) -> int:
    """Return how many places of the kernel a step takes: all of one position, where there are enough channels."""
    if channels % 16 == 0:
        return 32 if channels % 32 == 0 else 16
    return 32 if places > 16 else 16


def _blocks(count: int, size: int) -> int:
    return -(-count // size)
