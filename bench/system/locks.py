"""Who is at work on what: the kernel's lock on one file per run, whose content names its owner.

The kernel lets go of a lock when the last process that holds it is gone, however it went: no lock is ever stale. It
holds between processes of one machine on any local file system, and between machines on NFS that carries locks (version
4, or 3 with lockd; not mounted ``nolock`` or ``local_lock``). The files stay when a lock is released, empty: removing
them would let two processes lock two files of one name.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.system.untrusted import MIB, open_regular, read_regular

LOOK_S = 0.05  # how often a process that waits for its turn looks
PATIENCE_S = 10.0  # after which it says for whom it waits

log = logging.getLogger("bench")


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock: where it runs, when it was started, and since when it holds the lock (ISO 8601).

    ``worker`` is the process that does the work, which holds the lock too and may outlive its owner.
    """

    host: str
    pid: int
    started: str
    since: str
    worker: int | None = None

    def __str__(self) -> str:
        worker = "" if self.worker is None else f" (worker {self.worker})"
        return f"pid {self.pid}{worker} on {self.host} since {self.since}"


class Lock:
    """A lock on ``path``, for one process at a time and those it hands the open file to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._since = ""

    def take(self) -> bool:
        """Take the lock and write down who we are; False if somebody else holds it.

        Where the file system has no locks, this warns and goes on as if it had.

        Raises:
            OSError: the file cannot be opened for writing, or is a link or no regular file.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_symlink():  # for its own words; the flag is what makes sure
            raise OSError(errno.ELOOP, "A lock may not be a symbolic link", str(self.path))
        file = open_regular(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)  # signing empties what it opens
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                os.close(file)
                return False
            log.warning("%s: no locks here (%s): let no other process use this folder", self.path, error.strerror)
        self._file, self._since = file, _iso(time.time())
        self.sign()
        return True

    def sign(self, worker: int | None = None) -> None:
        """Write the owner into the file, with the worker that it has started."""
        assert self._file is not None, "take() comes first"
        owner = Owner(socket.gethostname(), os.getpid(), _iso(_process_start()), self._since, worker)
        text = json.dumps(asdict(owner)).encode() + b"\n"
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its owner's name
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, text, 0)

    def owner(self) -> Owner | None:
        """Return who holds the lock, as far as the file says: None if it is free, or its holder has not written yet."""
        try:
            return Owner(**json.loads(read_regular(self.path, MIB)))
        except (OSError, ValueError, TypeError):
            return None

    @property
    def file(self) -> int:
        """Return the open file; a process that inherits it holds the lock too."""
        assert self._file is not None, "take() comes first"
        return self._file

    def release(self) -> None:
        """Let go, also for processes that have inherited the file."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
            fcntl.flock(self._file, fcntl.LOCK_UN)
        os.close(self._file)
        self._file = None


def run_lock(out: Path, run_id: str) -> Lock:
    """Return the lock on a run's folder, which is not in that folder: it stays where the folder is moved away."""
    return Lock(out / "locks" / f"{run_id}.lock")


@contextlib.contextmanager
def tables_turn(out: Path) -> Iterator[None]:
    """Hold the lock on what is derived from all runs, from loading them until the last file is written.

    Without it, a process that loaded the runs before another's last one had ended could write its tables after that
    other one had.

    Raises:
        OSError: the file of the lock cannot be opened for writing.
    """
    with turn(out / "locks" / "tables.lock", "the tables, which are being written"):
        yield


@contextlib.contextmanager
def turn(path: Path, what: str) -> Iterator[None]:
    """Hold the lock on ``path``, waiting until it is free; it is not to be taken twice by one process.

    ``what`` ends the line that says, after a while, what is being waited for.

    Raises:
        OSError: the file of the lock cannot be opened for writing.
    """
    lock = Lock(path)
    patience = time.monotonic() + PATIENCE_S
    while not lock.take():
        if time.monotonic() > patience:
            patience = float("inf")
            log.warning("waiting for %s by %s", what, lock.owner() or "another process")
        time.sleep(LOOK_S)
    try:
        yield
    finally:
        lock.release()


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def _process_start() -> float:
    """Return when this process was started, in seconds since 1970; pids are used again, pid and start are not."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):  # no /proc
        return time.time() - time.process_time()
    return time.time() - age
