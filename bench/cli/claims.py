"""What a run claims, held against what can be made of it again: each check names itself and the first thing amiss."""

from __future__ import annotations

import dataclasses
import math
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.api import BenchError
from bench.network.build import build
from bench.network.kernels import EAGER, choose
from bench.network.trained import Trained
from bench.records.columns import MODES, SummaryRow
from bench.records.intervals import mean_ci95
from bench.records.run import Run
from bench.registry import ALGORITHMS, BACKBONES, DATASETS, RAISED, Registry, create_algorithm, said
from bench.runs.outcome import inner_facts
from bench.settings.code import code_of, data_code
from bench.settings.config import TUNING, RunConfig, later_fields
from bench.settings.sources import Sources, code_at_test, load_sources
from bench.system.machine import device_name
from bench.system.version import RESULTS
from bench.tasks.corruption import CORRUPTIONS
from bench.tasks.stream import TaskStream
from bench.training.evaluate import answered, batch_size
from bench.training.weights import WEIGHTS_FILE, digests, read_trained

ROUNDED = 0.05  # share of tasks whose answers another machine's rounding may change ...
MOVED = 0.005  # ... and by how much that may move their mean
LONGEST = 2_000_000  # training tasks whose hash is made again; more take minutes
FOUND = ("task_chunk", "kernels")  # settings that a run may depart from, for want of memory or of a compiler


class Broken(Exception):
    """Something that is claimed does not hold."""


class Unknown(Exception):
    """Something that cannot be checked here; the message says why."""


@dataclass(frozen=True)
class Claim:
    """One run under the checks, and what there is to check it with.

    Args:
        roots: where the data sets of training and of test are, and ``cache`` where prepared ones may be kept.
        tasks: how many test tasks to answer again; 0 for none.
        chance: draws them.
    """

    run: Run
    roots: tuple[Path, Path]
    cache: Path
    tasks: int
    chance: random.Random

    @cached_property
    def config(self) -> RunConfig:
        """The settings as recorded."""
        try:
            return RunConfig(**self.run.details["config"])
        except (KeyError, TypeError, BenchError) as error:
            raise Broken(f"the record's settings are none: {error}") from error

    @cached_property
    def sources(self) -> Sources:
        """The data, as it is here."""
        kind = None if self.config.corrupted is None else self.config.corrupted.kind
        present((DATASETS, self.config.dataset), (DATASETS, self.config.test_dataset), (CORRUPTIONS, kind))
        try:
            return load_sources(self.config, self.roots, self.cache)
        except BenchError as error:
            raise Unknown(f"the data is not here ({error})") from error

    def stream(self, split: str) -> TaskStream:
        """Return the tasks of a split, on the CPU."""
        sources = self.sources.trained_on(self.config.train_classes)
        return sources.stream(self.config, split, torch.device("cpu"))


def present(*needed: tuple[Registry[Any], str | None]) -> None:
    """Raise Unknown for the first name that nothing here has registered."""
    for registry, name in needed:
        if name is not None and name not in registry.names():
            raise Unknown(f"{registry.kind} {name!r} is not known here; --plugin loads it")


def older(row: SummaryRow) -> bool:
    """Say whether a row is of an earlier results version, whose records hold less."""
    return (row.results or 1) < RESULTS


def name_of(claim: Claim) -> None:
    """The run's name is made of its settings, so that no setting was exchanged."""
    recorded = set(claim.run.details.get("config", {}))
    if missing := {f.name for f in dataclasses.fields(RunConfig)} - recorded - {*later_fields(), *TUNING}:
        if not older(claim.run.row):
            raise Broken(f"the settings lack {sorted(missing)[0]}")
        raise Unknown(f"an earlier version recorded no {sorted(missing)[0]}")
    if claim.config.run_id != claim.run.row.run_id:
        raise Broken(f"the settings are those of {claim.config.run_id}, not of {claim.run.row.run_id}")


def row_of(claim: Claim) -> None:
    """The row tells the settings that were recorded."""
    row, config = claim.run.row, claim.config
    cells = {n: v for n, v in dataclasses.asdict(config).items() if n in claim.run.details["config"]}
    if config.algo in ALGORITHMS.names() and config.backbone in BACKBONES.names():
        algorithm = create_algorithm(config.algo, **config.hyperparameters)
        cells |= {**config.row_cells, **inner_facts(config, algorithm)}
    for name in sorted(set(SummaryRow.columns()) & set(cells) - set(FOUND)):
        told, left_open = getattr(row, name), cells[name] is None
        if not left_open and told != cells[name] and not (told is None and older(row)):
            raise Broken(f"{name} is {told} in the row and {cells[name]} in the settings")


