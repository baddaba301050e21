"""Noise: independent bell-shaped numbers on every value of every image."""

import torch
from torch import Tensor

from bench.tasks.corruption import Corruption, ImageBits, register_corruption, uniform

SD = 0.1  # for each step of strength, where black is 0 and white is 1


@register_corruption("noise")
class Noise(Corruption):
    """Gaussian noise, by the inverse of its distribution function: torchvision's asks the global generator."""

    summary = "Gaussian noise of standard deviation 0.1 to 0.5 (black 0, white 1), then clipped"

    def apply(self, x: Tensor, strength: int, bits: ImageBits) -> Tensor:
        """Add noise; the pattern is the same at every strength."""
        pattern = torch.special.ndtri(uniform(bits(x[0].numel()))).view(x.shape).to(x.dtype)
        return x + SD * strength * pattern
