"""Layers over stacked weights: T networks at once on channels-last images, no loop over tasks.

Everything here is closed under differentiation, so second order is exact. Images come in one of two forms. On a CPU the
task axis lies inside, ``[n, T, C, H, W]`` in the memory order n, H, W, T, C: there a convolution of all tasks is one
grouped convolution of oneDNN, which was faster there than patches. On a GPU it lies outside, ``[T, n, H, W,
C]``, and a convolution is patches times a batched matrix product. What has no height and width is ``[T, n, I]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.network.kernels import UNCOMPILED, Kernels, norm_backward, norm_double_backward

Pair = tuple[int, int]

# Of an image behind a convolution: up to here patches were faster than oneDNN on a CPU; with 16 they were not.
_FEW_POSITIONS = 4


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Map ``x [T, n, I]`` by every task's own ``weight [T, O, I]`` and ``bias [T, O]`` to ``[T, n, O]``.

    A weight of another type than ``x`` decides in which the product's inputs are; the result has that of ``x``.
    """
    y: Tensor = _Linear.apply(x.to(weight.dtype), weight).to(x.dtype)
    return y if bias is None else y + bias[:, None]


def batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool, kernels: Kernels = UNCOMPILED
) -> Tensor:
    """Normalise ``x [T, n, I]`` over each task's own batch, scale, shift, and rectify if ``relu``.

    Ioffe and Szegedy 2015, arXiv:1502.03167, with batch statistics always: there are no running ones.
    """
    return _BatchNorm.apply(x, weight, bias, eps, relu, 1, kernels)


