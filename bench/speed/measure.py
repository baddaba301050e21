"""How ``bench.speed`` measures: agreement first, then interleaved rounds; memory and start-up in fresh processes."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from bench.api import BenchError
from bench.records.run import load_runs
from bench.speed.peers import VARIANTS, YARDSTICK, NotAvailable
from bench.speed.work import Problem, Work
from bench.system.machine import ROOT
from bench.system.start import worker_environment
from bench.tasks.stream import TaskWindow
from bench.training.clocks import now
from bench.training.memory import MIB, Memory

AGREEMENT = 1e-9
AGREEMENT_TASKS = 3
LEAST_S = 0.3  # a variant is timed over as many iterations as fill this
MOST_REPEATS = 200
MATMUL_TRIES = 3
_MEMORY_ITERATIONS = 2

Key = TypeVar("Key")


class Disagreement(Exception):
    """Two variants do not compute the same; timing them would compare nothing."""


def settle(threads: int) -> None:
    """Set threads and precision as a worker does."""
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def problem(work: Work, algo: str, device: torch.device) -> Problem:
    """Return what is timed: Adam as meta-optimizer, but Reptile's plain step where there is no query gradient."""
    if work.inner_batch:
        return Problem(work, algo, device, meta_optimizer="sgd", meta_lr=1.0)
    return Problem(work, algo, device)


def agreement(work: Work, algo: str, device: torch.device) -> dict[str, float]:
    """Return each variant's relative error against the plain loop in one meta-step on a few tasks, in float64.

    The meta-gradient is read off the weights: with SGD at rate 1 it is what a step takes from them. Biases in front
    of BatchNorm are left out: they change nothing and their gradient is zero, of which the plain loop computes
    rounding noise that Adam enlarges.

    Raises:
        Disagreement: an error is above ``AGREEMENT``, or is not a number.
    """
    few = dataclasses.replace(work, meta_batch=min(AGREEMENT_TASKS, work.meta_batch))
    case = Problem(few, algo, device, torch.float64, "sgd", 1.0)
    layers = list(case.network().named_children())
    idle = {
        f"{name}.bias"
        for (name, _), (_, following) in itertools.pairwise(layers)
        if isinstance(following, nn.BatchNorm2d)
    }
    gradients = {}
    for name, make in VARIANTS.items():
        if name == YARDSTICK:
            continue
        try:
            runner = make(case)
        except NotAvailable:
            continue
        before = {n: w.detach().clone() for n, w in runner.weights.items()}
        runner.step()
        gradients[name] = torch.cat(
            [(before[n] - w.detach()).flatten() for n, w in runner.weights.items() if n not in idle]
        )
    reference, *_ = gradients.values()
    errors = {name: float((g - reference).norm() / reference.norm()) for name, g in gradients.items()}
    for name, error in errors.items():
        if not error < AGREEMENT:
            raise Disagreement(
                f"{work.name} {algo}: the meta-gradient of {name!r} is off that of {next(iter(errors))!r}"
                f" by a relative {error:.1e} in float64; accepted: below {AGREEMENT:.0e}; nothing was timed"
            )
    return errors


