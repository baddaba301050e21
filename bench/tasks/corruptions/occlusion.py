"""Occlusion: a black rectangle at a place of its own in every image."""

import math

import torch
from torch import Tensor

from bench.tasks.corruption import Corruption, ImageBits, register_corruption
from bench.tasks.counter import below

SHARE = 0.1  # of the image's area for each step of strength


@register_corruption("occlusion")
class Occlusion(Corruption):
    """What torchvision's erase does with one rectangle, with one for every image of a batch."""

    summary = "a black rectangle over 10 to 50 % of the area, anywhere within the image"

    def apply(self, x: Tensor, strength: int, bits: ImageBits) -> Tensor:
        """Cover a part of every image; its place is drawn, its size is not."""
        side = math.sqrt(SHARE * strength)
        rows, columns = (
            self._covered(drawn, size, round(side * size)) for drawn, size in zip(self._places(x, bits), x.shape[-2:])
        )
        return x.masked_fill((rows[..., :, None] & columns[..., None, :])[:, :, None], 0)

    @staticmethod
    def _places(x: Tensor, bits: ImageBits) -> tuple[Tensor, Tensor]:
        drawn = bits(2 * x.shape[1]).view(*x.shape[:2], 2)  # [T, n, 2]
        return drawn[..., 0], drawn[..., 1]

    @staticmethod
    def _covered(drawn: Tensor, size: int, length: int) -> Tensor:
        """Return which of ``size`` places are covered, bool ``[T, n, size]``, from 32 random bits ``[T, n]``."""
        start = below(drawn, size - length + 1)[..., None]
        place = torch.arange(size, device=drawn.device)
        return (place >= start) & (place < start + length)
