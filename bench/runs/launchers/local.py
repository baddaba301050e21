"""Runs as processes of this machine, forked from one that has imported what they need."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.runs.job import Job
from bench.runs.launchers.launcher import Launcher, Say
from bench.runs.launchers.mps import SharedCard
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
    """Keeps ``jobs`` runs under way at once on this machine; those on a GPU share one card."""

    def __init__(self, jobs: int = 1) -> None:
        self.jobs = jobs
        self._card = SharedCard()

    def open(self, say: Say, out: Path, roots: Sequence[Path]) -> None:
        """Take note of what gets the line on how runs share a card."""
        self._card.say = say

    def close(self) -> None:
        """End what runs have shared a card by."""
        self._card.close()

    def prepare(self, on_gpu: bool = False) -> None:
        """Have what runs need imported once, and what several on one card share it by under way.

        Raises:
            OSError: no process can be made.
        """
        if on_gpu and self.jobs > 1:
            self._card.look()
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
        environment: Mapping[str, str] = {}
        if job.config.device == "cuda" and self.jobs > 1:
            self._card.look()
            job, environment = dataclasses.replace(job, sharing=self._card.sharing), self._card.environment
        return start_process(signals, module, job.to_json(), files, environment)


def prepare() -> None:
    """Have what runs need imported once, by the process that they are forked from; return when that is done.

    Raises:
        OSError: no process can be made.
    """
    forked.prepare(_PRELOADED, worker_environment())


def start_process(
    signals: Forwarding,
    module: str,
    argument: str,
    files: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
) -> Worker:
    """Run a module in a fresh process, which holds the open ``files``, and hand it signals from now on.

    Args:
        environment: on top of what each worker has.
    """
    with signals.held():
        process = Forked(module, argument, files, {**worker_environment(), **(environment or {})})
        signals.add(process)
    return process
