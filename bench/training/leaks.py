"""What a run holds between meta-steps, memory and open files, and whether that has grown beyond an allowance."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from bench.training.measure import LEAK_FLOOR, MIB

OPEN_FILES = 8
"""Growth that is allowed; of memory it is ``bench.training.measure.LEAK_FLOOR``."""

LEAK_SEGMENTS = 8
"""Fewer tell growth along training from what the first segments take once."""


def open_files() -> int | None:
    """Return how many files and sockets this process holds open; None where the system does not tell."""
    try:
        return sum(1 for _ in os.scandir("/proc/self/fd")) - 1  # the folder itself is open while it is listed
    except OSError:
        return None


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
