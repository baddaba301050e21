"""Batch normalisation by the kernels of ``norms``, as ``bench.network.kernels`` names its three functions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.network.card import norms
from bench.network.card.launches import launch
from bench.network.kernels import norm_backward, norm_double_backward, norm_forward

_ROWS, _CHANNELS, _WARPS = 256, 8, 8  # of a program at a time; eight channels of float32 are what memory reads at once

_LARGEST = 2**31  # numbers of a task: beyond it the kernels' 32 bits do not count


def forward(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float | None, dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what ``norm_forward`` does."""
    if dim != 1 or x[0].numel() >= _LARGEST:
        return norm_forward(x, weight, bias, eps, slope, dim)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    mean, rstd = (weight.new_empty(len(weight), 1, weight.shape[1]) for _ in range(2))
    _run(norms.forward, (x, weight, bias, y, mean, rstd), x, SLOPE=slope, EPS=eps)
    return y, mean, rstd


def backward(
    dy: Tensor, x: Tensor, y: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, slope: float | None, dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what ``norm_backward`` does."""
    if dim != 1 or x[0].numel() >= _LARGEST:
        return norm_backward(dy, x, y, mean, rstd, weight, slope, dim)
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    d_weight, d_bias = (weight.new_empty(weight.shape) for _ in range(2))
    _run(norms.backward, (dy, x, y, mean, rstd, weight, dx, d_weight, d_bias), x, SLOPE=slope)
    return dx, d_weight, d_bias


def double_backward(
    vx: Tensor, dy: Tensor, x: Tensor, y: Tensor, mean: Tensor, rstd: Tensor,
    weight: Tensor, vw: Tensor, vb: Tensor, d_weight: Tensor, d_bias: Tensor, slope: float | None, dim: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return what ``norm_double_backward`` does."""
    if dim != 1 or x[0].numel() >= _LARGEST:
        return norm_double_backward(vx, dy, x, y, mean, rstd, weight, vw, vb, d_weight, d_bias, slope, dim)
    d_dy, dx = (torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(2))
    d_w = weight.new_empty(weight.shape)
    inputs = (vx, dy, x, y, mean, rstd, weight, vw, vb, d_weight, d_bias)
    _run(norms.double_backward, (*inputs, d_dy, dx, d_w), x, SLOPE=slope)
    return d_dy, dx, d_w


def _run(kernel: Any, tensors: tuple[Tensor, ...], x: Tensor, **constants: Any) -> None:
    n_tasks, rows, channels = x.shape
    grid = (-(-channels // _CHANNELS), n_tasks)
    whole = tuple(t.detach().contiguous() for t in tensors)
    launch(kernel, grid, whole, rows, C=channels, BM=_ROWS, BC=_CHANNELS, num_warps=_WARPS, **constants)
