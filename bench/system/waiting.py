"""How OpenMP's threads wait for each other: spinning where the cores are theirs, sleeping where others want them too.

libgomp, torch's OpenMP, has a thread spin for milliseconds before it sleeps. On a quiet machine that is fastest. Beside
other work it holds the core that the awaited thread needs, and a step takes many times as long. libgomp reads its
variables once, but it has a rule of its own: while it manages more threads than there are cores, threads spin for
microseconds. A second team of idle threads brings this rule into force, and ends it when they leave. Neither changes
how many threads compute, nor any result.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from bench.system.load import NOTABLE, Others, cores

_MAPS = Path("/proc/self/maps")
_LIBRARY = "libgomp"
_CHOSEN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_LOOK_S, _LEAST_S = 1.0, 0.2
_MOST = 64  # idle threads: libgomp ends a process that may not have so many


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: little work gains nothing from several, and waits for them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def crowded(load: float | None, threads: int) -> bool:
    """Say whether others leave fewer cores than there are ``threads``."""
    return load is not None and load + min(threads, cores()) > cores() + NOTABLE


class Waiting:
    """Looks at what others use of the cores, and has the threads of this process wait accordingly.

    Nothing is done for one thread, with another OpenMP than libgomp, or where the user has set how threads wait.

    Args:
        threads: that compute.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._others = Others()
        self._due = time.monotonic() + _LEAST_S
        self._idle: _IdleTeam | None = None
        chosen = any(os.environ.get(name) for name in _CHOSEN)
        self._size = max(2, cores() + 2 - threads)  # which makes them one more than there are cores
        self._library = _libgomp() if threads > 1 and not chosen and self._size <= _MOST else None

    @property
    def asleep(self) -> bool:
        """Whether threads wait by sleeping now."""
        return self._idle is not None

    def look(self, now: bool = False) -> None:
        """Look around, at most once a second so that training does not notice; ``now`` however short the time was."""
        if self._library is None or (time.monotonic() < self._due and not now):
            return
        crowd, self._others = crowded(self._others.load, self.threads), Others()
        self._due = time.monotonic() + _LOOK_S
        if crowd and self._idle is None:
            if may_start(self._size):
                self._idle = _IdleTeam(self._library, self._size)
            else:
                self._library = None
        elif not crowd:
            self.close()

    def close(self) -> None:
        """Have threads spin again."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None


def may_start(threads: int) -> bool:
    """Say whether the system lets us have so many threads: libgomp would end the process where it does not."""
    leave, begun = threading.Event(), []
    try:
        for _ in range(threads + 1):
            begun.append(threading.Thread(target=leave.wait, daemon=True))
            begun[-1].start()
    except RuntimeError:
        return False
    finally:
        leave.set()
    for thread in begun:
        thread.join()
    return True


class _IdleTeam:
    """Threads of libgomp with nothing to do. They belong to a thread of ours, and end with it."""

    def __init__(self, library: ctypes.CDLL, size: int) -> None:
        self._leave, there = threading.Event(), threading.Event()
        # What all of them are to do is free(NULL), which is nothing.
        nothing = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)

        def hold() -> None:
            library.GOMP_parallel(nothing, None, ctypes.c_uint(size), ctypes.c_uint(0))
            there.set()
            self._leave.wait()

        self._thread = threading.Thread(target=hold, daemon=True)
        self._thread.start()
        there.wait()

    def close(self) -> None:
        self._leave.set()
        self._thread.join()


def _libgomp() -> ctypes.CDLL | None:
    """Return torch's own, or the only one that this process has loaded; None where it has none."""
    try:
        paths = {line.split(maxsplit=5)[-1].strip() for line in _MAPS.read_text().splitlines() if _LIBRARY in line}
        found = [path for path in paths if "/torch/" in path] or list(paths)
        library = ctypes.CDLL(found[0]) if len(found) == 1 else None
        return library if hasattr(library, "GOMP_parallel") else None
    except OSError:
        return None
