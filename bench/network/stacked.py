"""Layers over stacked weights: T networks at once on channels-last images, no loop over tasks.

Images come in one of two forms. On a CPU the task axis lies inside, ``[n, T, C, H, W]`` in the memory order n, H, W, T,
C: there a convolution of all tasks is one grouped convolution of oneDNN, which was faster there than patches. On a GPU
the task axis lies outside, ``[T, n, H, W, C]``, and a convolution is a kernel of ``bench.network.card``, or patches
times a batched matrix product. What has no height and width is ``[T, n, I]``, tokens are ``[T, n, L, C]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from bench.network.convolution import Pair, by_patches, grouped, linear, output_size
from bench.network.kernels import NATIVE, Kernels
from bench.network.normalisation import normalise
from bench.network.pooling import max_pool

# Of an image behind a convolution: up to here patches were faster than oneDNN on a CPU; with 16 they were not.
_FEW_POSITIONS = 4
_FEW_ROWS = 512
_LARGEST = 2**31  # numbers of a task's images: beyond it the kernels' 32 bits do not count


class _Images(ABC):
    """What both forms have."""

    image_dim: int
    """Which dimension counts the images of a task."""
    position_dims: Pair
    """Which are height and width."""

    def __init__(self, kernels: Kernels = NATIVE) -> None:
        self.kernels = kernels

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Map ``x [T, n, I]``, or images that are so once flattened, by every task's own ``weight [T, O, I]``."""
        return linear(self.flatten(x) if x.dim() == 5 else x, weight, bias)

    @abstractmethod
    def flatten(self, x: Tensor) -> Tensor:
        """Return ``[T, n, C*H*W]`` in torch's order."""

    def global_average(self, x: Tensor) -> Tensor:
        """Average over height and width, which become 1 and 1."""
        return x.mean(dim=self.position_dims, keepdim=True)


class TasksInside(_Images):
    """``[n, T, C, H, W]`` in the memory order n, H, W, T, C: for all tasks one grouped convolution, T groups."""

    image_dim = 0
    position_dims = (3, 4)

    def enter(self, x: Tensor) -> Tensor:
        """Bring images ``[T, n, C, H, W]`` into this form."""
        return x.permute(1, 3, 4, 0, 2).contiguous().permute(0, 3, 4, 1, 2)

    def conv2d(self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
        """Convolve with every task's own ``weight`` and add its ``bias [T, O]``."""
        n_tasks, out = weight.shape[:2]
        height, width = output_size((x.shape[3], x.shape[4]), (weight.shape[3], weight.shape[4]), stride, padding)
        if height * width <= _FEW_POSITIONS:
            y = by_patches(x.permute(1, 0, 3, 4, 2), weight, bias, stride, padding)
            return y.permute(1, 0, 4, 2, 3)
        geometry = (stride, padding, n_tasks)
        y = grouped(x.flatten(1, 2).to(weight.dtype), weight.flatten(0, 1), geometry)
        y = y.to(x.dtype).unflatten(1, (n_tasks, out))
        return y if bias is None else y + bias[..., None, None]

    def batch_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float | None) -> Tensor:
        """Normalise over each task's own images and positions, as ``normalise`` does."""
        rows = x.permute(0, 3, 4, 1, 2)
        y = normalise(rows.flatten(0, 2), weight, bias, eps, slope, 0, self.kernels)
        return y.view(rows.shape).permute(0, 3, 4, 1, 2)

    def max_pool(self, x: Tensor, layer: torch.nn.MaxPool2d) -> Tensor:
        """Apply the layer to every image."""
        return max_pool(x.flatten(1, 2), layer).unflatten(1, x.shape[1:3])

    def flatten(self, x: Tensor) -> Tensor:
        """Return ``[T, n, C*H*W]`` in torch's order."""
        return x.transpose(0, 1).flatten(2)

    def tokens(self, x: Tensor) -> Tensor:
        """Return ``[T, n, H*W, C]``."""
        return x.permute(1, 0, 3, 4, 2).flatten(2, 3)


class TasksOutside(_Images):
    """``[T, n, H, W, C]``: convolution is one kernel, or patches times a batched matrix product."""

    image_dim = 1
    position_dims = (2, 3)

    def enter(self, x: Tensor) -> Tensor:
        """Bring images ``[T, n, C, H, W]`` into this form, once in memory too where each kernel would ask for that."""
        return x.movedim(2, -1) if self.kernels.convolve is None else x.movedim(2, -1).contiguous()

    def conv2d(self, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair) -> Tensor:
        """Convolve with every task's own ``weight`` and add its ``bias [T, O]``."""
        high, wide = output_size((x.shape[2], x.shape[3]), (weight.shape[3], weight.shape[4]), stride, padding)
        largest = max(x[0].numel(), x.shape[1] * high * wide * weight.shape[1])
        if self.kernels.convolve is None or largest >= _LARGEST:
            return by_patches(x, weight, bias, stride, padding)
        return self.kernels.convolve(x, weight, bias, stride, padding)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Map as above; few rows by the kernel of convolutions, many, those of tokens, by torch's larger tiles."""
        if self.kernels.linear is None or x.shape[1] > _FEW_ROWS:
            return super().linear(x, weight, bias)
        return self.kernels.linear(x, weight, bias)

    def batch_norm(self, x: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float | None) -> Tensor:
        """Normalise over each task's own images and positions, as ``normalise`` does."""
        return normalise(x.flatten(1, -2), weight, bias, eps, slope, 1, self.kernels).view_as(x)

    def max_pool(self, x: Tensor, layer: torch.nn.MaxPool2d) -> Tensor:
        """Apply the layer to every image."""
        y = max_pool(x.flatten(0, 1).movedim(-1, 1), layer)  # channels-last memory stays as it is
        return y.movedim(1, -1).unflatten(0, x.shape[:2])

    def flatten(self, x: Tensor) -> Tensor:
        """Return ``[T, n, C*H*W]`` in torch's order."""
        return x.movedim(-1, 2).flatten(2)

    def tokens(self, x: Tensor) -> Tensor:
        """Return ``[T, n, H*W, C]``."""
        return x.flatten(2, 3)


Form = TasksInside | TasksOutside
"""How the images of T tasks lie in memory, and the layers on them; weights are ``[T, O, C, kh, kw]``."""
