"""Turned: every image is rotated about its centre."""

from torch import Tensor

from bench.tasks.corruption import Corruption, ImageBits, register_corruption

DEGREES = 18  # for each step of strength, so that the strongest is a quarter turn


@register_corruption("turned")
class Turned(Corruption):
    """torchvision's rotate, bilinear; corners that come from outside are black."""

    summary = "turned by 18 to 90 degrees, counter-clockwise; the corners are black"

    def apply(self, x: Tensor, strength: int, bits: ImageBits) -> Tensor:
        """Turn every image of a task by the same angle."""
        from torchvision.transforms.v2.functional import InterpolationMode, rotate  # takes a second, hardly ever needed

        return rotate(x, DEGREES * strength, InterpolationMode.BILINEAR)
