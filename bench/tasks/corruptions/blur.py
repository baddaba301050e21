"""Blur: a Gaussian filter whose width grows with the image."""

import math

from torch import Tensor

from bench.tasks.corruption import Corruption, ImageBits, register_corruption

WIDTH = 1 / 56  # standard deviation of the filter for each step of strength, in sides of the image


@register_corruption("blur")
class Blur(Corruption):
    """torchvision's gaussian_blur."""

    summary = "Gaussian blur of standard deviation 0.5 to 2.5 pixels at 28 x 28, larger alike in larger images"

    def apply(self, x: Tensor, strength: int, bits: ImageBits) -> Tensor:
        """Blur every image; its border is mirrored."""
        from torchvision.transforms.v2.functional import gaussian_blur  # takes a second, hardly ever needed

        sigma = strength * WIDTH * min(x.shape[-2:])
        size = 2 * math.ceil(3 * sigma) + 1
        return gaussian_blur(x, [size, size], [sigma, sigma])
