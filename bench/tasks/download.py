"""A download that hangs, chatters or breaks off leaves nothing behind but one line."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.api import DataMissing
from bench.tasks.imagecache import writable

_PREFIX = ".download-"


def download(fetch: Callable[[Path], None], root: Path, folder: str, patience_s: float = 10.0) -> None:
    """Let ``fetch`` fill a temporary folder inside ``root``; what it put into ``folder`` there is moved into place.

    The move is one step, so ``root / folder`` appears whole or not at all. Processes that want the same take turns;
    one that had to wait leaves it to its caller to see whether the other succeeded.

    Args:
        fetch: a library's downloader, called with the temporary folder; may raise or print what it likes.
        patience_s: how long to wait for the first byte, and for each read later on.
    Raises:
        DataMissing: why it did not work, in a few words.
    """
    if not writable(root):
        raise DataMissing(f"{root} cannot be written")
    ours = not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _turn(root, wait_s=patience_s) as first:
            if first:
                _attempt(fetch, root, folder, patience_s)
    except OSError as error:
        raise DataMissing(_one_line(error)) from error
    finally:
        if ours:
            with contextlib.suppress(OSError):  # not empty: it worked
                root.rmdir()


@contextlib.contextmanager
def _turn(root: Path, wait_s: float) -> Iterator[bool]:
    """Hold the lock of ``root``; give whether it was free, so that nobody repeats what somebody just tried."""
    descriptor = os.open(root, os.O_RDONLY)
    try:
        free = True
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                free = False
                if time.monotonic() > deadline and not any(map(_has_bytes, root.glob(f"{_PREFIX}*"))):
                    break  # the other process hears nothing either
                time.sleep(0.1)
            except OSError:  # a file system without locks
                break
        yield free
    finally:
        os.close(descriptor)


def _attempt(fetch: Callable[[Path], None], root: Path, folder: str, patience_s: float) -> None:
    for dead in root.glob(f"{_PREFIX}*"):  # nobody else is at work here: we hold the lock
        shutil.rmtree(dead, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
    try:
        _run_with_patience(lambda: fetch(temporary), temporary, patience_s)
        temporary.chmod(0o755)
        _move(temporary / folder, root / folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _run_with_patience(work: Callable[[], None], folder: Path, patience_s: float) -> None:
    """Run ``work`` in a thread that is left to itself if no byte arrives in time: a name look-up cannot be stopped."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # a downloader may raise anything; the user is told what
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    usual = socket.getdefaulttimeout()
    deadline = time.monotonic() + patience_s
    with contextlib.ExitStack() as stack:
        stack.callback(socket.setdefaulttimeout, usual)
        socket.setdefaulttimeout(patience_s)
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        if not sys.stderr.isatty():
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        thread.start()
        while thread.is_alive() and not _has_bytes(folder):
            if time.monotonic() > deadline:
                raise DataMissing(f"no answer from the network within {patience_s:g} s")
            thread.join(0.1)
        thread.join()
    if errors:
        raise DataMissing(_one_line(errors[0])) from errors[0]


def _has_bytes(folder: Path) -> bool:
    """Whether anything has arrived in a temporary folder; not deep, since an unpacked archive has many files."""
    with contextlib.suppress(OSError):  # a file may be moved away while we look
        return any(path.is_file() and path.stat().st_size for path in folder.glob("*/*"))
    return False


def _move(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise DataMissing(f"the downloader made no {source.name}")
    if not target.exists():
        source.rename(target)
        return
    for part in source.iterdir():  # the user's folder of that name, without what we were asked to fetch
        if not (target / part.name).exists():
            part.rename(target / part.name)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
