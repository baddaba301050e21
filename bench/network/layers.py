"""Layers beyond those of ``torch.nn`` that backbones may be built of; ``bench.network.model`` runs them stacked."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Rotate180(nn.Module):
    """Turns images upside down, which turns symmetric padding into TensorFlow's SAME.

    For a 3x3 convolution with stride 2, SAME pads even sizes at the bottom and on the right only. Symmetric padding of
    1 is used at the top and on the left only, where sizes are even; for odd sizes both are the same. So a stack of such
    convolutions on images turned by 180 degrees is that stack with SAME, with every kernel turned by 180 degrees.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x [n, C, H, W]`` turned."""
        return x.flip(-2, -1)


class BatchNormShift2d(nn.Module):
    """Batch normalisation with batch statistics, a learned shift and no scale.

    The shift's name holds a slash, so that the inner loop leaves it as it is (``MetaAlgorithm.adapted``).
    """

    SHIFT = "outer/shift"

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_parameter(self.SHIFT, nn.Parameter(torch.zeros(num_features)))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x [n, C, H, W]`` normalised over n, H and W."""
        shift = self._parameters[self.SHIFT]
        assert shift is not None, "registered by __init__"
        # Ones, since torch has no second derivative without a scale.
        return F.batch_norm(x, None, None, torch.ones_like(shift), shift, training=True, eps=self.eps)
