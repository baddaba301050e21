"""A small vision transformer."""

from dataclasses import dataclass

from torch import nn

from bench.api import Backbone
from bench.network.layers import MeanOfTokens, Positions, Residual, SelfAttention, Tokens, image_shape
from bench.registry import register_backbone


@register_backbone("vit")
@dataclass(frozen=True)
class ViT(Backbone):
    """Patches as tokens with learned positions, blocks of attention and of two layers with GELU, mean, linear layer.

    LayerNorm stands in front of each. The mean over tokens takes the place of a class token (Beyer et al. 2022,
    arXiv:2205.01580). Nothing is dropped. No layer looks across the batch: plain and transductive accuracy are equal.

    Attributes:
        depth: number of blocks.
        width: numbers per token.
        heads: of attention; they divide the width.
        patch: height and width of a patch; images that it does not divide get a border of zeros.
    """

    depth: int = 4
    width: int = 64
    heads: int = 4
    patch: int = 7

    paper = "after Dosovitskiy et al. 2021, arXiv:2010.11929"

    def __post_init__(self) -> None:
        """Refuse numbers that make no network.

        Raises:
            ValueError: one is below 1, or the heads do not divide the width.
        """
        for name in ("depth", "width", "heads", "patch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}; accepted: 1 or more")
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads}; accepted: a divisor of the width, {self.width}")

    def build(self, input_shape: tuple[int, ...], output_size: int) -> nn.Module:
        """Return the network, Glorot-uniform weights and zero biases in its linear layers.

        Raises:
            BenchError: the inputs are no images as large as a patch.
        """
        channels, *size = image_shape("vit", input_shape, least=self.patch)
        border = [(-side % self.patch + 1) // 2 for side in size]
        down, right = ((side + 2 * more) // self.patch for side, more in zip(size, border))
        embed = nn.Conv2d(channels, self.width, self.patch, self.patch, (border[0], border[1]))
        layers: list[nn.Module] = [embed, Tokens(), Positions(down * right, self.width)]
        for _ in range(self.depth):
            attention = nn.Sequential(nn.LayerNorm(self.width), SelfAttention(self.width, self.heads))
            hidden = [nn.Linear(self.width, 4 * self.width), nn.GELU(), nn.Linear(4 * self.width, self.width)]
            layers += [Residual(attention), Residual(nn.Sequential(nn.LayerNorm(self.width), *hidden))]
        layers += [nn.LayerNorm(self.width), MeanOfTokens(), nn.Linear(self.width, output_size)]
        network = nn.Sequential(*layers)
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        return network
