"""A variant in a process of its own: its peak memory, and a process that dies."""

import dataclasses

import pytest
import torch
from tiny_work import TINY

from bench.api import BenchError
from bench.speed.variant import VariantProcess

CPU = torch.device("cpu")


def test_peak_memory_is_taken_in_a_process_of_its_own():
    """Two inner steps keep at least the first layer's outputs: 64 channels of 14 x 14 for 3 images of 32 tasks."""
    work = dataclasses.replace(TINY["S1"], meta_batch=32)
    least = 2 * 32 * 3 * 64 * 14 * 14 * 4 / 2**20
    process = VariantProcess(work, "maml", "vmap", CPU, 1, memory=True)
    try:
        assert least < process.peak < 100 * least
        assert process() > 0
    finally:
        process.close()


def test_a_variant_whose_process_dies_is_said_in_a_line():
    broken = dataclasses.replace(TINY["S1"], inner_steps=-1, n_way=10**6)
    with pytest.raises(BenchError, match=r"S1 maml vmap: its process failed: .*accepted: 2 to"):
        VariantProcess(broken, "maml", "vmap", CPU, 1, memory=False)
