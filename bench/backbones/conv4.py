"""Four convolutions: the networks of the Reptile and MAML papers, and of the Reptile tutorial."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from bench.api import Backbone
from bench.network.layers import BatchNormShift2d, Rotate180
from bench.registry import register_backbone


def glorot(network: nn.Module) -> nn.Module:
    """Return the network with Glorot-uniform weights and zero biases, TensorFlow's default and so both papers'."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


@register_backbone("conv4")
@dataclass(frozen=True)
class Conv4(Backbone):
    """Four 3x3 stride-2 convolutions, each with BatchNorm and ReLU, then a linear layer; 113,221 parameters 5-way.

    The options tell the two official codes apart, from each other and from torch's habits.

    Attributes:
        filters: per convolution.
        padding: by 1 on all sides, or as TensorFlow's SAME, which pads even sizes at the bottom and right only.
        norm: ``affine``, scale and shift, both adapted inside; ``shift``, a shift only, which the inner loop leaves
            alone, as in cbfinn/maml.
        norm_eps: added to the variance; 1e-3 in TensorFlow.
        head: what the linear layer sees, all positions (supervised-reptile) or their mean (cbfinn/maml).
        init: Glorot-uniform with zero biases, TensorFlow's default, or torch's own.
        head_std: standard deviation of the linear layer's normal initial weights, 1 in cbfinn/maml; none: by ``init``.
    """

    filters: int = 64
    padding: Literal["symmetric", "same"] = "symmetric"
    norm: Literal["affine", "shift"] = "affine"
    norm_eps: float = 1e-5
    head: Literal["flatten", "mean"] = "flatten"
    init: Literal["glorot", "torch"] = "glorot"
    head_std: float | None = None

    paper = "Nichol et al. 2018, arXiv:1803.02999 (Omniglot)"

    def __post_init__(self) -> None:
        """Refuse numbers that make no network.

        Raises:
            ValueError: one is out of range.
        """
        for name, least in (("filters", 1), ("norm_eps", 0), ("head_std", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} {value}; accepted: {least} or more")

    def build(self, input_shape: tuple[int, ...], output_size: int) -> nn.Module:
        """Return the network; images shrink by two, rounded up, four times."""
        channels, height, width = input_shape
        norm = nn.BatchNorm2d if self.norm == "affine" else BatchNormShift2d
        layers: list[nn.Module] = [Rotate180()] if self.padding == "same" else []
        for _ in range(4):
            convolution = nn.Conv2d(channels, self.filters, 3, stride=2, padding=1)
            layers += [convolution, norm(self.filters, eps=self.norm_eps), nn.ReLU()]
            channels, height, width = self.filters, (height + 1) // 2, (width + 1) // 2
        layers += [nn.AdaptiveAvgPool2d(1)] if self.head == "mean" else []
        features = self.filters * (1 if self.head == "mean" else height * width)
        head = nn.Linear(features, output_size)
        network = nn.Sequential(*layers, nn.Flatten(), head)
        if self.init == "glorot":
            glorot(network)
        if self.head_std is not None:
            nn.init.normal_(head.weight, std=self.head_std)
            nn.init.zeros_(head.bias)
        return network


@register_backbone("conv4-pool")
class Conv4Pool(Backbone):
    """Four 3x3 convolutions of 64 filters, each with BatchNorm, ReLU and 2x2 max-pooling, then a linear layer."""

    paper = "Vinyals et al. 2016, arXiv:1606.04080; the form most ports of MAML use"

    def build(self, input_shape: tuple[int, ...], output_size: int) -> nn.Module:
        """Return the network; images shrink by two, rounded down, four times and must be 16 x 16 at least."""
        channels, height, width = input_shape
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Conv2d(channels, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)]
            channels, height, width = 64, height // 2, width // 2
        return glorot(nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * height * width, output_size)))


@register_backbone("conv4-gap")
class Conv4GlobalAverage(Backbone):
    """Four unpadded 3x3 convolutions of 64 filters with ReLU, global average pooling, linear; no normalisation.

    Without BatchNorm there is nothing to leak between query images: plain and transductive accuracy are equal.
    """

    paper = "the Reptile tutorial that this project started from"

    def build(self, input_shape: tuple[int, ...], output_size: int) -> nn.Module:
        """Return the network; images must be 9 x 9 at least."""
        channels = input_shape[0]
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Conv2d(channels, 64, 3), nn.ReLU()]
            channels = 64
        return glorot(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, output_size)))