def tasks_of(claim: Claim) -> None:
    """There is a line for each test task that was asked for, and each could have come out so."""
    frame, wanted = claim.run.test_tasks, claim.config.test_tasks
    if list(frame.task) != list(range(wanted)):
        raise Broken(f"{len(frame):,} test tasks, numbered otherwise than 0 to {wanted - 1:,}")
    if claim.run.row.measure not in (None, "accuracy"):
        return
    images = claim.config.test_ways * claim.config.eval_k_query
    for column in MODES.values():
        counts = frame[column].to_numpy() * images
        if (odd := np.flatnonzero(~(np.abs(counts - counts.round()) < 1e-6) | (counts < 0) | (counts > images))).size:
            raise Broken(f"{column} of test task {odd[0]} is no share of {images} answers")


def scores_of(claim: Claim) -> None:
    """Means and intervals follow from the test tasks."""
    row, frame = claim.run.row, claim.run.test_tasks
    kind = "acc" if row.measure in (None, "accuracy") else "error"
    for column in MODES.values():
        name = column.replace("acc", kind)
        for cell, value in zip((f"test_{name}", f"test_{name}_ci95"), mean_ci95(frame[name].to_numpy())):
            known = getattr(row, cell)
            if known is None or not math.isclose(known, value, rel_tol=1e-9, abs_tol=1e-12):
                raise Broken(f"{cell} is {known}; the test tasks give {value}")


def budget_of(claim: Claim) -> None:
    """Training saw the tasks that the settings ask for, and was validated along the way."""
    row, config, curve = claim.run.row, claim.config, claim.run.curve
    if row.tasks_seen != config.meta_steps * config.meta_batch:
        raise Broken(f"{row.tasks_seen} training tasks; the settings ask for {config.meta_steps * config.meta_batch:,}")
    if len(curve) != (asked := min(config.val_points, config.meta_steps) + 1):  # before a long list is made of it
        raise Broken(f"{len(curve)} validations; the settings ask for {asked:,}")
    points = sorted({round(i * config.meta_steps / config.val_points) for i in range(config.val_points + 1)})
    if [point.meta_step for point in curve] != points:
        raise Broken("validated after other meta-steps than the settings say")
    times = [point.train_s for point in curve]
    if times != sorted(times) or row.train_s is None or times[-1] > row.train_s + 1e-6:
        raise Broken("the clock of training runs backwards between validations")


def versions_of(claim: Claim) -> None:
    """The code here is the code that made the run."""
    row = claim.run.row
    if (row.results or 1) != RESULTS:
        raise Unknown(f"made by results version {row.results or 1} of the harness; here is {RESULTS}")
    present((ALGORITHMS, row.algo), (BACKBONES, claim.config.backbone))
    if row.code != (here := code_of(ALGORITHMS.get(row.algo), BACKBONES.get(claim.config.backbone))):
        raise Broken(f"made by other files of algorithm and network ({row.code}) than those here ({here})")


def data_of(claim: Claim) -> None:
    """Images and class lists here are those of the run."""
    row, source, test = claim.run.row, claim.sources.train, claim.sources.test
    if row.measure not in (None, source.objective.measure):
        raise Broken(f"the measure is {row.measure!r} in the row and {source.objective.measure!r} of the data")
    if row.data_sha256 != source.sha256:
        raise Broken(f"made on other data ({str(row.data_sha256)[:12]}) than is here ({source.sha256[:12]})")
    if row.data_code is not None and row.data_code != data_code(source):
        raise Broken(f"made with other code or splits of the data ({row.data_code}) than are here")
    if row.test_data_sha256 != (None if claim.config.test_dataset is None else test.sha256):
        raise Broken(f"tested on other data ({str(row.test_data_sha256)[:12]}) than is here ({test.sha256[:12]})")
    if row.test_data_code != code_at_test(claim.config, claim.sources):
        raise Broken(f"tested with other code, splits or corruptions ({row.test_data_code}) than are here")


def stream_of(claim: Claim) -> None:
    """The training tasks here are those of the run."""
    seen = claim.run.row.tasks_seen or 0
    if seen > LONGEST:
        raise Unknown(f"making a hash of {seen:,} training tasks takes too long")
    here = claim.stream("meta_train").digest(seen)
    if claim.run.row.stream_sha256 != here:
        recorded = str(claim.run.row.stream_sha256)[:12]
        raise Broken(f"trained on other tasks ({recorded}) than are drawn here ({here[:12]})")


