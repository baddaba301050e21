"""Signals, from the command to the processes of its runs and within these; what their exit statuses mean."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from bench.system.start import STOPPING, URGENT, heeded

INTERRUPTED = 130  # exit status, as a shell reports SIGINT
UNWRITABLE = 74  # exit status of a worker that cannot write its record (EX_IOERR)


class Worker(Protocol):
    """A process at work on a run, as ``subprocess.Popen`` is one."""

    @property
    def pid(self) -> int | None:
        """Return its number on this machine; None of one elsewhere."""

    def poll(self) -> int | None:
        """Return its exit status, None while it is there."""

    def wait(self, timeout: float) -> int:
        """Return its exit status; ``subprocess.TimeoutExpired`` if it does not end."""

    def send_signal(self, number: int, /) -> None:
        """Send it a signal; nothing happens if it has ended."""

    def terminate(self) -> None:
        """Ask it to leave."""

    def kill(self) -> None:
        """End it."""


class Forwarding:
    """Hands what is to stop us to all workers, which save and leave; a second SIGINT or SIGTERM ends them at once.

    Batch systems announce the end by one signal, or several, and then send SIGTERM. So no other signal is a second one.

    A process inherits which signals are blocked, so a worker starts with these blocked and lets them in when it can
    answer them (``Stop``): Python would lose one that comes while it imports.
    """

    SIGNALS = STOPPING

    def __init__(self) -> None:
        self._handed: dict[Worker, int] = {}  # how many of the signals to hand on each has been handed
        self._came: list[int] = []  # of which each worker is handed its own
        self._urgent = 0

    @property
    def stopped(self) -> bool:
        """Say whether a signal has come."""
        return bool(self._came)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold signals back from this thread while a worker is being started."""
        signal.pthread_sigmask(signal.SIG_BLOCK, self.SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self.SIGNALS)

    def add(self, worker: Worker) -> None:
        """Hand ``worker`` signals from now on, and those that have come already.

        Blocking holds a signal back from this thread alone: another one, of a library's pool, may take it, and Python
        then calls the handler here all the same.
        """
        self._handed[worker] = 0
        self._hand_on()

    def remove(self, worker: Worker) -> None:
        """Forget a worker that has ended."""
        del self._handed[worker]

    def on_signal(self, number: int, frame: FrameType | None = None) -> None:
        """Hand on the first signal, and kill at the second: no handler of Python's runs in the middle of a kernel."""
        self._urgent += number in URGENT
        if not self._came:
            self._came.append(number)
        elif number in URGENT and self._urgent > 1:
            self._came.append(signal.SIGKILL)
        self._hand_on()

    def _hand_on(self) -> None:
        """Send each worker what it has not been sent yet; a signal that comes meanwhile calls this within itself."""
        for worker in list(self._handed):
            while (place := self._handed[worker]) < len(self._came):
                self._handed[worker] = place + 1
                worker.send_signal(self._came[place])


@contextmanager
def forwarding_signals() -> Iterator[Forwarding]:
    """Let what is to stop us go to the workers that are started meanwhile; put everything back at the end.

    Python hands signals to its main thread alone: elsewhere, say in a thread of a notebook, they go where they went.
    """
    forwarding = Forwarding()
    ours = heeded() if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, forwarding.on_signal) for number in ours}
    try:
        yield forwarding
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_ONE_S = 1.0  # within which signals are one: a batch system sends it to all processes, and the command hands it on


class Interrupted(Exception):
    """The user or the system asked the run to stop."""


class Stop:
    """Turns a signal into Interrupted at the next whole state, a second SIGINT or SIGTERM into an exit at once."""

    def __init__(self) -> None:
        self.asked = False
        self._first_s: float | None = None  # when the first urgent one came
        self._parent, self._runner = os.getppid(), select.poll()
        if (runner := multiprocessing.parent_process()) is not None:
            self._runner.register(runner.sentinel)
        for number in STOPPING:
            if number in URGENT or signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # the runner blocks them

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number in URGENT:
            if self._first_s is not None and now - self._first_s > _ONE_S:
                os._exit(INTERRUPTED)
            self._first_s = now if self._first_s is None else self._first_s
        self.asked = True

    def check(self) -> None:
        """Raise Interrupted if a signal came or the runner is gone."""
        if self.asked or self._alone():
            raise Interrupted

    def _alone(self) -> bool:
        """Say whether the runner is gone, be it our parent or what had us forked."""
        return bool(self._runner.poll(0)) if multiprocessing.parent_process() else os.getppid() != self._parent


def ending(code: int) -> tuple[str, str]:
    """Return status and error of a run whose process ended with ``code`` and left no record."""
    if code == INTERRUPTED:
        why = "by a second signal or for not answering the first"
        return "interrupted", f"stopped before it had anything to save, or at once: {why}"
    if code == UNWRITABLE:
        return "failed", "its results could not be written: disk full, read-only or without permission"
    if code == -signal.SIGKILL:
        return "oom", "the process was killed (SIGKILL), most likely by the system for want of memory"
    if code < 0:
        return "failed", f"the process was ended by {signal.Signals(-code).name}"
    return "failed", f"the process left with status {code} and no record"
