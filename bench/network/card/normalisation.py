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
    weight, bias = _laid(weight, bias)
    _run(norms.forward, (x, weight, bias, y, mean, rstd), (weight, bias), SLOPE=slope, EPS=eps)
    return y, mean, rstd


def backward(
    dy: Tensor, x: Tensor, y: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, slope: float | None, dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what ``norm_backward`` does."""
    if dim != 1 or x[0].numel() >= _LARGEST:
        return norm_backward(dy, x, y, mean, rstd, weight, slope, dim)
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    d_weight, d_bias = (weight.new_empty(weight.shape) for _ in range(2))
    [weight] = _laid(weight)
    _run(norms.backward, (dy, x, y, mean, rstd, weight, dx, d_weight, d_bias), (weight,), SLOPE=slope)
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
    weight, vw, vb = _laid(weight, vw, vb)
    inputs = (vx, dy, x, y, mean, rstd, weight, vw, vb, d_weight, d_bias)
    _run(norms.double_backward, (*inputs, d_dy, dx, d_w), (weight, vw, vb), SLOPE=slope)
    return d_dy, dx, d_w


def _laid(*of_tasks: Tensor) -> list[Tensor]:
    """Return tensors ``[T, C]`` with each task's numbers side by side, tasks as far apart as they are."""
    return [w if w.stride(1) == 1 else w.contiguous() for w in of_tasks]


def _run(kernel: Any, tensors: tuple[Tensor, ...], apart: tuple[Tensor, ...], **constants: Any) -> None:
    """Launch a kernel on ``tensors``, the first ``[T, m, C]``; it is told how far ``apart`` lie those of tasks."""
    n_tasks, rows, channels = tensors[0].shape
    grid, steps = (-(-channels // _CHANNELS), n_tasks), [w.stride(0) for w in apart]
    whole = tuple(t.detach() if t.dim() == 2 else t.detach().contiguous() for t in tensors)
    launch(kernel, grid, whole, rows, *steps, C=channels, BM=_ROWS, BC=_CHANNELS, num_warps=_WARPS, **constants)
