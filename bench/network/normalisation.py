"""Batch normalisation as a function of autograd, exact to any order, around the kernels that compute it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.network.kernels import UNCOMPILED, Kernels, norm_backward, norm_double_backward


def normalise(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool, dim: int, kernels: Kernels = UNCOMPILED
) -> Tensor:
    """Normalise ``x [T, m, C]`` over dim 1, or ``[m, T, C]`` over 0, scale, shift, and rectify if ``relu``.

    Ioffe and Szegedy 2015, arXiv:1502.03167, with batch statistics always: there are no running ones.
    """
    return _BatchNorm.apply(x, weight, bias, eps, relu, dim, kernels)


class _BatchNorm(torch.autograd.Function):
    """Batch normalisation over ``dim`` with an optional ReLU behind it; its derivative is ``_BatchNormBackward``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool, dim: int, kernels: Kernels
    ) -> Tensor:
        y, mean, rstd = kernels.forward(x, weight, bias, eps, relu, dim)
        ctx.settings = (eps, relu, dim, kernels)
        ctx.save_for_backward(x, weight, y, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y, mean, rstd = ctx.saved_tensors
        derivatives = _BatchNormBackward.apply(grad[0], x, weight, y.detach(), mean, rstd, *ctx.settings)
        return (*derivatives, None, None, None, None)


class _BatchNormBackward(torch.autograd.Function):
    """The derivatives of ``_BatchNorm`` with respect to ``x``, weight and bias, themselves differentiable."""

    @staticmethod
    def forward(
        ctx: Any, dy: Tensor, x: Tensor, weight: Tensor, y: Tensor, mean: Tensor, rstd: Tensor,
        eps: float, relu: bool, dim: int, kernels: Kernels,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        ctx.settings = (eps, relu, dim, kernels)
        dx, d_weight, d_bias = kernels.backward(dy, x, y, mean, rstd, weight, relu, dim)
        ctx.save_for_backward(dy, x, weight, y, mean, rstd, d_weight, d_bias)
        return dx, d_weight, d_bias

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> tuple[Tensor | None, ...]:
        dy, x, weight, y, mean, rstd, d_weight, d_bias = ctx.saved_tensors
        (vx, vw, vb), (eps, relu, dim, kernels) = v, ctx.settings
        if torch.is_grad_enabled():  # third order and above: by autograd, with all that depends on x in the graph
            mean = x.mean(dim=dim, keepdim=True)
            rstd = torch.rsqrt((x - mean).square().mean(dim=dim, keepdim=True) + eps)
            _, d_weight, d_bias = norm_backward(dy, x, y, mean, rstd, weight, relu, dim)
            double_backward = norm_double_backward
        else:
            double_backward = kernels.double_backward
        d_dy, d_x, d_w = double_backward(vx, dy, x, y, mean, rstd, weight, vw, vb, d_weight, d_bias, relu, dim)
        return (d_dy, d_x, d_w, *[None] * 7)
