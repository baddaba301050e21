"""What makes the processes of runs has to offer this: room for some, a process for a job, and what became of it."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from bench.api import BenchError
from bench.runs.job import Job
from bench.runs.launchers.options import RAY, Options
from bench.runs.signals import Forwarding, Worker, ending
from bench.system.machine import git_commit

Say = Callable[[str], None]

WORKER, PROFILER = "bench.runs.worker", "bench.runs.profile"
"""Modules whose ``main`` takes a job: what makes a run, and what profiles one."""


class Launcher(ABC):
    """Starts the processes of runs; defaults are those of processes on this machine."""

    here: ClassVar[bool] = True
    """Whether they run on this machine and see its files."""

    def open(self, say: Say, out: Path, roots: Sequence[Path]) -> None:  # noqa: B027  # a machine is open
        """Get in touch with where runs will be.

        Args:
            say: gets lines that people should read, now and later.
            out: where results go.
            roots: of the data.
        Raises:
            BenchError: that cannot be, in one line.
        """

    def close(self) -> None:  # noqa: B027  # of this machine nothing is held
        """End what is left of the runs and let go of where they were."""

    @abstractmethod
    def prepare(self, on_gpu: bool = False) -> None:
        """Make ready for runs.

        Args:
            on_gpu: whether some are on a GPU.
        Raises:
            OSError: no process can be made.
            BenchError: runs cannot be made as things are.
        """

    @property
    @abstractmethod
    def room(self) -> int:
        """Return how many runs can be under way at once, now."""

    @property
    @abstractmethod
    def threads(self) -> int | None:
        """Return how many threads a run gets where nobody says; None for its share of the user's."""

    @property
    def gpu(self) -> bool:
        """Say whether runs can have a GPU."""
        return torch.cuda.is_available()

    @functools.cached_property
    def commit(self) -> str | None:
        """The commit of the harness that runs are made with: of the files as they were at the first of them."""
        return git_commit()

    def adopt(self, job: Job, module: str) -> Job:
        """Return the job as an earlier command has begun it, where that goes on without it; else the job itself."""
        return job

    @abstractmethod
    def start(self, signals: Forwarding, module: str, job: Job, files: Sequence[int]) -> Worker:
        """Run a job by a module's ``main`` in a fresh process, and hand it signals from now on.

        Args:
            files: stay open in it, where it is a process of this machine.
        """

    def ending(self, worker: Worker, code: int) -> tuple[str, str]:
        """Return status and error of a run whose process ended with ``code`` and left no record."""
        return ending(code)

    def known(self, worker: Worker) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return what is known besides of such a run: columns of its row, and what run.json holds."""
        return {}, {}

    def put(self, worker: Worker, name: str, content: bytes) -> None:
        """Give a process elsewhere a file in the folder of its run; one of this machine reads that itself."""
        raise NotImplementedError(f"runs by {type(self).__name__} see the files of this machine")


def launcher_of(options: Options) -> Launcher:
    """Return the launcher that is asked for, its module imported only now.

    Raises:
        BenchError: it needs a package that is not there.
    """
    if options.launcher == RAY and importlib.util.find_spec("ray") is None:
        raise BenchError("--launcher ray needs Ray; `pip install -r requirements-ray.txt` installs it")
    launcher: Launcher = importlib.import_module(f"bench.runs.launchers.{options.launcher}").make(options)
    return launcher
