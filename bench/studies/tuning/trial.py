"""One trial in a process of its own: a run that is trained and validated as any other, and never tested."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bench.api import SPLITS
from bench.records.columns import CurvePoint
from bench.runs.job import Job
from bench.runs.outcome import Outcome
from bench.runs.signals import Stop
from bench.runs.worker import ready, recorded, train
from bench.studies.tuning.asking import ByFiles, Judge
from bench.system.console import Console
from bench.system.load import cores
from bench.system.waiting import Waiting
from bench.training.train import Training

PRUNED = "pruned"
"""What run.json of a trial says that was stopped for trailing the others."""


class _Pruned(Exception):
    """The trial is not to go on."""


def main(text: str) -> int:
    """Make the trial of a job and record it, whatever happens; returns the exit status."""
    return recorded(text, execute)


def execute(job: Job, stop: Stop, outcome: Outcome, console: Console) -> Training:
    """Set up and train one trial for as long as it keeps up with the others; meta-test is not even set up."""
    assert job.trial is not None, "the search has numbered it"
    with contextlib.ExitStack() as closing:
        waiting = closing.enter_context(contextlib.closing(Waiting(job.config.threads or cores())))
        training, _ = ready(job, stop, outcome, waiting, [split for split in SPLITS if split != "meta_test"])
        kind = training.stream.objective.kind
        judge = closing.enter_context(_judge(job, kind, stop))
        number, reported = job.trial, 0

        def look() -> None:
            nonlocal reported
            points = training.progress.curve
            if len(points) > reported:
                reported = len(points)
                if not judge.goes_on(number, [score(point, kind) for point in points]):
                    raise _Pruned

        try:
            train(job, training, stop, console, waiting, look)
        except _Pruned:
            outcome.details[PRUNED] = True
        outcome.facts["stream_sha256"] = training.stream_sha256()
        return training


@contextlib.contextmanager
def _judge(job: Job, kind: str, stop: Stop) -> Iterator[Judge]:
    """Give what says whether a trial goes on: the study itself, or the command where that is elsewhere."""
    if not job.remote:
        from bench.studies.tuning.storage import Study  # Optuna, which a node need not have

        yield Study(job.out / job.within, job.within.rpartition("/")[2], kind, job.config.val_points)
        return
    with contextlib.closing(ByFiles(job.folder, stop.check)) as asking:
        yield asking


def score(point: CurvePoint, kind: str) -> float:
    """Return what a validation measured, NaN where that is not known."""
    value = point.val_error if kind == "error" else point.val_acc
    return float("nan") if value is None else value
