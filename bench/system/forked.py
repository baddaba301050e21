"""Fresh processes that wait for no imports: a fork server of multiprocessing's, which has only imported, forks each.

The server is our own: the one that a process has for everybody may have been begun with other settings.
What this adds to a ``multiprocessing.Process`` of the start method ``forkserver``: environment, folder, streams and
open files are those of now and not of the server; the script that is ``__main__`` is not imported again; a signal to
the whole process group reaches the children once.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from multiprocessing import forkserver, reduction, resource_tracker
from pathlib import Path
from typing import Any

from bench.system.start import STOPPING

_CONTEXT = multiprocessing.get_context("forkserver")
_SERVER = forkserver.ForkServer()
_BEGINS = threading.Lock()  # environment and __main__ are the process's own, and each start changes them for a while
_LOST = 255  # exit status that multiprocessing reports where the server has died


class Forked:
    """A fresh process that runs ``module.main(argument)``, with the methods of a ``subprocess.Popen`` that runs need.

    The signals that stop a command (``STOPPING``) are blocked in it.

    Args:
        module: importable from here.
        argument: of its ``main``, which returns the exit status.
        files: stay open in it.
        environment: on top of the present one.
        stdout: of the new process, as an open file.
        stderr: likewise.
    Raises:
        OSError: no process can be made.
    """

    def __init__(
        self,
        module: str,
        argument: str,
        files: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        stdout: int = 1,
        stderr: int = 2,
    ) -> None:
        further = environment or {}
        work = (module, argument, {**os.environ, **further}, _Opened((stdout, stderr, *files)))
        self._process = _begun(_main, work, further)
        self.pid = self._process.pid or 0
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, as Popen does; None while the process is there."""
        code = self._process.exitcode
        if code != _LOST or not _there(self.pid):
            self.returncode = code
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Return the exit status once the process has ended.

        Raises:
            subprocess.TimeoutExpired: it has not after ``timeout`` seconds.
        """
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() >= end:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int, /) -> None:
        """Send a signal; nothing happens if the process has ended."""
        # It is not asked whether it has: the handler of a signal may call this in the middle of asking.
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask the process to leave."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process."""
        self.send_signal(signal.SIGKILL)


def prepare(preloaded: Sequence[str], environment: Mapping[str, str]) -> None:
    """Have the server import modules, those left out that are not there, and return once it has.

    A server that is there stays as it is: what it has imported is what this process has.

    Args:
        preloaded: names of modules.
        environment: in which the server is begun, on top of ours: what libraries read once and for all.
    Raises:
        OSError: no process can be made.
    """
    _SERVER.set_forkserver_preload(list(preloaded))
    _begun(int, (), environment).join()


def _begun(work: Callable[..., object], arguments: Sequence[object], environment: Mapping[str, str]) -> Any:
    """Return the process once it has been forked.

    A server that is begun for it inherits blocked signals: it ends with us, and not by what is meant for runs. A script
    that is ``__main__`` would be imported by each process, and one without a guard would run itself again and again.
    """
    process = _CONTEXT.Process(target=work, args=tuple(arguments))
    settings = {**environment, "PYTHONSAFEPATH": "1"}  # it is begun by -c, which would import from our folder
    with (
        _BEGINS,
        _set(os.environ, settings),
        _set(sys.modules, {"__main__": types.ModuleType("__main__")}),
        _set(vars(forkserver), {"connect_to_new_process": _SERVER.connect_to_new_process}),
    ):
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            resource_tracker.ensure_running()  # which lets SIGINT and SIGTERM in again
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
            process.start()
        except EOFError as error:
            raise ChildProcessError(errno.ECHILD, "The process that starts runs has died") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return process


@contextlib.contextmanager
def _set(values: MutableMapping[str, Any], meanwhile: Mapping[str, Any]) -> Iterator[None]:
    """Have other values in a mapping meanwhile."""
    before = {name: values.get(name) for name in meanwhile}
    values.update(meanwhile)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del values[name]
            else:
                values[name] = value


class _Opened:
    """Open files, by their descriptors, on the way to another process."""

    def __init__(self, files: Sequence[int]) -> None:
        self.files = files

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, tuple(reduction.DupFd(file) for file in self.files)


def _received(*files: Any) -> list[int]:
    return [file.detach() for file in files]


def _main(module: str, argument: str, environment: Mapping[str, str], files: Sequence[int]) -> None:
    """Be the process that was asked for."""
    os.setsid()  # Ctrl-C reaches runs through the command alone, once
    gc.freeze()  # or the collector would write to every page that is shared with the server
    for place, file in enumerate(files[:2], start=1):
        os.dup2(file, place)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    if (drawing := sys.modules.get("numpy.random")) is not None:
        drawing.seed()  # or all children draw the same numbers
    sys.argv = [module, argument]
    sys.exit(importlib.import_module(module).main(argument))


def _there(pid: int) -> bool:
    """Say whether a process is at work still: not one that ended and that nobody has asked after."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False
