"""Kernels for a card, without one: interpreted against float64, and compiled to machine code that nothing runs."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from places import REPOSITORY

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")

CHECKS = Path(__file__).with_name("interpreted_card.py")
CONV4 = {"O": 64, "KH": 3, "KW": 3, "SY": 2, "SX": 2, "PY": 1, "PX": 1, "FIRST": False, "PRECISION": "ieee"}
TILE, TILE_OF_WEIGHT = {"BM": 64, "BN": 64, "BK": 32}, {"WM": 64, "WN": 64, "WK": 32}
SIZES = (
    "w_step",
    "w2_step",
    "b_step",
    "vw_step",
    "vb_step",
    "n",
    "far",
    "step",
    "of_input",
    "images",
    "height",
    "width",
    "out_height",
    "out_width",
    "share",
    "rows",
)


def check(*arguments, **environment):
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-s", "-p", "no:cacheprovider", str(CHECKS), *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_interpreted_kernels_give_what_torch_gives_in_float64():
    assert "passed" in check(TRITON_INTERPRET="1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_they_give_it_too():
    print(check(TRITON_INTERPRET="0"))


@pytest.mark.parametrize(
    ("module", "name", "constants"),
    [
        ("products", "forward", {**CONV4, **TILE, "C": 64, "TWO": True, "BIAS": False}),
        ("products", "forward", {**CONV4, **TILE, "C": 1, "BK": 16, "TWO": False, "BIAS": True, "PRECISION": "tf32x3"}),
        (
            "products",
            "backward",
            {**CONV4, **TILE, **TILE_OF_WEIGHT, "C": 64, "WANT_X": True, "WANT_W": True, "WANT_B": True},
        ),
        (
            "products",
            "backward",
            {**CONV4, **TILE, **TILE_OF_WEIGHT, "C": 1, "WANT_X": False, "WANT_W": True, "WANT_B": False, "WN": 16},
        ),
        (
            "products",
            "forward",
            {**CONV4, "BM": 16, "BN": 16, "BK": 16, "C": 64, "TWO": True, "BIAS": True, "kind": "fp64"},
        ),
        ("losses", "forward", {"O": 5, "BM": 64, "BO": 8}),
        ("losses", "double_backward", {"O": 5, "BM": 64, "BO": 8}),
        ("norms", "forward", {"C": 64, "SLOPE": 0.0, "EPS": 1e-5, "BM": 256, "BC": 8}),
        ("norms", "backward", {"C": 64, "SLOPE": 0.1, "BM": 256, "BC": 8}),
        ("norms", "double_backward", {"C": 64, "SLOPE": None, "BM": 256, "BC": 8}),
    ],
)
def test_a_kernel_compiles_for_hopper_and_keeps_to_its_registers(module, name, constants, tmp_path, monkeypatch):
    """Without a card: what the compiler would refuse, or what would go through slow memory, is seen here."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = dict(constants)
    kind = constants.pop("kind", "fp32")
    kernel = getattr(importlib.import_module(f"bench.network.card.{module}"), name)
    kinds = {
        n: "constexpr" if n in constants else "i32" if n in SIZES else "*i64" if n == "right" else f"*{kind}"
        for n in kernel.arg_names
    }
    numbered = {n: (i,) for i, n in enumerate(kernel.arg_names)}
    aligned = {
        numbered[n]: [["tt.divisibility", 16]] for n, k in kinds.items() if k == f"*{kind}" or n.endswith("_step")
    }
    source = ASTSource(kernel, kinds, {numbered[n]: value for n, value in constants.items()}, aligned)
    compiled = triton.compile(source, GPUTarget("cuda", 90, 32), {"num_warps": 8 if module == "norms" else 4})
    assert ".local" not in compiled.asm["ptx"]
    assert len(compiled.asm["cubin"]) > 1000
    assert compiled.metadata.shared <= 64 * 1024  # what every card has
