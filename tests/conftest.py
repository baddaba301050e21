"""Fixtures shared by all tests: seeded generators, toy data, where the real Omniglot is."""

import os
from pathlib import Path

import pytest
import torch
from places import REPOSITORY, TOY

from bench.registry import load_plugin

if "PYTEST_XDIST_WORKER" in os.environ:  # threads of several processes get in each other's way
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


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
    return load_plugin(TOY).toy_images()


@pytest.fixture
def blank_pictures(monkeypatch):
    """A report whose pictures are files of the right names: drawing them takes most of the time of one."""

    def files_of(path, draw, settings=1):
        folder, _, name = path.rpartition("/")
        return dict.fromkeys((f"{path}.png", f"{path}.svg", f"{folder}/slides/{name}.png"), b"\x89PNG")

    monkeypatch.setattr("bench.report.drawing.pictures.files_of", files_of)
