"""Further tests of a run that has finished, from its stored weights: ``main`` gets the JSON of its Job."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bench.network.build import build
from bench.network.kernels import choose
from bench.network.trained import Trained
from bench.records.run import Run, add_tables, load_run
from bench.registry import create_algorithm, load_plugin
from bench.runs.job import Job
from bench.runs.progress import bar
from bench.runs.runner import FollowUp
from bench.runs.signals import UNWRITABLE
from bench.runs.worker import set_up_torch
from bench.settings.config import RunConfig
from bench.settings.sources import Sources, load_sources
from bench.studies.shift.shifts import name_of
from bench.system.csvfile import Columns
from bench.system.start import STOPPING
from bench.training.evaluate import PLAIN, TRANSDUCTIVE, evaluate
from bench.training.weights import read_trained

TESTS_FILE, TASKS_FILE = "shifts.csv", "shift_tasks.csv"
"""In a run's folder: a line per test, and a line per task of each."""


@dataclass(frozen=True)
class ShiftTest(Columns):
    """A test of a finished run under one shift, and on what."""

    test: str
    test_tasks: int
    test_stream_sha256: str
    """Over the test tasks; a corruption leaves them what they are."""
    test_data_sha256: str
    test_data_code: str | None


@dataclass(frozen=True)
class ShiftTask(Columns):
    """Accuracies of one task of such a test, NaN where the outputs are not finite."""

    test: str
    task: int
    acc: float
    acc_transductive: float


def main(text: str) -> int:
    """Do the tests of a job that its run has not been through; returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # each test is written when it is done
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # the runner blocks them
    job = Job.from_json(text)
    for path in job.plugins:
        load_plugin(path)
    run = load_run(job.folder)
    device = torch.device(job.config.device)
    set_up_torch(job.config)
    missing = [fields for fields in job.tests if not _been_through(run, [fields])]
    with bar(job, "testing", len(missing) * job.config.test_tasks, "task") as shown:
        sources: dict[str, Sources] = {}
        for fields in missing:
            config = dataclasses.replace(job.config, **fields)
            of = str((config.test_dataset, config.test_dataset_options))
            if of not in sources:
                sources[of] = load_sources(config, job.data_roots, job.cache)
            test, tasks = _tested(run, config, sources[of], device, name_of(fields), shown.update)
            try:
                run = _written(run, test, tasks)
            except OSError:
                return UNWRITABLE
    return 0


def follow_up(tests: Sequence[Mapping[str, Any]]) -> FollowUp:
    """Return what has every finished run go through some tests."""
    return FollowUp(__name__, tuple(tests), _been_through)


def measured(run: Run) -> dict[str, dict[int, tuple[float, float]]]:
    """Return plain and transductive accuracy of every task, by test and number of the task."""
    found: dict[str, dict[int, tuple[float, float]]] = {}
    for line in _lines(run, TASKS_FILE, ShiftTask):
        found.setdefault(line.test, {})[line.task] = (line.acc, line.acc_transductive)
    return found


def _been_through(run: Run, tests: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether a run has been through tests, with the code and data of today."""
    done = {(line.test, line.test_data_code) for line in _lines(run, TESTS_FILE, ShiftTest)}
    return {(name_of(fields), fields.get("test_data_code")) for fields in tests} <= done


def _lines(run: Run, name: str, kind: Any) -> tuple[Any, ...]:
    return run.table(name, kind) if (run.folder / name).exists() else ()


def _written(run: Run, test: ShiftTest, tasks: Sequence[ShiftTask]) -> Run:
    """Record a test in place of an earlier one of that name."""
    kept = [line for line in _lines(run, TESTS_FILE, ShiftTest) if line.test != test.test]
    lines = [line for line in _lines(run, TASKS_FILE, ShiftTask) if line.test != test.test]
    return add_tables(run, {TASKS_FILE: (ShiftTask, [*lines, *tasks]), TESTS_FILE: (ShiftTest, [*kept, test])})


def _tested(
    run: Run, config: RunConfig, sources: Sources, device: torch.device, name: str, advance: Any
) -> tuple[ShiftTest, list[ShiftTask]]:
    """Return what a run's weights make of the test tasks of a configuration that differs from its own at test alone."""
    sources = sources.trained_on(config.train_classes)
    algorithm = create_algorithm(config.algo, **config.hyperparameters)
    kernels, _ = choose(config.kernels, device, config.precision)
    task_loss, initial = build(config, algorithm, sources.train, device, kernels)
    trained = Trained(task_loss, *read_trained(run.folder, algorithm, initial))
    trained = trained.at_test(config, algorithm, sources.train, device)
    stream = sources.stream(config, "meta_test", device)
    parts = (algorithm, trained.task_loss, trained.slow, trained.carry, stream)
    found = evaluate(*parts, config.test_tasks, config.eval_inner_steps, at=(), advance=advance)
    plain, together = (np.asarray(found.final(mode), dtype=float) for mode in (PLAIN, TRANSDUCTIVE))
    digest = stream.digest(config.test_tasks)
    test = ShiftTest(name, config.test_tasks, digest, sources.test.sha256, config.test_data_code)
    return test, [ShiftTask(name, task, *map(float, pair)) for task, pair in enumerate(zip(plain, together))]
