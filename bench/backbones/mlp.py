"""The MAML paper's network without convolutions."""

import math

from torch import nn

from bench.api import Backbone
from bench.registry import register_backbone


@register_backbone("mlp")
class MLP(Backbone):
    """Hidden layers of 256, 128, 64 and 64 units, each with BatchNorm and ReLU, then a linear layer."""

    paper = "Finn et al. 2017, arXiv:1703.03400, section 5.2 (no conv)"

    def build(self, input_shape: tuple[int, ...], output_size: int) -> nn.Module:
        """Return the network, initialised as the official code does: N(0, 0.01), zero biases."""
        size = math.prod(input_shape)
        layers: list[nn.Module] = [nn.Flatten()]
        for hidden in (256, 128, 64, 64):
            layers += [nn.Linear(size, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
            size = hidden
        network = nn.Sequential(*layers, nn.Linear(size, output_size))
        for layer in network:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)
        return network
