"""Layers beyond those of ``torch.nn`` that backbones may be built of; ``bench.network.model`` runs them stacked."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api import BenchError


def image_shape(backbone: str, input_shape: tuple[int, ...], least: int) -> tuple[int, int, int]:
    """Return (channels, height, width) of inputs that are images of ``least`` pixels or more each way.

    Raises:
        BenchError: they are not; names the backbone.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < least:
        found, accepted = " x ".join(map(str, input_shape)), f"images of {least} x {least} pixels or more"
        raise BenchError(f"backbone {backbone!r}: inputs of {found}; accepted: {accepted}")
    channels, height, width = input_shape
    return channels, height, width


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


class Residual(nn.Module):
    """The sum of what a sequence of layers makes of ``x`` and of ``x`` itself, or of what ``shortcut`` makes of it."""

    def __init__(self, body: nn.Sequential, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both ways."""
        y: Tensor = self.body(x) + self.shortcut(x)
        return y


class Tokens(nn.Module):
    """Makes a token of each position of an image."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x [n, C, H, W]`` as ``[n, H*W, C]``."""
        return x.flatten(2).transpose(1, 2)


class Positions(nn.Module):
    """Adds a learned vector to each token; its initial numbers are normal with a deviation of 0.02."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(0.02 * torch.randn(tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x [n, L, C]`` and what belongs to each of L places."""
        return x + self.embedding


class MeanOfTokens(nn.Module):
    """Averages over tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x [n, L, C]`` as ``[n, C]``."""
        return x.mean(1)


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, arXiv:1706.03762), two linear layers around ``attend``.

    Written out: torch's fused kernels have no second derivative.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"heads {heads}; accepted: a divisor of the width, {width}")
        self.heads = heads
        self.inputs, self.outputs = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return for ``x [n, L, C]`` what every token takes from all, ``[n, L, C]``."""
        y: Tensor = self.outputs(attend(self.inputs(x), self.heads, x.dtype))
        return y


def attend(x: Tensor, heads: int, product: torch.dtype) -> Tensor:
    """Return ``[..., L, C]`` of queries, keys and values ``x [..., L, 3*C]``; ``product`` is the type of both products.

    ``softmax(q k^T / sqrt(C / heads)) v`` for each head.
    """
    q, k, v = x.to(product).unflatten(-1, (3, heads, -1)).movedim(-3, 0).transpose(-3, -2)  # each [..., heads, L, c]
    scores = (q * q.shape[-1] ** -0.5) @ k.mT  # queries are fewer numbers to scale than scores
    return (scores.to(x.dtype).softmax(-1).to(product) @ v).to(x.dtype).transpose(-3, -2).flatten(-2)
