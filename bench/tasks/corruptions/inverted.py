"""Inverted: contrast falls, turns over and ends with the negative."""

from torch import Tensor

from bench.tasks.corruption import STRONGEST, Corruption, ImageBits, register_corruption


@register_corruption("inverted")
class Inverted(Corruption):
    """A mixture of the image and of torchvision's invert of it."""

    summary = "contrast 0.6, 0.2, -0.2, -0.6, -1 about mid-grey: the strongest is the negative, 255 - x"

    def apply(self, x: Tensor, strength: int, bits: ImageBits) -> Tensor:
        """Mix every image with its negative."""
        from torchvision.transforms.v2.functional import invert  # takes a second, hardly ever needed

        return x.lerp(invert(x), strength / STRONGEST)
