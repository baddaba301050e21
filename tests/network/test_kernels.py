"""Which kernels a run gets."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from places import REPOSITORY

from bench.network import kernels
from bench.network.convolution import by_patches, linear
from bench.network.kernels import NATIVE, Kernels, available, choose


def test_where_triton_does_not_compile_it_says_so_and_runs_eager(monkeypatch, caplog):
    def broken(*args):
        raise RuntimeError("no header\nlong story")

    monkeypatch.setenv("TRITON_INTERPRET", "1")  # or a CPU is reason enough
    monkeypatch.setattr(
        kernels, "triton_kernels", lambda precision: Kernels(convolve=broken, linear=broken, cross_entropy=broken)
    )
    assert choose("triton", torch.device("cpu")) == (NATIVE, "eager (no header)")
    assert [r.message for r in caplog.records] == [
        "convolution and normalisation run slower, without Triton's kernels (no header)"
    ]


@pytest.mark.parametrize("which", ["forward", "backward", "double_backward", "convolve", "linear", "cross_entropy"])
def test_kernels_that_give_something_else_than_torch_are_not_used(which, monkeypatch, caplog):
    right = Kernels(convolve=by_patches, linear=linear, cross_entropy=kernels._cross_entropy)

    def off(*args):
        found = getattr(right, which)(*args)
        return (1.001 * found[0], *found[1:]) if isinstance(found, tuple) else 1.001 * found

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(kernels, "triton_kernels", lambda precision: right)
    assert choose("triton", torch.device("cpu")) == (right, "triton")
    monkeypatch.setattr(kernels, "triton_kernels", lambda precision: replace(right, **{which: off}))
    assert choose("triton", torch.device("cpu")) == (NATIVE, "eager (they are off torch's own by a relative 1e-03)")
    assert len(caplog.records) == 1


def test_without_a_card_they_are_torchs_own(monkeypatch, caplog):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert choose("triton", torch.device("cpu")) == (NATIVE, "eager (they need a GPU, and this run is on a cpu)")
    caplog.clear()
    assert choose("eager", torch.device("cpu")) == (NATIVE, "eager")
    assert not caplog.records
    assert (available("cpu"), available("cuda") in ("triton", "eager")) == ("eager", True)


def test_a_run_on_a_cpu_does_not_import_triton():
    """It takes seconds, and need not be there."""
    code = "import sys, bench.runs.worker, bench.network.card.launches; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
