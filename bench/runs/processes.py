"""Fresh processes for runs: how they are started, how signals reach them, what their exit status means."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

from bench.runs.worker import INTERRUPTED, UNWRITABLE

ROOT = Path(__file__).resolve().parents[2]

# glibc gives large blocks back to the system at once and faults every page in again at the next step, which costs a
# training step up to half of its time; these keep them. Threads that come and go would change the order of sums.
WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**26),
    "OMP_DYNAMIC": "FALSE",
    "MKL_DYNAMIC": "FALSE",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "KINETO_LOG_LEVEL": "99",  # the profiler's own log, which calls a machine without a GPU an error
}


class Signalled(Protocol):
    """What a signal can be sent to, as to a ``subprocess.Popen``."""

    def send_signal(self, number: int, /) -> None:
        """Send it; nothing happens if the process has ended."""


class Forwarding:
    """Hands SIGINT and SIGTERM to all workers, which save and leave; a second one ends them at once.

    A process inherits which signals are blocked, so a worker starts with these two blocked and lets them in when it can
    answer them (``bench.runs.worker.Stop``): Python would lose one that comes while it imports.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._handed: dict[Signalled, int] = {}  # how many of the signals that came each worker has been handed
        self._came: list[int] = []

    @property
    def stopped(self) -> bool:
        """Say whether a signal has come."""
        return bool(self._came)

    def start(self, module: str, argument: str, files: Sequence[int] = ()) -> subprocess.Popen[bytes]:
        """Run a module in a fresh process, which inherits the open ``files``, and hand it signals from now on."""
        search_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with self.held():
            worker = subprocess.Popen(
                [sys.executable, "-P", "-m", module, argument],  # -P: no module of the current folder
                env={**os.environ, **WORKER_ENVIRONMENT, "PYTHONPATH": search_path},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches it through us alone, once
                pass_fds=files,
            )
            self.add(worker)
        return worker

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold signals back from this thread while a worker is being started."""
        signal.pthread_sigmask(signal.SIG_BLOCK, self.SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self.SIGNALS)

    def add(self, worker: Signalled) -> None:
        """Hand ``worker`` signals from now on, and those that have come already.

        Blocking holds a signal back from this thread alone: another one, of a library's pool, may take it, and Python
        then calls the handler here all the same.
        """
        self._handed[worker] = 0
        self._hand_on()

    def remove(self, worker: Signalled) -> None:
        """Forget a worker that has ended."""
        del self._handed[worker]

    def on_signal(self, number: int, frame: FrameType | None = None) -> None:
        """Hand on the first signal, and kill at the second: no handler of Python's runs in the middle of a kernel."""
        self._came.append(number)
        self._hand_on()

    def _hand_on(self) -> None:
        """Send each worker what it has not been sent yet; a signal that comes meanwhile calls this within itself."""
        for worker in list(self._handed):
            while (place := self._handed[worker]) < len(self._came):
                self._handed[worker] = place + 1
                worker.send_signal(signal.SIGKILL if place else self._came[place])


@contextmanager
def forwarding_signals() -> Iterator[Forwarding]:
    """Let SIGINT and SIGTERM go to the workers that are started meanwhile; put everything back at the end."""
    forwarding = Forwarding()
    before = {number: signal.signal(number, forwarding.on_signal) for number in forwarding.SIGNALS}
    try:
        yield forwarding
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def verdict(code: int) -> tuple[str, str]:
    """Return status and error of a run whose process ended with ``code`` and left no record."""
    if code == INTERRUPTED:
        return (
            "interrupted",
            "stopped before it had anything to save, or at once: by a second signal or for not answering the first",
        )
    if code == UNWRITABLE:
        return "failed", "its results could not be written: disk full, read-only or without permission"
    if code == -signal.SIGKILL:
        return "oom", "the process was killed (SIGKILL), most likely by the system for want of memory"
    if code < 0:
        return "failed", f"the process was ended by {signal.Signals(-code).name}"
    return "failed", f"the process left with status {code} and no record"
