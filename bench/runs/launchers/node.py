"""On a node of a Ray cluster: one run, whose folder is kept here and looked at from afar.

No torch is imported here: the run's own process does that, and this one only watches it.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from bench.runs import presence
from bench.runs.launchers.delivered import kept
from bench.system.files import write_atomic
from bench.system.start import STOPPING, worker_environment
from bench.system.version import __version__

IDLE_S = 900.0
"""After so long without a look, a run saves and leaves: nobody may come back for it."""
GRACE_S = 30.0  # for a process that was told to leave
HOME = "meta-bench-run-"  # begins the name of an actor's folder, in that of temporary files
RECORD = "run.json"  # says that all is there, so it travels last
ROOTS = ("data_root", "test_data_root")  # of a job
COMPARED = ("torch", "higher", "numpy", "ray")
"""Packages whose versions a node must have in common with the command."""

_ROOT = Path(__file__).resolve().parents[3]
# The process goes with its actor, however that ends: the run is begun elsewhere then, and this one would hold a GPU.
_BEGIN = """
import ctypes, importlib, os, signal, sys
module, job, actor = sys.argv[1:]
if hasattr(libc := ctypes.CDLL(None), "prctl"):  # Linux
    libc.prctl(1, signal.SIGKILL)
    if os.getppid() != int(actor):
        sys.exit(1)
sys.exit(importlib.import_module(module).main(open(job).read()))
"""


@dataclass(frozen=True)
class Parcel:
    """What a run is sent to a node with."""

    job: str
    """As JSON, with the paths of the command's machine."""
    run_id: str
    module: str
    files: Mapping[str, bytes]
    """What its folder holds, by their names in it."""
    plugins: Sequence[str]
    """Paths below the harness where it has them, else below ``code``."""
    versions: Mapping[str, str]
    code: Any
    """A reference to the files of plugins and what they import, by their paths."""
    data: tuple[str, Any]
    """Name of the data, made of what it holds, and a reference to its files; fetched where roots are not there."""
    cache: tuple[str, Any]
    """The same of prepared data."""
    idle_s: float


@dataclass(frozen=True)
class Look:
    """What became of a run since the last look."""

    host: str
    started_at: str
    """When the command began the run, which tells it from an earlier one of the same name."""
    code: int | None
    """Exit status; None while the process is there."""
    files: Mapping[str, tuple[tuple[int, int], bytes]] = field(default_factory=dict)
    """Files that are new or have changed, with what tells the next change."""
    names: Sequence[str] = ()
    """All files that are there."""
    lines: Sequence[tuple[bool, str]] = ()
    """What the process has said, and whether as a warning."""
    attempts: Sequence[Mapping[str, Any]] = ()


def versions() -> dict[str, str]:
    """Return the versions that decide results, here."""
    found = {"python": platform.python_version(), "the harness": __version__}
    return found | {name: version for name in COMPARED if (version := _version(name))}


def facts(roots: Sequence[str], packages: Sequence[str]) -> tuple[str, dict[str, str], list[bool], list[str]]:
    """Return the name of this node, its versions, which of the folders it has, and which packages it lacks."""
    has = [Path(root).is_dir() for root in roots]
    return socket.gethostname(), versions(), has, [name for name in packages if not _version(name)]


def pins() -> dict[str, str]:
    """Return what runs need besides Ray, pinned to the versions of this machine, by the names of packages."""
    names = [line.split("==")[0].strip() for line in (_ROOT / "requirements.txt").read_text().splitlines()]
    return {name: f"{name}=={found.split('+')[0]}" for name in names if (found := _version(name))}


def _version(package: str) -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return ""


