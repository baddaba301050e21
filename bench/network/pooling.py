"""Max-pooling that keeps where the largest values were and not the images, closed under differentiation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def max_pool(x: Tensor, layer: nn.MaxPool2d) -> Tensor:
    """Apply the layer to ``x [n, C, H, W]``.

    Torch's own derivative keeps ``x``, of which it asks nothing but the shape: the largest tensors of a deep network.
    """
    return _MaxPool.apply(x, layer)


def _blank(shape: torch.Size, like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


class _MaxPool(torch.autograd.Function):
    """The largest value under each place of the window; its derivative is ``_Put``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.MaxPool2d) -> Tensor:
        geometry = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)
        y, places = torch.ops.aten.max_pool2d_with_indices(x, *map(_listed, geometry[:4]), geometry[4])
        ctx.geometry, ctx.shape = geometry, x.shape
        ctx.save_for_backward(places)
        ctx.save_for_forward(places)
        largest: Tensor = y
        return largest

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        return _Put.apply(grad[0], *ctx.saved_tensors, ctx.shape, ctx.geometry), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _Pick.apply(tangents[0], *ctx.saved_tensors, ctx.shape, ctx.geometry)


class _Put(torch.autograd.Function):
    """Values back to the places that they came from, zeros elsewhere; its adjoint is ``_Pick``."""

    @staticmethod
    def forward(ctx: Any, dy: Tensor, places: Tensor, shape: torch.Size, geometry: tuple[Any, ...]) -> Tensor:
        ctx.geometry, ctx.shape = geometry, shape
        ctx.save_for_backward(places)
        ctx.save_for_forward(places)
        dx: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            dy, _blank(shape, dy), *map(_listed, geometry[:4]), geometry[4], places
        )
        return dx

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _Pick.apply(grad[0], *ctx.saved_tensors, ctx.shape, ctx.geometry), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _Put.apply(tangents[0], *ctx.saved_tensors, ctx.shape, ctx.geometry)


class _Pick(torch.autograd.Function):
    """The values at given places; its adjoint is ``_Put``."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, places: Tensor, shape: torch.Size, geometry: tuple[Any, ...]) -> Tensor:
        ctx.geometry, ctx.shape = geometry, shape
        ctx.save_for_backward(places)
        ctx.save_for_forward(places)
        rows, at = (t.permute(0, 2, 3, 1).flatten(1, 2) for t in (v, places))  # views of channels-last memory
        return rows.gather(1, at).unflatten(1, places.shape[2:]).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _Put.apply(grad[0], *ctx.saved_tensors, ctx.shape, ctx.geometry), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _Pick.apply(tangents[0], *ctx.saved_tensors, ctx.shape, ctx.geometry)


def _listed(size: int | tuple[int, int]) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size)
