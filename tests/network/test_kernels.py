"""Which kernels a run gets."""

import torch

from bench.network import kernels
from bench.network.kernels import UNCOMPILED, available, choose


def test_without_a_compiler_it_says_so_and_runs_eager(monkeypatch, caplog):
    class Broken:
        @staticmethod
        def forward(*args):
            raise RuntimeError("no header\nlong story")

    monkeypatch.setattr(kernels, "compiled", lambda: Broken)
    assert choose("compiled", torch.device("cpu")) == (UNCOMPILED, "eager (no header)")
    assert "torch.compile failed (no header)" in caplog.text
    assert choose("eager", torch.device("cpu")) == (UNCOMPILED, "eager")
    assert available("cpu") == "eager"
