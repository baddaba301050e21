"""Clocks and memory, synchronised with the device; and the facts about the machine that a row needs."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.metadata
import itertools
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

MIB = 2**20
LEAK_SAMPLES = 3  # this many segments in a row must each end higher than the last
LEAK_FLOOR = {"cpu": 64 * MIB, "cuda": MIB}  # growth below this is an allocator's noise
AHEAD = 16  # steps that a GPU may have before it: enough to be kept busy, few enough that a signal stops the run soon
_OUT_OF_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")  # torch raises these as plain RuntimeErrors


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception means that there was not enough memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY)


def release(device: torch.device) -> None:
    """Hand freed memory back to the system and the device."""
    gc.collect()
    _trim()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def now(device: torch.device) -> float:
    """Return monotonic seconds once the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class StepTimes:
    """Milliseconds of every step, by CUDA events on a GPU so that measuring never makes the host wait."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.ms: list[float] = []
        self._events: list[torch.cuda.Event] = []
        self._times: list[float] = []

    def mark(self) -> None:
        """Note the end of a step; the first mark of a segment is its start."""
        if self.on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._events.append(event)
            if len(self._events) > AHEAD:
                self._events[-AHEAD].synchronize()
        else:
            self._times.append(time.perf_counter())

    def close(self) -> None:
        """End a segment: the device has been synchronised, and times between marks become milliseconds."""
        self.ms += [a.elapsed_time(b) for a, b in itertools.pairwise(self._events)]
        self.ms += [(b - a) * 1e3 for a, b in itertools.pairwise(self._times)]
        self._events, self._times = [], []


class Memory:
    """Peak memory of training, and whether it grows from segment to segment.

    GPU: peak allocated and reserved, reset at the start of every segment. CPU: peak resident size of the process above
    what it was when this object was made, after the warm-up and just before training; None where the system does not
    tell. ``earlier`` is the ``state`` of the parts of the run before this one. ``replay`` is what a captured step takes
    in bytes: the allocator gave that out while it was captured and sees nothing of it when it is replayed.
    """

    def __init__(self, device: torch.device, earlier: Mapping[str, Any] | None = None, replay: int = 0) -> None:
        self.device, self.replay = device, replay
        gc.collect()
        _trim()
        self._before = _status("VmRSS")
        self._known = True
        self.peak: float | None = (earlier or {}).get("peak")
        self.reserved: float | None = (earlier or {}).get("reserved")
        self.held: list[int] = []
        self.leaked: str | None = (earlier or {}).get("leaked")

    @property
    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {"peak": self.peak, "reserved": self.reserved, "leaked": self.leak()}

    def open(self) -> None:
        """Start a segment: the peaks fall back to the present size."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            try:
                Path("/proc/self/clear_refs").write_text("5")  # VmHWM falls back to VmRSS
            except OSError:
                self._known = False

    def clear(self) -> None:
        """Hand freed memory back, so that what evaluation took does not count as training's."""
        _trim()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def close(self) -> None:
        """End a segment."""
        if self.device.type == "cuda":
            held = torch.cuda.memory_allocated(self.device)
            self.peak = max(self.peak or 0, torch.cuda.max_memory_allocated(self.device), held + self.replay)
            self.reserved = max(self.reserved or 0, torch.cuda.max_memory_reserved(self.device))
            self.held.append(held)
        elif self._known and self._before:
            self.peak = max(self.peak or 0, _status("VmHWM") - self._before)
            _trim()
            self.held.append(_status("VmRSS"))

    @property
    def peak_mib(self) -> float | None:
        """Return the peak in MiB."""
        return None if self.peak is None else self.peak / MIB

    @property
    def reserved_mib(self) -> float | None:
        """Return the peak that the allocator reserved in MiB; None on a CPU."""
        return None if self.reserved is None else self.reserved / MIB

    def leak(self) -> str | None:
        """Say how much memory was lost, if every one of the last segments ended higher than the one before."""
        if self.leaked:
            return self.leaked
        last = self.held[-LEAK_SAMPLES - 1 :]
        growth = last[-1] - last[0] if len(last) > LEAK_SAMPLES else 0
        if growth < LEAK_FLOOR[self.device.type] or any(b <= a for a, b in itertools.pairwise(last)):
            return None
        return f"memory held between steps grew by {growth / MIB:.0f} MiB over the last {LEAK_SAMPLES} segments"


def resident() -> int:
    """Return the resident size of this process in bytes, 0 where the system does not tell."""
    return _status("VmRSS")


def _trim() -> None:
    """Hand freed memory back to the system where the C library can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(field: str) -> int:
    """Return a size in bytes from /proc/self/status, 0 where there is none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return 0


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
    packages = ("torch", "torchvision", "higher", "numpy", "pandas", "matplotlib")
    versions = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "python": platform.python_version(),
        "versions": versions,
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
    }


def git_commit() -> str | None:
    """Return the commit of this checkout, with ``+`` behind it if files differ from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *args: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
