"""ResNet-12, the deep network of the few-shot literature."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from bench.api import Backbone
from bench.network.layers import Residual, image_shape
from bench.registry import register_backbone

SLOPE = 0.1


def block(channels: int, width: int) -> list[nn.Module]:
    """Return three 3x3 convolutions with BatchNorm beside a 1x1 convolution, and what follows on their sum."""
    body: list[nn.Module] = []
    for c in (channels, width, width):
        body += [nn.Conv2d(c, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(SLOPE)]
    shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))
    # Pooled, then bent: the papers write it the other way round, which gives the same numbers from four times the work.
    return [Residual(nn.Sequential(*body[:-1]), shortcut), nn.MaxPool2d(2), nn.LeakyReLU(SLOPE)]


@register_backbone("resnet12")
@dataclass(frozen=True)
class ResNet12(Backbone):
    """Four residual blocks of three 3x3 convolutions, each halved by max-pooling; global average, linear layer.

    Every convolution has BatchNorm and a leaky ReLU of slope 0.1. Papers drop blocks of features (DropBlock) in their
    supervised training; here nothing is dropped, for its random numbers would depend on what was drawn before.

    Attributes:
        widths: filters of the four blocks, 8.0 million parameters as in TADAM or 12.4 million as in MetaOptNet.
    """

    widths: Literal["64-128-256-512", "64-160-320-640"] = "64-128-256-512"

    paper = "Oreshkin et al. 2018, arXiv:1805.10123, and Lee et al. 2019, arXiv:1904.03758"

    def build(self, input_shape: tuple[int, ...], output_size: int) -> nn.Module:
        """Return the network, He-normal initial weights; images shrink by two, rounded down, four times.

        Raises:
            BenchError: the inputs are no images of 16 x 16 pixels or more.
        """
        (channels, *_), layers = image_shape("resnet12", input_shape, least=16), list[nn.Module]()
        for width in map(int, self.widths.split("-")):
            layers += block(channels, width)
            channels = width
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, output_size))
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, SLOPE, mode="fan_out")
        return network
