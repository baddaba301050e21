"""Fresh processes that wait for no imports: a server that has only imported forks a child for each.

``python -m bench.system.forkserver FD MODULE...`` imports the modules, before any thread exists, and does nothing else.
Each request on the socket FD then gets a child, with the environment, folder and open files that the request names. The
server leaves when the other end of its socket is gone; its children can see that their parent has left.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

PACKAGE = Path(__file__).resolve().parents[1]
"""What a server imports of this project."""

# What libraries read while they are imported: another value needs another server.
_READ_AT_IMPORT = (
    *("PYTHON", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS", "BLAS", "DNNL", "ONEDNN", "ATEN_", "TORCH", "PYTORCH"),
    *("CUDA", "NVIDIA", "TRITON", "LD_", "MALLOC_", "GLIBC_", "VIRTUAL_ENV", "PATH", "HOME", "LANG", "LC_"),
)
_LARGEST = 2**20  # bytes of a message
_FILES = 16  # that come with one


class Forked:
    """A child of the server, with the methods of a ``subprocess.Popen`` that runs need."""

    def __init__(self, server: Server, pid: int) -> None:
        self._server, self.pid = server, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, as Popen does; None while the process is there."""
        if self.returncode is None:
            self.returncode = self._server.status_of(self.pid)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Return the exit status once the process has ended.

        Raises:
            subprocess.TimeoutExpired: it has not after ``timeout`` seconds.
        """
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() >= end:
                raise subprocess.TimeoutExpired(f"run {self.pid}", timeout)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int, /) -> None:
        """Send a signal; nothing happens if the process has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask the process to leave."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process."""
        self.send_signal(signal.SIGKILL)


class Server:
    """The other end: starts the server at once and speaks with it when there is something to start.

    Args:
        preloaded: modules that the server imports; those that are not there are left out.
        environment: of the server's process, and in all of its children on top of the present one.
    Raises:
        OSError: no process can be made.
    """

    def __init__(self, preloaded: Sequence[str], environment: Mapping[str, str]) -> None:
        self.owner, self.key = os.getpid(), _key(preloaded, environment)
        self._environment = environment
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._codes: dict[int, int] = {}
        self._started: list[int] = []
        # For one thread at a time; a signal's handler, which asks for statuses too, may interrupt it anywhere.
        self._turn = threading.RLock()
        self.gone = False
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))  # which children inherit
        with theirs, contextlib.ExitStack() as after:
            after.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "bench.system.forkserver", str(theirs.fileno()), *preloaded],
                env={**os.environ, **environment}, pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches runs through us alone, once
            )  # fmt: skip
        atexit.register(self.close)

    def start(self, module: str, argument: str, files: Sequence[int] = (), stdout: int = 1, stderr: int = 2) -> Forked:
        """Return a process that runs ``module.main(argument)`` and holds the open ``files``.

        SIGINT and SIGTERM are blocked in it.

        Raises:
            OSError: the server has died.
        """
        request: dict[str, Any] = {"module": module, "argument": argument, "folder": str(Path.cwd())}
        request["environ"] = {**os.environ, **self._environment}
        with self._turn:
            with contextlib.suppress(ConnectionError):  # which shows in the answer
                socket.send_fds(self._socket, [json.dumps(request).encode()], [stdout, stderr, *files])
            while not self._started and not self.gone:
                self._read(0.1)
            if self._started:
                return Forked(self, self._started.pop())
        raise ChildProcessError(errno.ECHILD, "The process that starts runs has died")

    def status_of(self, pid: int) -> int | None:
        """Return the exit status of a child, None while it is there."""
        with self._turn:
            self._read(0)
        if pid not in self._codes and self.gone and not Path(f"/proc/{pid}").exists():
            self._codes[pid] = -signal.SIGKILL  # nobody can say how it ended; its record may
        return self._codes.pop(pid, None)

    def close(self) -> None:
        """Have the server leave, and wait for it."""
        atexit.unregister(self.close)
        if os.getpid() != self.owner:  # a copy in a fork
            return
        self._socket.close()
        self.gone = True
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)

    def _read(self, patience_s: float) -> None:
        """Take in all messages that are there, or that come within ``patience_s``."""
        while not self.gone and select.select([self._socket], [], [], patience_s)[0]:
            patience_s, data = 0, b""
            try:
                data = self._socket.recv(_LARGEST, socket.MSG_DONTWAIT)
            except BlockingIOError:  # the handler of a signal has read it
                return
            except ConnectionError:
                pass
            self.gone = not data
            answer = json.loads(data or "{}")
            if "started" in answer:
                self._started.append(answer["started"])
            if "ended" in answer:
                self._codes[answer["ended"]] = answer["code"]


_server: Server | None = None


def server(preloaded: Sequence[str], environment: Mapping[str, str]) -> Server:
    """Return the server of this process, begun anew if it is gone, or where code or environment have changed since."""
    global _server
    key = _key(preloaded, environment)
    if _server is not None and (_server.owner != os.getpid() or _server.gone or _server.key != key):
        _server.close()
        _server = None
    if _server is None:
        _server = Server(preloaded, environment)
    return _server


def _key(preloaded: Sequence[str], environment: Mapping[str, str]) -> object:
    """Return what a server has imported and what its libraries have read, as far as it may change."""
    files = sorted((str(path), path.stat().st_mtime_ns) for path in PACKAGE.rglob("*.py"))
    read = {name: value for name, value in os.environ.items() if name.startswith(_READ_AT_IMPORT)}
    return tuple(preloaded), files, {**read, **environment}


def main(number: int, preloaded: Sequence[str]) -> None:
    """Serve the socket of that number until its other end is gone."""
    for name in preloaded:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a child's collector would otherwise write to every page that it shares
    awake, wake = os.pipe()
    for end in (awake, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    with socket.socket(fileno=number) as ours:
        while True:
            ready = select.select((ours.fileno(), awake), (), ())[0]
            if awake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(awake, 4096)
                _tell_ended(ours)
            if ours.fileno() in ready:
                data, files, _, _ = socket.recv_fds(ours, _LARGEST, _FILES)
                if not data:
                    return
                if (pid := os.fork()) == 0:
                    _run(json.loads(data), files, (ours.fileno(), awake, wake))
                for file in files:
                    os.close(file)
                ours.send(json.dumps({"started": pid}).encode())


def _tell_ended(ours: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ours.send(json.dumps({"ended": found[0], "code": os.waitstatus_to_exitcode(found[1])}).encode())


def _run(request: dict[str, Any], files: Sequence[int], servers: Sequence[int]) -> NoReturn:
    """Be the process that was asked for."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for place, file in enumerate(files[:2], start=1):
            os.dup2(file, place)
        for file in (*files[:2], *servers):
            os.close(file)
        os.environ.clear()
        os.environ.update(request["environ"])
        os.chdir(request["folder"])
        sys.argv = [request["module"], request["argument"]]
        code = importlib.import_module(request["module"]).main(request["argument"])
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
