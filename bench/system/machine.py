"""Facts about the machine and the checkout that results depend on besides their settings."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
_PACKAGES = ("torch", "torchvision", "higher", "numpy", "pandas", "matplotlib")
_VERSIONS: dict[str, str] = {}  # as imported, looked up once for all processes that are forked from this one
for _name in _PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        _VERSIONS[_name] = importlib.metadata.version(_name)


def device_name(device: torch.device) -> str:
    """Return the name of the GPU or processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def environment(device: torch.device) -> dict[str, object]:
    """Return versions, hardware and numerical settings: what a run depends on besides its configuration."""
    return {
        "python": platform.python_version(),
        "versions": dict(_VERSIONS),
        "platform": platform.platform(),
        "device": str(device),
        "device_name": device_name(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "malloc": {k: v for k, v in os.environ.items() if k.startswith("MALLOC_")},
        "openmp": {k: v for k, v in os.environ.items() if k.startswith(("OMP_", "GOMP_", "KMP_"))},
    }


def git_commit() -> str | None:
    """Return the commit of this checkout, with ``+`` behind it if files differ from it; None outside a checkout."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*args: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *args], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