def weights_of(claim: Claim) -> None:
    """The weights are those that the record names."""
    recorded = claim.run.details.get("weights")
    if not isinstance(recorded, dict):
        if not older(claim.run.row):
            raise Broken("the record names no weights")
        raise Unknown("an earlier version recorded no hash of the weights")
    if not (claim.run.folder / WEIGHTS_FILE).exists():
        raise Unknown("the weights are not here")
    if (here := digests(claim.run.folder)) != recorded:
        raise Broken(f"{next((n for n in recorded if here.get(n) != recorded[n]), WEIGHTS_FILE)} is another run's")


def answers_of(claim: Claim) -> str:
    """Weights adapted to test tasks drawn at random give what the record says of each."""
    if not claim.tasks:
        raise Unknown("no test task was answered again; --tasks N does")
    run, config = claim.run, claim.config
    if not (run.folder / WEIGHTS_FILE).exists():
        raise Unknown("the weights are not here")
    present((ALGORITHMS, config.algo), (BACKBONES, config.backbone))
    torch.set_num_threads(min(run.row.threads or 1, os.cpu_count() or 1))
    algorithm = create_algorithm(config.algo, **config.hyperparameters)
    cpu, stream = torch.device("cpu"), claim.stream("meta_test")
    if config.precision in ("tf32", "tf32x3"):
        raise Unknown("a CPU has no tf32")
    config = config if config.device == "cpu" else dataclasses.replace(config, device="cpu", kernels=EAGER)
    sources = claim.sources.trained_on(config.train_classes)
    task_loss, initial = build(config, algorithm, sources.train, cpu, choose(config.kernels, cpu)[0])
    try:
        trained = Trained(task_loss, *read_trained(run.folder, algorithm, initial))
    except ValueError as error:
        raise Broken(str(error)) from error
    trained = trained.at_test(config, algorithm, sources.train, cpu)
    kind = "acc" if run.row.measure in (None, "accuracy") else "error"
    here = ("cpu", device_name(cpu), torch.__version__)
    off, moved, seen = 0, dict.fromkeys(MODES, 0.0), 0
    size = batch_size(stream, trained.task_loss, trained.slow)
    parts = (trained.task_loss, trained.slow, trained.carry, stream)
    for first, count in drawn(size, config.test_tasks, claim.tasks, claim.chance):
        answers = answered(algorithm, *parts, first, count, config.eval_inner_steps)
        lines = run.test_tasks.iloc[first : first + count]
        differ = np.zeros(count, dtype=bool)
        for mode, column in MODES.items():
            wrong = answers[mode] - lines[column.replace("acc", kind)].to_numpy()
            differ |= wrong != 0
            moved[mode] += float(wrong.sum())
        off, seen = off + int(differ.sum()), seen + count
        if differ.any() and (run.row.device, run.row.device_name, run.row.torch_version) == here:
            raise Broken(f"test task {first + int(differ.argmax())} is answered otherwise by these weights")
    most = max(moved.values(), key=abs) / seen
    if off > max(1, ROUNDED * seen) or abs(most) > max(MOVED, 1 / (seen * config.test_ways * config.eval_k_query)):
        raise Broken(f"{off} of {seen} test tasks are answered otherwise by these weights")
    if not off:
        return f"{seen} test tasks answered alike"
    return (
        f"{seen - off} of {seen} test tasks answered alike; rounding of another machine moved {off}, their mean by "
        f"{most:+.5f} (it may move {ROUNDED:.0%} of tasks and the mean by {MOVED})"
    )


def drawn(size: int, total: int, wanted: int, chance: random.Random) -> Iterator[tuple[int, int]]:
    """Yield where to begin and how many tasks to take: whole batches of ``size``, as the run had them.

    In a batch of other tasks a sum may round otherwise.
    """
    starts = list(range(0, total, size))
    for first in chance.sample(starts, min(len(starts), -(-wanted // size))):
        yield first, min(size, total - first)


CHECKS: dict[str, Callable[[Claim], str | None]] = {
    "name": name_of,
    "row": row_of,
    "test tasks": tasks_of,
    "scores": scores_of,
    "budget": budget_of,
    "code": versions_of,
    "data": data_of,
    "stream": stream_of,
    "weights": weights_of,
    "answers": answers_of,
}
"""In order; each raises Broken or Unknown, or returns what is worth saying."""


def verdicts(claim: Claim) -> Iterator[tuple[str, bool | None, str]]:
    """Yield each check's name, whether it holds (None: not known) and what it found."""
    for name, check in CHECKS.items():
        try:
            yield name, True, check(claim) or ""
        except Unknown as reason:
            yield name, None, str(reason)
        except Broken as problem:
            yield name, False, str(problem)
        except RAISED as error:  # a plugin's code, or a record that fits nothing
            yield name, False, said(error)
