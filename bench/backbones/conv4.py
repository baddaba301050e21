"""Four convolutions: the networks of the Reptile and MAML papers, and of the Reptile tutorial."""

from typing import ClassVar

from torch import nn

from bench.api import Backbone
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
class Conv4(Backbone):
    """Four 3x3 stride-2 convolutions of 64 filters, each with BatchNorm and ReLU, then a linear layer.

    113,221 parameters 5-way. The official code pads as TensorFlow's SAME does (bottom and right first for even
    sizes), this network on all sides alike.
    """

    paper = "Nichol et al. 2018, arXiv:1803.02999 (Omniglot)"
    filters: ClassVar[int] = 64

    def build(self, image_shape: tuple[int, int, int], output_size: int) -> nn.Module:
        """Return the network; images shrink by two, rounded up, four times."""
        channels, height, width = image_shape
        filters = self.filters
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Conv2d(channels, filters, 3, stride=2, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
            channels, height, width = filters, (height + 1) // 2, (width + 1) // 2
        return glorot(nn.Sequential(*layers, nn.Flatten(), nn.Linear(filters * height * width, output_size)))


@register_backbone("conv4-16")
class Conv4x16(Conv4):
    """``conv4`` with 16 filters."""

    paper = "conv4, narrower"
    filters = 16


@register_backbone("conv4-32")
class Conv4x32(Conv4):
    """``conv4`` with 32 filters."""

    paper = "conv4, narrower; 32 is what the MAML paper takes on miniImageNet"
    filters = 32


@register_backbone("conv4-128")
class Conv4x128(Conv4):
    """``conv4`` with 128 filters."""

    paper = "conv4, wider"
    filters = 128


@register_backbone("conv4-pool")
class Conv4Pool(Backbone):
    """Four 3x3 convolutions of 64 filters, each with BatchNorm, ReLU and 2x2 max-pooling, then a linear layer."""

    paper = "Vinyals et al. 2016, arXiv:1606.04080; the form most ports of MAML use"

    def build(self, image_shape: tuple[int, int, int], output_size: int) -> nn.Module:
        """Return the network; images shrink by two, rounded down, four times and must be 16 x 16 at least."""
        channels, height, width = image_shape
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

    def build(self, image_shape: tuple[int, int, int], output_size: int) -> nn.Module:
        """Return the network; images must be 9 x 9 at least."""
        channels = image_shape[0]
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Conv2d(channels, 64, 3), nn.ReLU()]
            channels = 64
        return glorot(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, output_size)))
