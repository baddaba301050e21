"""What a run holds: its peak memory, what is left between meta-steps, whether that grows, and when there is no more."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

MIB = 2**20
LEAK_SAMPLES = 3  # this many segments in a row must each end higher than the last
LEAK_FLOOR = {"cpu": 64 * MIB, "cuda": MIB}  # growth below this is an allocator's noise
LEAK_SEGMENTS = 8  # fewer tell growth along training from what the first segments take once
OPEN_FILES = 8  # growth that is allowed
_OUT_OF_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")  # torch raises these as plain RuntimeErrors


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception means that there was not enough memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY)


def release(device: torch.device) -> None:
    """Free what nothing refers to any more, and hand it back."""
    gc.collect()
    hand_back(device)


def hand_back(device: torch.device) -> None:
    """Hand freed memory back to the system and the device."""
    _trim()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of tensors that operations make and that are still there, and the most that were at once.

    Compiled functions run as they are written meanwhile: torch.compile sees no modes, and complains of this one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._written = contextlib.ExitStack()
        self.held = self.peak = 0
        self._known: set[int] = set()

    def __enter__(self) -> LiveTensors:
        self._written.enter_context(torch.compiler.set_stance("force_eager"))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._written.close()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        for tensor in _tensors((args, kwargs or {})):
            self._known.add(tensor.untyped_storage()._cdata)  # made before: results may be views of it
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place not in self._known:
            self._known.add(place)
            self.held += size
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.held -= size


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        if value.layout is torch.strided:  # others have no one storage
            yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def peak_of_tensors(work: Callable[[], object], device: torch.device) -> int:
    """Return how many bytes of tensors ``work`` made were there at once, besides what was there before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with LiveTensors() as live:
        work()
    return live.peak


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
        self.held: list[int] = []  # bytes at the end of each segment
        self.files: list[int] = []  # open then
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
        if (files := open_files()) is not None:
            self.files.append(files)

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
        grown = last[-1] - last[0] if len(last) > LEAK_SAMPLES else 0
        if grown < LEAK_FLOOR[self.device.type] or any(b <= a for a, b in itertools.pairwise(last)):
            return None
        return f"memory held between steps grew by {grown / MIB:.0f} MiB over the last {LEAK_SAMPLES} segments"


@dataclass(frozen=True)
class Held:
    """Memory in bytes and open files at the end of each segment of training; of a continued run its last part.

    Both lists may be empty, where the system does not tell.
    """

    memory: Sequence[int]
    files: Sequence[int]

    def record(self, device: str) -> dict[str, object]:
        """Return what run.json says of it: first, last, growth and allowance, and the warning if there is one."""
        memory = [size / MIB for size in self.memory]
        return {
            "memory_mib": _course(memory, LEAK_FLOOR[device] / MIB),
            "open_files": _course(self.files, OPEN_FILES),
            "warning": self.warning(device),
        }

    def leak(self, device: str) -> str | None:
        """Return the warning if there are segments enough to call it a leak, so that the first ones do not count."""
        return self.warning(device) if len(self.memory) >= LEAK_SEGMENTS else None

    def warning(self, device: str) -> str | None:
        """Return one line that says what has grown beyond its allowance; None if nothing has."""
        grown = []
        if (size := growth(self.memory)) > LEAK_FLOOR[device]:
            grown.append(f"memory by {size / MIB:.0f} MiB (allowed: {LEAK_FLOOR[device] / MIB:.0f})")
        if (files := growth(self.files)) > OPEN_FILES:
            grown.append(f"open files by {files:.0f} (allowed: {OPEN_FILES})")
        return f"what is held between meta-steps grew along training: {', '.join(grown)}" if grown else None


def growth(held: Sequence[float]) -> float:
    """Return by how much the least of the last quarter lies above the most of the first quarter; 0 if it does not.

    So neither one high value nor one low value is taken for growth, nor what comes and goes.
    """
    quarter = max(1, len(held) // 4)
    return max(0, min(held[-quarter:]) - max(held[:quarter])) if held else 0


def _course(held: Sequence[float], allowed: float) -> dict[str, float | int] | None:
    if not held:
        return None
    return {"first": held[0], "last": held[-1], "growth": growth(held), "allowed": allowed, "segments": len(held)}


def open_files() -> int | None:
    """Return how many files and sockets this process holds open; None where the system does not tell."""
    with contextlib.suppress(OSError):
        return sum(1 for _ in os.scandir("/proc/self/fd")) - 1  # the folder itself is open while it is listed
    return None


def _status(field: str) -> int:
    """Return a size in bytes from /proc/self/status, 0 where there is none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return 0


def _trim() -> None:
    """Hand freed memory back to the system where the C library can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
