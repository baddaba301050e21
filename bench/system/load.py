"""How many cores others use meanwhile, of those that this process may use."""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")
_IDLE = (3, 4)  # columns of the time in which a core did nothing, or waited for a disk
_WITHIN = 8  # columns: what comes behind is counted in them already
_OURS = frozenset(os.sched_getaffinity(0))  # as it is first: OMP_PROC_BIND gives each thread a core of its own later
NOTABLE = 0.25
"""Cores in use by others from which on times are said to be measured beside them: less is a machine's own life."""


def cores() -> int:
    """Return how many cores this process may use."""
    return len(_OURS)


def busy_s() -> float | None:
    """Return the seconds that the cores of this process have worked since the machine started; None if nobody knows.

    Whoever worked: all processes, and on a virtual machine what its host took away.
    """
    ours = {f"cpu{number}" for number in _OURS}
    try:
        lines = [line.split() for line in _STAT.read_text(encoding="ascii").splitlines()]
        counts = [[int(text) for text in rest[:_WITHIN]] for name, *rest in filter(None, lines) if name in ours]
    except (OSError, ValueError):
        return None
    if not counts:
        return None
    ticks = sum(n for cores in counts for place, n in enumerate(cores) if place not in _IDLE)
    return ticks / os.sysconf("SC_CLK_TCK")


class Others:
    """Counts the seconds that cores work for others, from now on."""

    def __init__(self) -> None:
        self._before = self._now()

    def seconds(self) -> tuple[float, float]:
        """Return the seconds of others' work so far, and the seconds that have passed; zeros where nobody knows."""
        before, now = self._before, self._now()
        if before is None or now is None:
            return 0.0, 0.0
        busy, own, passed = (b - a for a, b in zip(before, now))
        return busy - own, passed

    @property
    def load(self) -> float | None:
        """Return how many cores others have used on average; None where nobody knows."""
        work, passed = self.seconds()
        return max(0.0, work / passed) if passed else None

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        busy = busy_s()
        return None if busy is None else (busy, time.process_time(), time.monotonic())
