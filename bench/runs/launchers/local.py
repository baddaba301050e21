"""Runs as processes of this machine, forked from one that has imported what they need."""

from __future__ import annotations

from collections.abc import Sequence

from bench.runs.job import Job
from bench.runs.launchers.launcher import Launcher
from bench.runs.launchers.options import Options
from bench.runs.signals import Forwarding, Worker
from bench.system import forked
from bench.system.forked import Forked
from bench.system.start import worker_environment

# Everybody's: files of plugins, those of this repository among them, are imported by each run, as they are then.
_PRELOADED = (
    "bench.runs.worker", "bench.runs.profile", "higher", "torchvision.datasets.omniglot", "PIL.Image",
    "matplotlib.ft2font",
)  # fmt: skip


def make(options: Options) -> Launcher:
    """Return the launcher of this machine."""
    return Local(options.jobs)


class Local(Launcher):
    """Keeps ``jobs`` runs under way at once on this machine."""

    def __init__(self, jobs: int = 1) -> None:
        self.jobs = jobs

    def prepare(self) -> None:
        """Have what runs need imported once.

        Raises:
            OSError: no process can be made.
        """
        prepare()

    @property
    def room(self) -> int:
        """Return how many runs can be under way at once."""
        return self.jobs

    @property
    def threads(self) -> None:
        """Leave the threads of a run to the user's environment."""
        return

    def start(self, signals: Forwarding, module: str, job: Job, files: Sequence[int]) -> Worker:
        """Run a job in a fresh process, which holds the open ``files``, and hand it signals from now on."""
        return start_process(signals, module, job.to_json(), files)


def prepare() -> None:
    """Have what runs need imported once, by the process that they are forked from; return when that is done.

    Raises:
        OSError: no process can be made.
    """
    forked.prepare(_PRELOADED, worker_environment())


def start_process(signals: Forwarding, module: str, argument: str, files: Sequence[int] = ()) -> Worker:
    """Run a module in a fresh process, which holds the open ``files``, and hand it signals from now on."""
    with signals.held():
        process = Forked(module, argument, files, worker_environment())
        signals.add(process)
    return process
