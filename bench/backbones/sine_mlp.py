"""The network of the sine experiments: two hidden layers, no normalisation."""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

from torch import nn

from bench.api import Backbone
from bench.registry import register_backbone


@register_backbone("sine-mlp")
@dataclass(frozen=True)
class SineMLP(Backbone):
    """Two hidden layers of ``hidden`` units; 64 in the Reptile paper, 40 in the MAML paper, ReLU in both.

    The Reptile authors' gist takes tanh, which it calls slightly better.
    """

    hidden: int = 64
    activation: Literal["relu", "tanh"] = "relu"

    paper = "Nichol et al. 2018, arXiv:1803.02999 (sine waves)"

    def __post_init__(self) -> None:
        """Refuse a width that makes no network.

        Raises:
            ValueError: it is below 1.
        """
        if self.hidden < 1:
            raise ValueError(f"hidden {self.hidden}; accepted: 1 or more")

    def build(self, input_shape: tuple[int, ...], output_size: int) -> nn.Module:
        """Return the network with torch's own initial weights, as in the gist."""
        layer = {"relu": nn.ReLU, "tanh": nn.Tanh}[self.activation]
        widths = (math.prod(input_shape), self.hidden, self.hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        for size, hidden in itertools.pairwise(widths):
            layers += [nn.Linear(size, hidden), layer()]
        return nn.Sequential(*layers, nn.Linear(self.hidden, output_size))
