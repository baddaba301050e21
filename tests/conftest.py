"""Fixtures shared by all tests: seeded generators, toy data, where the real Omniglot is."""

import os
from pathlib import Path

import pytest
import torch

from bench.api import ImageSet

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def omniglot_root():
    root = Path(os.environ.get("BENCH_DATA", REPOSITORY.parent / "shared" / "omniglot"))
    if not list(root.glob("**/images_background*")):
        pytest.skip(f"no Omniglot under {root}; set BENCH_DATA to the folder that holds images_background.zip")
    return root


@pytest.fixture(scope="session")
def toy_images():
    """Sixty classes of 20 noisy copies of a random pattern each, 28 x 28: easy, and no two images alike."""
    rng = torch.Generator().manual_seed(1)
    pattern = torch.rand(60, 1, 28, 28, generator=rng)
    images = (255 * (pattern + 0.4 * torch.rand(60, 20, 28, 28, generator=rng)) / 1.4).to(torch.uint8)
    splits = {
        "meta_train": tuple(range(0, 60, 2)),
        "meta_val": tuple(range(1, 30, 2)),
        "meta_test": tuple(range(31, 60, 2)),
    }
    return ImageSet("toy", images, tuple(f"class {i}" for i in range(60)), splits, "made here", "toy")