class Form(ABC):
    """How the images of T tasks lie in memory, and the layers on them; weights are ``[T, O, C, kh, kw]``."""

    image_dim: int
    """Which dimension counts the images of a task."""
    position_dims: Pair
    """Which are height and width."""

    def __init__(self, kernels: Kernels = UNCOMPILED) -> None:
        self.kernels = kernels

    @abstractmethod
    def enter(self, x: Tensor) -> Tensor:
        """Bring images ``[T, n, C, H, W]`` into this form."""

    @abstractmethod
    def conv2d(self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
        """Convolve with every task's own ``weight`` and add its ``bias [T, O]``."""

    @abstractmethod
    def batch_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> Tensor:
        """Normalise over each task's own images and positions; as the function of that name."""

    @abstractmethod
    def max_pool(self, x: Tensor, layer: torch.nn.MaxPool2d) -> Tensor:
        """Apply the layer to every image."""

    @abstractmethod
    def global_average(self, x: Tensor) -> Tensor:
        """Average over height and width, which become 1 and 1."""

    @abstractmethod
    def flatten(self, x: Tensor) -> Tensor:
        """Return ``[T, n, C*H*W]`` in torch's order."""


class TasksInside(Form):
    """``[n, T, C, H, W]`` in the memory order n, H, W, T, C: for all tasks one grouped convolution, T groups."""

    image_dim = 0
    position_dims = (3, 4)

    def enter(self, x: Tensor) -> Tensor:
        """Bring images ``[T, n, C, H, W]`` into this form."""
        return x.permute(1, 3, 4, 0, 2).contiguous().permute(0, 3, 4, 1, 2)

    def conv2d(self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
        """Convolve with every task's own ``weight`` and add its ``bias [T, O]``."""
        n_tasks, out = weight.shape[:2]
        height, width = _output_size((x.shape[3], x.shape[4]), (weight.shape[3], weight.shape[4]), stride, padding)
        if height * width <= _FEW_POSITIONS:
            y = _by_patches(x.permute(1, 0, 3, 4, 2), weight, bias, stride, padding)
            return y.permute(1, 0, 4, 2, 3)
        geometry = (stride, padding, n_tasks)
        y = _Convolution.apply(x.flatten(1, 2).to(weight.dtype), weight.flatten(0, 1), geometry)
        y = y.to(x.dtype).unflatten(1, (n_tasks, out))
        return y if bias is None else y + bias[..., None, None]

    def batch_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> Tensor:
        """Normalise over each task's own images and positions; as the function of that name."""
        rows = x.permute(0, 3, 4, 1, 2)
        y = _BatchNorm.apply(rows.flatten(0, 2), weight, bias, eps, relu, 0, self.kernels)
        return y.view(rows.shape).permute(0, 3, 4, 1, 2)

    def max_pool(self, x: Tensor, layer: torch.nn.MaxPool2d) -> Tensor:
        """Apply the layer to every image."""
        return layer(x.flatten(1, 2)).unflatten(1, x.shape[1:3])

    def global_average(self, x: Tensor) -> Tensor:
        """Average over height and width, which become 1 and 1."""
        return x.mean(dim=self.position_dims, keepdim=True)

    def flatten(self, x: Tensor) -> Tensor:
        """Return ``[T, n, C*H*W]`` in torch's order."""
        return x.transpose(0, 1).flatten(2)


class TasksOutside(Form):
    """``[T, n, H, W, C]``: convolution is patches times a batched matrix product."""

    image_dim = 1
    position_dims = (2, 3)

    def enter(self, x: Tensor) -> Tensor:
        """Bring images ``[T, n, C, H, W]`` into this form."""
        return x.movedim(2, -1)

    def conv2d(self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
        """Convolve with every task's own ``weight`` and add its ``bias [T, O]``."""
        return _by_patches(x, weight, bias, stride, padding)

    def batch_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> Tensor:
        """Normalise over each task's own images and positions; as the function of that name."""
        return batch_norm(x.flatten(1, -2), weight, bias, eps, relu, self.kernels).view_as(x)

    def max_pool(self, x: Tensor, layer: torch.nn.MaxPool2d) -> Tensor:
        """Apply the layer to every image."""
        y = layer(x.flatten(0, 1).movedim(-1, 1))  # channels-last memory stays as it is
        return y.movedim(1, -1).unflatten(0, x.shape[:2])

    def global_average(self, x: Tensor) -> Tensor:
        """Average over height and width, which become 1 and 1."""
        return x.mean(dim=self.position_dims, keepdim=True)

    def flatten(self, x: Tensor) -> Tensor:
        """Return ``[T, n, C*H*W]`` in torch's order."""
        return x.movedim(-1, 2).flatten(2)


def _by_patches(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
    """Convolve ``x [T, n, H, W, C]``."""
    n_tasks, n, height, width, _ = x.shape
    out, kernel = weight.shape[1], (weight.shape[3], weight.shape[4])
    patches = _Patches.apply(x, kernel, stride, padding)  # [T, n*H'*W', kh*kw*C]
    y = linear(patches, weight.permute(0, 1, 3, 4, 2).flatten(2), bias)  # a view of channels-last weights
    return y.view(n_tasks, n, *_output_size((height, width), kernel, stride, padding), out)


def _output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    height, width = ((size[i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in (0, 1))
    return height, width


Geometry = tuple[Pair, Pair, int]
"""Stride, padding and number of groups."""


class _Linear(torch.autograd.Function):
    """``y = x w^T`` for every task; torch's own derivative leaves ``dw`` in another memory order than ``w``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return torch.bmm(x, w.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, w = ctx.saved_tensors
        dx = torch.bmm(grad[0], w) if ctx.needs_input_grad[0] else None
        dw = torch.bmm(grad[0].transpose(1, 2), x) if ctx.needs_input_grad[1] else None
        return dx, dw


class _Convolution(torch.autograd.Function):
    """``y = x * w``, a grouped convolution. It and the two below are bilinear and each other's derivatives."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
        ctx.geometry = geometry
        ctx.save_for_backward(x, w)
        stride, padding, groups = geometry
        return F.conv2d(_channels_last(x), _channels_last(w), None, stride, padding, 1, groups)

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
        return _derivatives(dy, _blank(shape, dy), w, geometry, 0)

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
        return _derivatives(dy, x, _blank(shape, dy), geometry, 1)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        dy, x = ctx.saved_tensors
        (v,), geometry = grad, ctx.geometry
        d_dy = _Convolution.apply(x, v, geometry) if ctx.needs_input_grad[0] else None
        dx = _ConvolutionInput.apply(dy, v, x.shape, geometry) if ctx.needs_input_grad[1] else None
        return d_dy, dx, None, None


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
