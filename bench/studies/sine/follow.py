"""What a finished run does while it adapts: its errors and functions, from its files or from its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.network.build import build
from bench.records.intervals import mean_ci95
from bench.records.run import Run, add_tables
from bench.registry import create_algorithm
from bench.settings.config import RunConfig
from bench.studies.study import run_of
from bench.system.csvfile import Columns
from bench.tasks.data import load_data
from bench.tasks.stream import TaskStream
from bench.training.checkpoint import read_checkpoint
from bench.training.evaluate import TRANSDUCTIVE, evaluate

STEPS = (0, 1, 2, 5, 8, 10, 16, 24, 32)
"""Adaptation steps after which the error is measured."""
DRAWN = (0, 8, 16, 24, 32)
"""Adaptation steps after which functions are drawn, as in the Reptile paper's figure."""
TASKS = 4  # whose functions are drawn, the first of the test stream

ERROR_FILE, FUNCTION_FILE = "mse.csv", "functions.csv"


@dataclass(frozen=True)
class ErrorPoint(Columns):
    """Mean squared error over the first ``tasks`` test tasks after ``step`` adaptation steps."""

    step: int
    mse: float
    mse_ci95: float | None
    tasks: int


@dataclass(frozen=True)
class FunctionPoint(Columns):
    """One point of one test task: the wave, and what the network says after each of DRAWN steps.

    ``support`` is 1 for a point that was adapted to, 0 for one of the query set.
    """

    task: int
    support: int
    x: float
    wave: float
    step_0: float
    step_8: float
    step_16: float
    step_24: float
    step_32: float


@dataclass(frozen=True)
class Followed:
    """A finished run and what it does while it adapts."""

    run: Run
    errors: tuple[ErrorPoint, ...]
    functions: tuple[FunctionPoint, ...]


def gather(wanted: Sequence[RunConfig], runs: Mapping[str, Run]) -> tuple[list[Followed], list[str]]:
    """Return the finished runs among those wanted, in that order, and in words those that are missing.

    For a run that is not there under its own name the latest stands in that had the same settings, on whatever machine:
    an earlier version of the code gave it another name.
    """
    found, missing = [], []
    for config in wanted:
        run = run_of(config, runs)
        followed = follow(run) if run is not None and run.ok else None
        if followed is not None:
            found.append(followed)
        else:
            status = "not run" if run is None or run.ok else run.row.status
            missing.append(f"{config.algo} seed {config.seed} ({status})")
    return found, missing


def follow(run: Run) -> Followed | None:
    """Return what a run does while it adapts: from its files, or from its weights, which writes these files.

    None where neither is there, or where a file was altered since it was written, which gives a warning.
    """
    recorded = run.details.get("files", {ERROR_FILE: "", FUNCTION_FILE: ""})  # schema 1 knows no hashes
    if not all(name in recorded and (run.folder / name).exists() for name in (ERROR_FILE, FUNCTION_FILE)):
        checkpoint = run.folder / "checkpoint.pt"
        if not checkpoint.exists():
            return None
        points, lines = measure(RunConfig(**run.details["config"]), read_checkpoint(checkpoint))
        run = add_tables(run, {ERROR_FILE: (ErrorPoint, points), FUNCTION_FILE: (FunctionPoint, lines)})
    errors, functions = run.table(ERROR_FILE, ErrorPoint), run.table(FUNCTION_FILE, FunctionPoint)
    return Followed(run, errors, functions) if errors and functions else None


def measure(config: RunConfig, state: Mapping[str, Any]) -> tuple[list[ErrorPoint], list[FunctionPoint]]:
    """Return errors and functions of the weights of a checkpoint on the run's test stream, computed on the CPU."""
    cpu = torch.device("cpu")
    source = load_data(config.dataset, Path(), Path())
    algorithm = create_algorithm(config.algo, **config.hyperparameters)
    task_loss, _ = build(config, algorithm, source, cpu)
    rotation, episode = config.episodes["meta_test"]
    stream = TaskStream(source.pool("meta_test", rotation, cpu), episode, config.seed)
    slow, carry = state["slow"], state["carry"]
    result = evaluate(
        algorithm, task_loss, slow, carry, stream, config.test_tasks, max(STEPS), modes=(TRANSDUCTIVE,), at=STEPS
    )
    errors = [
        ErrorPoint(step, *mean_ci95(values), len(values)) for step, values in result.measure[TRANSDUCTIVE].items()
    ]
    tasks = stream.batch(0, TASKS)
    x, wave = (torch.cat([getattr(e, name) for e in (tasks.support, tasks.query)], dim=1) for name in "xy")
    path = enumerate(algorithm.predictors(task_loss, slow, tasks.support, max(DRAWN), carry))
    said = [predictor(x).detach()[..., 0] for step, predictor in path if step in DRAWN]
    values = torch.stack([x[..., 0], wave, *said]).double()  # [2 + DRAWN, TASKS, K + Q]
    support = tasks.support.y.shape[1]
    functions = [
        FunctionPoint(task, int(i < support), *values[:, task, i].tolist())
        for task in range(TASKS)
        for i in range(values.shape[2])
    ]
    return errors, functions
