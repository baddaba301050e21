"""Actors that an earlier command has left on a cluster: how they are called, and which of them nobody needs."""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from bench.runs.job import Job
from bench.runs.kept import finished
from bench.runs.launchers.launcher import WORKER
from bench.system.locks import run_lock


def name_of(job: Job, module: str) -> str:
    """Return the name of the actor of a run, the same in every command on the folder."""
    return "|".join([_home(job.out), job.within, job.config.run_id, module])


def left_over(out: Path) -> Iterator[Any]:
    """Yield the actors of runs of a folder that have come home and nobody works on, each while its run is locked."""
    for name in ray.util.list_named_actors():
        home, within, run_id, module = (name.split("|") + [""] * 4)[:4]
        if home != _home(out) or within or module != WORKER or finished(out / "runs" / run_id) is None:
            continue
        lock = run_lock(out, run_id)
        if not lock.take():
            continue
        try:
            with contextlib.suppress(ValueError):  # it has gone meanwhile
                yield ray.get_actor(name)
        finally:
            lock.release()


def _home(out: Path) -> str:
    """Return a name of a folder of results, of this machine."""
    return hashlib.sha256(f"{socket.gethostname()} {out}".encode()).hexdigest()[:12]