def seconds(step: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Return the mean time of ``repeats`` calls, from an idle device to an idle device."""
    began = now(device)
    for _ in range(repeats):
        step()
    return (now(device) - began) / repeats


def repeated(step: Callable[[], object], device: torch.device) -> Callable[[], float]:
    """Warm ``step`` up and return a clock that reads its mean time over so many calls that the reading is steady."""
    step()
    repeats = min(MOST_REPEATS, max(1, math.ceil(LEAST_S / seconds(step, 1, device))))

    def clock() -> float:
        gc.collect()
        step()  # off the clock: other variants have used the caches since
        return seconds(step, repeats, device)

    return clock


def interleaved(clocks: Mapping[Key, Callable[[], float]], rounds: int) -> dict[Key, list[float]]:
    """Return every clock's reading in each round; a round reads all of them, each time beginning with another."""
    times: dict[Key, list[float]] = {key: [] for key in clocks}
    order = list(clocks)
    for number in range(rounds):
        first = number * len(order) // rounds
        for key in order[first:] + order[:first]:
            times[key].append(clocks[key]())
    return times


@dataclass(frozen=True)
class Product:
    """``count`` float32 products of square matrices at once."""

    count: int
    side: int

    def __str__(self) -> str:
        """Return it as a person would write it."""
        return f"{'matmul' if self.count == 1 else f'bmm {self.count} x'} {self.side} x {self.side}"

    @property
    def gflop(self) -> float:
        """Return its work."""
        return 2e-9 * self.count * self.side**3

    def clock(self, device: torch.device) -> Callable[[], float]:
        """Return a clock that reads the best time of some tries."""
        a, b = torch.rand(2, self.count, self.side, self.side, device=device).squeeze(1)
        a @ b
        return lambda: min(seconds(lambda: a @ b, 1, device) for _ in range(MATMUL_TRIES))


def products(device: torch.device) -> list[Product]:
    """Return a large square product and a batched one: the faster is taken for the machine's rate."""
    return [Product(1, 8192), Product(64, 2048)] if device.type == "cuda" else [Product(1, 2048), Product(64, 512)]


def task_seconds(case: Problem) -> float:
    """Return the time in which this project makes the tasks of one meta-step, over enough of them to draw afresh.

    Line by line: on a GPU, where a captured step launches the gathering at once, this is an upper bound.
    """
    work, stream = case.work, case.stream(seed=1)
    window = TaskWindow(stream, max(stream.block, work.meta_batch))
    steps = 4 * stream.block // work.meta_batch

    def make(first: int) -> None:
        window.hold(first, work.meta_batch)
        tasks = window.batch(stream.numbers(first, work.meta_batch))
        if work.inner_batch:
            case.minibatches(tasks)

    make(steps * work.meta_batch)  # warms up on later tasks than are timed
    numbers = iter(range(steps))
    return seconds(lambda: make(next(numbers) * work.meta_batch), steps, case.device)


def peak_here(case: Problem, variant: str) -> float | None:
    """Return the peak memory of some meta-iterations in this process, after one to warm up, less what others hold."""
    gc.collect()
    held = torch.cuda.memory_allocated(case.device) / MIB if case.device.type == "cuda" else 0.0
    runner = VARIANTS[variant](case)
    runner.step()
    memory = Memory(case.device)
    memory.open()
    for _ in range(_MEMORY_ITERATIONS):
        runner.step()
    now(case.device)
    memory.close()
    return None if memory.peak_mib is None else memory.peak_mib - held


def start_seconds(algos: list[str], device: torch.device, threads: int) -> dict[str, tuple[float, float]]:
    """Return, by algorithm, a worker's time from its start to the end of its first meta-step: first run, second run.

    It is ``setup_s`` of ``run_bench.py`` on the embedded data set, both runs with one ``--out``: data, compilation and
    capture, but no imports.
    """
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, str(ROOT / "run_bench.py"), "--algos", ",".join(algos), "--dataset", "glyphs",
            "--data-root", f"{folder}/data", "--out", f"{folder}/out", "--device", device.type,
            "--threads", str(threads), "--meta-steps", "1", "--test-tasks", "2", "--val-tasks", "2", "--fresh",
        ]  # fmt: skip
        for _ in range(2):
            done = subprocess.run(command, env=child_environment(), capture_output=True, text=True)
            if done.returncode:
                raise BenchError(f"run_bench.py failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
            rows = [run.row for run in load_runs(Path(folder, "out"))]
            found.append({row.algo: row.setup_s for row in rows if row.setup_s is not None})
    return {algo: (found[0][algo], found[1][algo]) for algo in algos}


def child_environment() -> dict[str, str]:
    """Return the environment of a worker, for all that is measured in a process of its own."""
    return {**os.environ, **worker_environment()}
