"""Data sets made of toy's, whose plugin they need: one fits the same networks, the size of the other is an option."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from bench.api import Dataset
from bench.registry import DATASETS, register_dataset
from bench.tasks.images import ImageSet


@register_dataset("toy-other")
class Other(Dataset):
    """Toy's patterns upside down and reversed, of classes of their own."""

    paper = "none"
    licence = "none needed"

    def load(self, root: Path, cache: Path) -> ImageSet:
        """Return the patterns."""
        made = DATASETS.get("toy")().load(root, cache)
        return dataclasses.replace(made, name="toy-other", images=255 - made.images, sha256="other")


@register_dataset("toy-sized")
@dataclass(frozen=True)
class Sized(Dataset):
    """Toy's patterns at a size of one's own."""

    image_size: int = 32

    paper = "none"
    licence = "none needed"

    def load(self, root: Path, cache: Path) -> ImageSet:
        """Return the patterns."""
        made = DATASETS.get("toy")().load(root, cache)
        flat = F.interpolate(made.images.float(), size=(self.image_size, self.image_size))
        name = f"sized {self.image_size}"
        return dataclasses.replace(made, name="toy-sized", images=flat.to(torch.uint8), sha256=name)
