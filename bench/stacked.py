"""Layers over stacked weights: T networks at once on channels-last images, no loop over tasks.

Everything here is closed under differentiation, so second order is exact. Convolution is patches times a batched
matrix product: a grouped convolution is slow on a CPU, and its double backward costs four times its first order.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[int, int]


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
    """Convolve ``x [T, n, H, W, C]`` with every task's own ``weight [T, O, C, kh, kw]`` to ``[T, n, H', W', O]``."""
    n_tasks, n, height, width, _ = x.shape
    out, kernel = weight.shape[1], (weight.shape[3], weight.shape[4])
    patches = _Patches.apply(x, kernel, stride, padding)  # [T, n*H'*W', kh*kw*C]
    matrix = weight.permute(0, 3, 4, 2, 1).flatten(1, 3)  # [T, kh*kw*C, O]
    y = linear(patches, matrix.transpose(1, 2), bias)
    return y.view(n_tasks, n, *_output_size((height, width), kernel, stride, padding), out)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Map ``x [T, n, I]`` by every task's own ``weight [T, O, I]`` and ``bias [T, O]`` to ``[T, n, O]``.

    A weight of another type than ``x`` decides in which the product's inputs are; the result has that of ``x``.
    """
    if weight.dtype != x.dtype:
        y = torch.bmm(x.to(weight.dtype), weight.transpose(1, 2)).to(x.dtype)
        return y if bias is None else y + bias[:, None]
    if bias is None:
        return torch.bmm(x, weight.transpose(1, 2))
    return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> Tensor:
    """Normalise ``x [T, ..., C]`` over each task's own batch and positions, scale, shift, and rectify if ``relu``.

    Ioffe and Szegedy 2015, arXiv:1502.03167, with batch statistics always: there are no running ones.
    """
    return _BatchNorm.apply(x.flatten(1, -2), weight, bias, eps, relu).view_as(x)


def _output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    height, width = ((size[i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in (0, 1))
    return height, width


class _Patches(torch.autograd.Function):
    """Images ``[T, n, H, W, C]`` to patches ``[T, n*H'*W', kh*kw*C]``; its adjoint is ``_FoldPatches``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Pair, stride: Pair, padding: Pair) -> Tensor:
        ctx.geometry = (x.shape, kernel, stride, padding)
        x = F.pad(x, (0, 0, padding[1], padding[1], padding[0], padding[0])).contiguous()
        n_tasks, n, height, width, channels = x.shape
        rows, columns = _output_size((height, width), kernel, stride, (0, 0))
        s = x.stride()
        view = x.as_strided(
            (n_tasks, n, rows, columns, *kernel, channels),
            (s[0], s[1], s[2] * stride[0], s[3] * stride[1], s[2], s[3], s[4]),
        )
        return view.reshape(n_tasks, n * rows * columns, kernel[0] * kernel[1] * channels)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _FoldPatches.apply(grad[0], *ctx.geometry), None, None, None


class _FoldPatches(torch.autograd.Function):
    """Patches back to images, overlapping ones added up; the adjoint of ``_Patches``."""

    @staticmethod
    def forward(ctx: Any, patches: Tensor, shape: torch.Size, kernel: Pair, stride: Pair, padding: Pair) -> Tensor:
        ctx.geometry = (kernel, stride, padding)
        n_tasks, n, height, width, channels = shape
        rows, columns = _output_size((height, width), kernel, stride, padding)
        patches = patches.reshape(n_tasks, n, rows, columns, *kernel, channels)
        x = patches.new_zeros(n_tasks, n, height + 2 * padding[0], width + 2 * padding[1], channels)
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                down, right = slice(i, i + stride[0] * rows, stride[0]), slice(j, j + stride[1] * columns, stride[1])
                x[:, :, down, right] += patches[:, :, :, :, i, j]
        return x[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width]

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        return _Patches.apply(grad[0], *ctx.geometry), None, None, None, None


class _BatchNorm(torch.autograd.Function):
    """Batch normalisation of ``[T, m, C]`` with an optional ReLU behind it, in few passes over memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> Tensor:
        centred, rstd = _BatchNorm._statistics(x, eps)
        y = torch.addcmul(bias[:, None], centred, weight[:, None] * rstd)
        if relu:
            y.relu_()
        ctx.eps, ctx.relu = eps, relu
        ctx.save_for_backward(x, weight, centred, rstd, y)
        return y

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, centred, rstd, y = ctx.saved_tensors
        if torch.is_grad_enabled():  # second order: the statistics must depend on x in the graph of this backward
            centred, rstd = _BatchNorm._statistics(x, ctx.eps)
        dz = torch.ops.aten.threshold_backward(grad[0], y.detach(), 0) if ctx.relu else grad[0]
        m = x.shape[1]
        d_bias = dz.sum(dim=1, keepdim=True)
        projection = (dz * centred).sum(dim=1, keepdim=True)  # sum of dz * (x - mean)
        scale = weight[:, None] * rstd
        dx = torch.addcmul(scale * d_bias / -m, dz, scale)
        dx = torch.addcmul(dx, centred, scale * rstd.square() * projection / -m)
        return dx, (projection * rstd)[:, 0], d_bias[:, 0], None, None

    @staticmethod
    def _statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        # torch.var_mean takes several times as long as these three passes when it reduces over dim 1 on a CPU.
        centred = x - x.mean(dim=1, keepdim=True)
        return centred, torch.rsqrt(centred.square().mean(dim=1, keepdim=True) + eps)