def difference(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """Return the first difference between a node and a command, in words; empty for none."""
    for name in dict.fromkeys((*ours, *theirs)):
        here, there = ours.get(name, "none"), theirs.get(name, "none")
        if here != there:
            return f"has {name} {there}, this machine {here}"
    return ""


class NodeRun:
    """One run on a node; an actor of Ray, which goes on when the command that began it is gone."""

    def __init__(self) -> None:
        _sweep()
        self._home = Path(tempfile.mkdtemp(prefix=HOME))
        self._lock = (self._home / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._process: subprocess.Popen[bytes] | None = None
        self._looked, self._idle_s = time.monotonic(), IDLE_S
        self._job: dict[str, Any] = {}
        self._read = [0, 0]
        threading.Thread(target=self._watch, daemon=True).start()

    def begin(self, parcel: Parcel) -> Look:
        """Start the process of a run, unless that was done.

        Raises:
            RuntimeError: versions differ.
        """
        if self._process is not None:
            return self.look({})
        if differs := difference(versions(), parcel.versions):
            raise RuntimeError(f"{socket.gethostname()} {differs}")
        self._looked, self._idle_s = time.monotonic(), parcel.idle_s
        out, code, job = self._home / "out", self._home / "code", json.loads(parcel.job)
        for name, content in ray.get(parcel.code).items():
            write_atomic(code / name, content)
        out.mkdir()
        roots = {name: job[name] for name in ROOTS}
        if missing := [name for name, root in roots.items() if root is not None and not Path(root).is_dir()]:
            data = kept(*parcel.data) if parcel.data[0] else self._home
            for name in missing:
                roots[name] = str(data / name)
                (data / name).mkdir(exist_ok=True)
        if parcel.cache[0]:
            (out / "cache").symlink_to(kept(*parcel.cache) / "cache")
        self._presence = presence.announce()
        plugins = [str(_ROOT / path if (_ROOT / path).is_file() else code / path) for path in parcel.plugins]
        self._job = {
            **job, **roots, "out": str(out), "plugins": plugins, "log_file": None, "bars": False,
            "presence": presence.name_of(self._presence), "launched": time.monotonic(), "remote": True,
            "attempts": [*job["attempts"], _attempt()],
        }  # fmt: skip
        self._folder = out / job["within"] / "runs" / parcel.run_id
        for name, content in parcel.files.items():
            write_atomic(self._folder / name, content)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._home / "job.json"
        path.write_text(json.dumps(self._job))
        self._process = self._started(parcel, path, code)
        return self.look({})

    def _started(self, parcel: Parcel, job: Path, code: Path) -> subprocess.Popen[bytes]:
        """Start the process as the launcher of one machine does: signals blocked, and with a group of its own."""
        search = os.pathsep.join([worker_environment()["PYTHONPATH"], str(code / "imports")])
        environment = {**os.environ, **worker_environment(), "PYTHONPATH": search, "PYTHONSAFEPATH": "1"}
        held = [] if self._presence is None else [self._presence.fileno()]
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            with (self._home / "stdout").open("wb") as out, (self._home / "stderr").open("wb") as err:
                return subprocess.Popen(
                    [sys.executable, "-c", _BEGIN, parcel.module, str(job), str(os.getpid())], env=environment,
                    stdin=subprocess.DEVNULL, stdout=out, stderr=err, pass_fds=held, start_new_session=True,
                    cwd=self._home,
                )  # fmt: skip
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def look(self, known: Mapping[str, tuple[int, int]]) -> Look:
        """Return what became of the run; files whose state is ``known`` stay here.

        A record and its tables travel when the process has ended, so that they belong together.
        """
        self._looked = time.monotonic()
        host = socket.gethostname()
        if self._process is None:
            return Look(host, "", None)
        code = self._process.poll()  # first: what is read afterwards is final
        files: dict[str, tuple[tuple[int, int], bytes]] = {}
        names = []
        for path in sorted(self._folder.rglob("*")):
            name = str(path.relative_to(self._folder))
            if path.name.startswith(".") or (code is None and name == RECORD):
                continue
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                with path.open("rb") as file:  # replaced whole: what is open stays one file
                    state = os.fstat(file.fileno())
                    stamp = (state.st_mtime_ns, state.st_size)
                    if known.get(name) != stamp:
                        files[name] = (stamp, file.read())
                names.append(name)
        lines = [*self._said(0, "stdout", code is not None), *self._said(1, "stderr", code is not None)]
        return Look(host, self._job["started_at"], code, files, names, lines, self._job["attempts"])

    def put(self, name: str, content: bytes) -> None:
        """Write a file into the folder of the run."""
        write_atomic(self._folder / name, content)

    def signal(self, number: int) -> None:
        """Send the process a signal; nothing happens if it has ended."""
        if self._process is not None:
            self._process.send_signal(number)

    def leave(self) -> None:
        """End the process if it is there, and this actor."""
        self._end(0.0)
        ray.actor.exit_actor()

    def _said(self, place: int, name: str, ended: bool) -> list[tuple[bool, str]]:
        """Return the lines since the last look, of which the last is whole unless the process has ended."""
        with (self._home / name).open("rb") as file:
            file.seek(self._read[place])
            new = file.read()
        end = len(new) if ended else new.rfind(b"\n") + 1
        self._read[place] += end
        return [(bool(place), line) for line in new[:end].decode(errors="replace").splitlines()]

    def _watch(self) -> None:
        while time.monotonic() < self._looked + self._idle_s:
            time.sleep(min(5.0, self._idle_s / 4))
        self._end(GRACE_S)
        os._exit(0)  # from a thread: nothing else ends an actor

    def _end(self, grace_s: float) -> None:
        if self._process is not None and self._process.poll() is None:
            if grace_s:
                self._process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(grace_s)
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._home, ignore_errors=True)


def _sweep() -> None:
    """Remove what actors have left that were killed: nobody holds its lock."""
    for home in Path(tempfile.gettempdir()).glob(f"{HOME}*"):
        with contextlib.suppress(OSError), (home / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(home, ignore_errors=True)


def _attempt() -> dict[str, Any]:
    """Return what is recorded of an attempt that begins here, now."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return {"host": socket.gethostname(), "node": ray.get_runtime_context().get_node_id()[:12], "started": now}
