"""A data set that needs no file: sixty noisy random patterns, learnt in seconds."""

import math
from pathlib import Path

import torch
from torch import nn

from bench.api import Backbone, Dataset
from bench.registry import register_backbone, register_dataset
from bench.tasks.images import ROTATIONS, ImageSet


def toy_images() -> ImageSet:
    """Return sixty classes of 20 noisy copies of a random pattern each, 28 x 28; no two images alike."""
    rng = torch.Generator().manual_seed(1)
    pattern = torch.rand(60, 1, 28, 28, generator=rng)
    images = (255 * (pattern + 0.4 * torch.rand(60, 20, 28, 28, generator=rng)) / 1.4).to(torch.uint8)
    splits = {
        "meta_train": tuple(range(0, 60, 2)),
        "meta_val": tuple(range(1, 30, 2)),
        "meta_test": tuple(range(31, 60, 2)),
    }
    return ImageSet("toy", images, tuple(f"class {i}" for i in range(60)), splits, "made here", "toy", ROTATIONS)


@register_dataset("toy")
class Toy(Dataset):
    """Random patterns."""

    paper = "none"
    licence = "none needed"

    def load(self, root: Path, cache: Path) -> ImageSet:
        """Return the patterns."""
        return toy_images()


@register_backbone("one-layer")
class OneLayer(Backbone):
    """A linear classifier, so that whole commands take seconds."""

    paper = "none"

    def build(self, input_shape: tuple[int, ...], output_size: int) -> nn.Module:
        """Return the network."""
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), output_size))
