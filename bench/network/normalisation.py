"""Batch normalisation as a function of autograd, exact to any order, around the kernels that compute it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.network.kernels import NATIVE, Kernels, bent_along, norm_backward, norm_double_backward


def normalise(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float | None, dim: int, kernels: Kernels = NATIVE
) -> Tensor:
    """Normalise ``x [T, m, C]`` over dim 1, or ``[m, T, C]`` over 0, scale, shift, and rectify by ``slope``.

    Ioffe and Szegedy 2015, arXiv:1502.03167, with batch statistics always: there are no running ones.
    """
    return _BatchNorm.apply(x, weight, bias, eps, slope, dim, kernels)


class _BatchNorm(torch.autograd.Function):
    """Batch normalisation over ``dim``, with a (leaky) ReLU behind it or none; its derivative is the class below."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float | None, dim: int, kernels: Kernels
    ) -> Tensor:
        y, mean, rstd = kernels.forward(x, weight, bias, eps, slope, dim)
        ctx.settings = (eps, slope, dim, kernels)
        # Only a ReLU's derivative asks for y.
        kept = (x, weight, x if slope is None else y, mean, rstd)
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)
        return y

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y, mean, rstd = ctx.saved_tensors
        derivatives = _BatchNormBackward.apply(grad[0], x, weight, y.detach(), mean, rstd, *ctx.settings)
        return (*derivatives, None, None, None, None)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _BatchNormAlong.apply(*tangents[:3], *ctx.saved_tensors, *ctx.settings)


class _BatchNormAlong(torch.autograd.Function):
    """How ``_BatchNorm`` moves with ``x``, weight and bias."""

    @staticmethod
    def forward(
        ctx: Any, tx: Tensor, tw: Tensor, tb: Tensor, x: Tensor, weight: Tensor, y: Tensor, mean: Tensor, rstd: Tensor,
        eps: float, slope: float | None, dim: int, kernels: Kernels,
    ) -> Tensor:  # fmt: skip
        ctx.settings = (slope, dim, kernels)
        ctx.save_for_backward(tx, tw, tb, x, weight, y, mean, rstd)
        # With x alone it moves as a derivative comes back to x, which is symmetric.
        ty, _, _ = kernels.backward(tx, x, x, mean, rstd, weight, None, dim)
        along = tw.unsqueeze(dim) * rstd
        return bent_along(ty.addcmul_(x, along).add_(tb.unsqueeze(dim) - along * mean), y, slope)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        tx, tw, tb, x, weight, y, mean, rstd = ctx.saved_tensors
        (dy,), (slope, dim, kernels) = grad, ctx.settings
        d_tx, d_tw, d_tb = kernels.backward(dy, x, y, mean, rstd, weight, slope, dim)
        # What dy gives along a tangent is what the tangent gives along dy, so that the rest is known from there.
        _, d_x, d_w = kernels.double_backward(tx, dy, x, y, mean, rstd, weight, tw, tb, d_tw, d_tb, slope, dim)
        return d_tx, d_tw, d_tb, d_x, d_w, *[None] * 7


class _BatchNormBackward(torch.autograd.Function):
    """The derivatives of ``_BatchNorm`` with respect to ``x``, weight and bias, themselves differentiable."""

    @staticmethod
    def forward(
        ctx: Any, dy: Tensor, x: Tensor, weight: Tensor, y: Tensor, mean: Tensor, rstd: Tensor,
        eps: float, slope: float | None, dim: int, kernels: Kernels,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        ctx.settings = (eps, slope, dim, kernels)
        dx, d_weight, d_bias = kernels.backward(dy, x, y, mean, rstd, weight, slope, dim)
        kept = (dy, x, weight, y, mean, rstd, d_weight, d_bias)
        ctx.save_for_backward(*kept)
        ctx.save_for_forward(*kept)
        return dx, d_weight, d_bias

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> tuple[Tensor | None, ...]:
        dy, x, weight, y, mean, rstd, d_weight, d_bias = ctx.saved_tensors
        (vx, vw, vb), (eps, slope, dim, kernels) = v, ctx.settings
        if torch.is_grad_enabled():  # third order and above: by autograd, with all that depends on x in the graph
            mean = x.mean(dim=dim, keepdim=True)
            rstd = torch.rsqrt((x - mean).square().mean(dim=dim, keepdim=True) + eps)
            _, d_weight, d_bias = norm_backward(dy, x, y, mean, rstd, weight, slope, dim)
            double_backward = norm_double_backward
        else:
            double_backward = kernels.double_backward
        d_dy, d_x, d_w = double_backward(vx, dy, x, y, mean, rstd, weight, vw, vb, d_weight, d_bias, slope, dim)
        return (d_dy, d_x, d_w, *[None] * 7)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if torch.is_grad_enabled():
            raise NotImplementedError("the second derivative of normalisation by forward mode cannot be differentiated")
        dy, x, weight, y, mean, rstd, d_weight, d_bias = ctx.saved_tensors
        (t_dy, tx, tw), (_, slope, dim, kernels) = tangents[:3], ctx.settings
        dx, dw, db = kernels.backward(t_dy, x, y, mean, rstd, weight, slope, dim)
        # Where dy stands still these are products with a Hessian, which is symmetric: what goes back also goes along.
        _, d_x, d_w = kernels.double_backward(
            tx, dy, x, y, mean, rstd, weight, tw, torch.zeros_like(tw), d_weight, d_bias, slope, dim
        )
        return dx.add_(d_x), dw.add_(d_w), db
