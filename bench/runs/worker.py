"""One run in a process of its own: ``python -m bench.runs.worker JOB``, JOB being the JSON of a Job."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bench.api import BenchError, Episode, MetaAlgorithm, Objective
from bench.network.kernels import UNCOMPILED, Kernels, choose
from bench.network.model import Classifier, build_network
from bench.records.run import AdaptationPoint, CurvePoint, SummaryRow, TestTask, measured, write_run
from bench.records.stats import mean_ci95
from bench.registry import ALGORITHMS, create_algorithm, create_backbone, load_plugin
from bench.runs.presence import Company
from bench.settings.config import RunConfig
from bench.settings.protocols import code_of
from bench.system.console import Console, duration
from bench.tasks.data import load_data
from bench.tasks.stream import TaskStream
from bench.training.contract import Diverged
from bench.training.evaluate import ADAPTATION_STEPS, PLAIN, TRANSDUCTIVE, Evaluation, evaluate
from bench.training.examples import ExampleTasks, example_tasks
from bench.training.measure import device_name, environment, git_commit, is_out_of_memory, now
from bench.training.train import Progress, Training
from bench.training.weights import WEIGHTS_FILE, write_weights

log = logging.getLogger("bench")

CHECKPOINT_FILE = "checkpoint.pt"
PULSE_S = 60.0
INTERRUPTED = 130  # exit status, as a shell reports SIGINT
BAR = "{desc} {percentage:3.0f}% |{bar}| {rate_fmt}, {remaining} left{postfix}"
UNWRITABLE = 74  # exit status of a worker that cannot write its record (EX_IOERR)


@dataclass(frozen=True)
class Job:
    """What the runner hands to a worker: a configuration and where things are."""

    config: RunConfig
    out: Path
    data_root: Path
    plugins: tuple[Path, ...]
    command: str
    started_at: str
    launched: float
    """The runner's ``time.monotonic()``, which all processes of a machine share: set-up is counted from there."""
    presence: str = ""
    """What says on this machine that the run is under way (``bench.runs.presence``); empty where nothing can."""
    bars: bool = True
    """Whether to show progress, where there is a terminal."""
    place: str = ""
    """Which of the comparison's runs it is, as in ``[2/6]``."""
    log_file: Path | None = None
    """What gets warnings besides stderr, and how far the run is."""
    quiet: bool = False
    """Whether only warnings and errors are wanted."""

    @property
    def folder(self) -> Path:
        """Return where the run leaves its files."""
        return self.out / "runs" / self.config.run_id

    @property
    def told(self) -> str:
        """Return what the run is called in messages."""
        c = self.config
        return f"{self.place} {c.algo} {c.n_way}-way {c.k_shot}-shot seed {c.seed} on {c.dataset}".lstrip()

    @property
    def cache(self) -> Path:
        """Return where prepared images go if the data root cannot be written."""
        return self.out / "cache"

    def to_json(self) -> str:
        """Return the job as ``from_json`` takes it."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Return the job that ``to_json`` wrote."""
        values = json.loads(text)
        values["config"] = RunConfig(**values["config"])
        values["plugins"] = tuple(Path(path) for path in values["plugins"])
        values["log_file"] = None if values["log_file"] is None else Path(values["log_file"])
        return cls(**{**values, "out": Path(values["out"]), "data_root": Path(values["data_root"])})

    def base_row(self, status: str, error: str | None = None) -> SummaryRow:
        """Return the row of a run of which nothing is known but its configuration."""
        names = set(SummaryRow.columns())
        known = {k: v for k, v in dataclasses.asdict(self.config).items() if k in names}
        known["backbone"] = self.config.network
        return SummaryRow(
            **known, run_id=self.config.run_id, started_at=self.started_at, status=status, error=error,
            git_commit=git_commit(), torch_version=torch.__version__,
        )  # fmt: skip


class Interrupted(Exception):
    """The user or the system asked the run to stop."""


class Stop:
    """Turns the first SIGINT or SIGTERM into Interrupted at the next whole state, the second into an exit at once."""

    def __init__(self) -> None:
        self.asked = False
        self._parent = os.getppid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))  # the runner blocks them

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            os._exit(INTERRUPTED)
        self.asked = True

    def check(self) -> None:
        """Raise Interrupted if a signal came or the runner is gone."""
        if self.asked or os.getppid() != self._parent:
            raise Interrupted


@dataclass
class Outcome:
    """What a run has found out so far; columns of its row in ``facts``."""

    facts: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    training: Training | None = None
    test: Evaluation | None = None
    adaptation: Evaluation | None = None
    """Of the first test tasks, at ADAPTATION_STEPS."""
    examples: ExampleTasks | None = None
    console: Console = field(default_factory=Console)


class Pulse:
    """Says how far training is, at most once a minute: a log needs that, on a terminal a bar does it."""

    def __init__(self, job: Job, console: Console, progress: Progress) -> None:
        self._name, self._total = job.told, job.config.meta_steps
        self._console, self._progress = console, progress
        self._from, self._began = progress.meta_step, time.monotonic()
        self._due = self._began + PULSE_S

    def look(self) -> None:
        """Say it if it is time."""
        now, done = time.monotonic(), self._progress.meta_step
        if now < self._due or done == self._from:
            return
        self._due = now + PULSE_S
        rate = (done - self._from) / (now - self._began)
        so_far = _so_far(self._progress.curve[-1]) if self._progress.curve else ""
        parts = [f"{done:,} of {self._total:,} meta-steps", f"{rate:.3g} a second", so_far]
        left = f"about {duration((self._total - done) / rate)} of training left"
        self._console.note(f"{self._name}: {', '.join(filter(None, parts))}, {left}")


def main(text: str) -> int:
    """Run the job and record it, whatever happens; returns the exit status."""
    job, stop, outcome = Job.from_json(text), Stop(), Outcome()
    status, error = "ok", None
    outcome.console.open(job.quiet, job.log_file)
    try:
        for path in job.plugins:
            load_plugin(path)
        check_code(job.config)
        outcome.facts["git_commit"] = git_commit()  # now: files may be edited while the run is under way
        _execute(job, stop, outcome)
        assert outcome.training is not None
        assert outcome.training.memory is not None
        error = outcome.training.memory.leak() or outcome.training.held.leak(outcome.training.device.type)
        status = "leaking" if error else "ok"
    except Interrupted:
        status, error = "interrupted", "stopped by a signal; the same command continues it"
        if outcome.training is not None:
            try:
                outcome.training.save()
            except OSError as problem:
                error = f"stopped by a signal; its checkpoint could not be written ({problem})"
    except Diverged as problem:
        status, error = "diverged", str(problem)
    except (Exception, SystemExit, KeyboardInterrupt) as problem:  # whatever a plugin raises: signals only tell Stop
        status = "oom" if is_out_of_memory(problem) else "failed"
        error = str(problem) if isinstance(problem, BenchError) else f"{type(problem).__name__}: {problem}"
        if status == "oom":
            error = f"out of memory: {problem}; try a smaller --task-chunk"
        outcome.details["traceback"] = traceback.format_exc()
    try:
        _record(job, outcome, status, error)
    except OSError:  # the runner says so, once, when it cannot write a record either
        return UNWRITABLE
    return {"ok": 0, "interrupted": INTERRUPTED}.get(status, 1)


def check_code(config: RunConfig) -> None:
    """Refuse to run an algorithm whose file is not the one that the run was named after.

    Raises:
        BenchError: it was edited since.
    """
    if config.code is not None and config.code != code_of(ALGORITHMS.get(config.algo)):
        raise BenchError(f"algorithm {config.algo!r} was edited after the command had begun; give the command again")


def set_up(
    job: Job, outcome: Outcome, checkpoint: Path, check: Callable[[], object] = lambda: None
) -> tuple[Training, TaskStream]:
    """Return the training of a run before its first step, and the tasks to test it on; ``check`` may raise to stop."""
    config, facts = job.config, outcome.facts
    device = torch.device(config.device)
    torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)))
    torch.set_float32_matmul_precision("high" if config.precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = config.precision == "tf32"
    facts.update(device_name=device_name(device), threads=torch.get_num_threads())
    outcome.details["environment"] = environment(device)

    source = load_data(config.dataset, job.data_root, job.cache)
    facts.update(data_sha256=source.sha256, data_pipeline=source.pipeline, measure=source.objective.measure)
    outcome.details["data"] = {"name": source.name, "pipeline": source.pipeline, "sha256": source.sha256}
    outcome.details["data"]["shape"] = list(source.shape)
    check()  # data may have taken a while
    streams = {
        split: TaskStream(source.pool(split, rotation, device), episode, config.seed)
        for split, (rotation, episode) in stream_plan(config).items()
    }

    algorithm = create_algorithm(config.algo, **config.hyperparameters)
    facts.update(inner_facts(config, algorithm))
    outcome.details["hyperparameters"] = _fields(algorithm)
    kernels, facts["kernels"] = choose(config.kernels, device)
    task_loss, slow = build(config, algorithm, source.shape, device, kernels, source.objective)

    training = Training(config, algorithm, task_loss, slow, streams["meta_train"], streams["meta_val"], checkpoint)
    return training, streams["meta_test"]


def _execute(job: Job, stop: Stop, outcome: Outcome) -> None:
    """Set up, train and test one run, noting in ``outcome`` whatever becomes known."""
    config, facts = job.config, outcome.facts
    training, test_stream = set_up(job, outcome, job.folder / CHECKPOINT_FILE, stop.check)
    outcome.training, device = training, training.device
    stop.check()
    training.warm_up()
    outcome.details["meta_step"] = {"mode": training.mode, "reason": training.reason}
    training.progress.setup_s += now_monotonic(device) - job.launched

    if training.progress.meta_step:
        done, total = training.progress.meta_step, config.meta_steps
        outcome.console.say(f"{job.told}: goes on after meta-step {done:,} of {total:,}, where it was stopped")

    quiet = not (job.bars and sys.stderr.isatty())
    company = Company(job.presence, training.progress.beside)
    name = f"{job.place} {config.algo[:16]} {config.n_way}w{config.k_shot}s s{config.seed}".lstrip()
    look: Any = {"disable": quiet, "leave": False, "dynamic_ncols": True, "bar_format": BAR}
    with tqdm(total=config.meta_steps, desc=f"{name} training", unit=" steps", **look) as bar:
        pulse = Pulse(job, outcome.console, training.progress)

        def advance(steps: int) -> None:
            pulse.look()
            if training.progress.curve:
                bar.set_postfix_str(_so_far(training.progress.curve[-1]), refresh=False)
            bar.update(steps)
            training.progress.beside = company.look()
            stop.check()

        training.run(advance)

    shape = training.stream.pool.source.shape
    write_weights(job.folder / WEIGHTS_FILE, config, training.algorithm, shape, training.progress.slow)
    facts["stream_sha256"] = training.stream_sha256()
    followed = min(config.adaptation_tasks, config.test_tasks)
    total = config.test_tasks + followed
    with tqdm(total=total, desc=f"{name} testing", unit=" tasks", **look) as bar:

        def advance_test(tasks: int) -> None:
            bar.update(tasks)
            stop.check()

        def test(tasks: int, steps: int | None, at: Sequence[int]) -> Evaluation:
            p = training.progress
            return evaluate(
                training.algorithm, training.task_loss, p.slow, p.carry, test_stream, tasks, steps, at=at,
                advance=advance_test,
            )  # fmt: skip

        began = now(device)
        try:
            outcome.test = finite(test(config.test_tasks, config.eval_inner_steps, at=(0,)))
            if followed:
                outcome.adaptation = test(followed, max(ADAPTATION_STEPS), at=ADAPTATION_STEPS)
        finally:
            training.progress.eval_s += now(device) - began
        p = training.progress  # after the clock has stopped: examples are for the reader, not for the record
        outcome.examples = example_tasks(
            training.algorithm, training.task_loss, p.slow, p.carry, test_stream, config.eval_inner_steps
        )


def _so_far(point: CurvePoint) -> str:
    """Return the last validation, for the progress bar."""
    measures = {"val": point.val_acc, "val error": point.val_error}
    return next((f"{name} {value:.3f}" for name, value in measures.items() if value is not None), "")


def finite(test: Evaluation) -> Evaluation:
    """Return ``test`` if every task's measure is a finite number, which it is not where adaptation ran away.

    Raises:
        Diverged: it is not.
    """
    for by_step in test.measure.values():
        for step, values in by_step.items():
            if lost := int((~np.isfinite(values)).sum()):
                raise Diverged(
                    f"outputs are not finite on {lost} of {len(values)} test tasks after {step} adaptation steps;"
                    " try a lower inner_lr"
                )
    return test


def stream_plan(config: RunConfig) -> dict[str, tuple[str, Episode]]:
    """Return rotation and episode of the task stream of each split."""
    train = Episode(config.n_way, config.train_shots, config.k_query)
    test = Episode(config.n_way, config.k_shot, config.eval_k_query)
    return {
        "meta_train": (config.train_rotation, train),
        "meta_val": (config.test_rotation, test),
        "meta_test": (config.test_rotation, test),
    }


def build(
    config: RunConfig,
    algorithm: MetaAlgorithm,
    input_shape: tuple[int, ...],
    device: torch.device,
    kernels: Kernels = UNCOMPILED,
    objective: Objective | None = None,
) -> tuple[Classifier, dict[str, Tensor]]:
    """Return the task loss and the initial slow weights, the algorithm's own among them, on the device.

    Raises:
        BenchError: the algorithm's extra weights are misnamed.
    """
    backbone = create_backbone(config.backbone, **config.backbone_options)
    network = build_network(backbone, input_shape, algorithm.output_size(config.n_way), config.seed).to(device)
    product = torch.bfloat16 if config.precision == "bf16" else None
    task_loss = Classifier(network, kernels, product=product, objective=objective)
    weights = task_loss.weights
    extra = dict(algorithm.extra_weights(weights))
    if misnamed := [name for name in extra if "/" not in name]:
        raise BenchError(
            f"algorithm {config.algo!r}: extra weights need a slash in their names; these have none: {misnamed}"
        )
    return task_loss, {name: w.detach().clone().to(device) for name, w in {**weights, **extra}.items()}


def inner_facts(config: RunConfig, algorithm: MetaAlgorithm) -> dict[str, Any]:
    """Return the columns on the inner loop; empty for an algorithm without one."""
    if not hasattr(algorithm, "inner_steps"):
        return {}
    facts = {name: getattr(algorithm, name, None) for name in ("inner_steps", "inner_lr", "inner_optimizer")}
    facts["eval_inner_steps"] = algorithm.inner_steps if config.eval_inner_steps is None else config.eval_inner_steps
    return facts


def now_monotonic(device: torch.device) -> float:
    """Return ``time.monotonic()`` once the device has done all it was given."""
    now(device)
    return time.monotonic()


def _record(job: Job, outcome: Outcome, status: str, error: str | None) -> None:
    """Write the run's folder."""
    config, facts, training = job.config, outcome.facts, outcome.training
    curve, tasks, adaptation = [], [], []
    if training is not None:
        _note_growth(config, training, outcome)
        progress, curve = training.progress, training.progress.curve
        seen = progress.meta_step * config.meta_batch
        steps = torch.tensor(progress.step_ms or [math.nan], dtype=torch.float64)
        facts.update(
            tasks_seen=seen,
            images_seen=seen * config.n_way * (config.train_shots + config.k_query),
            train_s=progress.train_s,
            eval_s=progress.eval_s,
            setup_s=progress.setup_s or None,
            step_ms_median=_finite(steps.quantile(0.5)),
            step_ms_p95=_finite(steps.quantile(0.95)),
            tasks_per_s=seen / progress.train_s if progress.train_s else None,
            peak_mem_mib=training.memory.peak_mib if training.memory else None,
            peak_mem_reserved_mib=training.memory.reserved_mib if training.memory else None,
            task_chunk=progress.chunk,
            resumed=progress.parts - 1,
            step_mode=training.mode if training.memory else None,
            oom_retries=progress.oom_retries,
            beside=progress.beside,
        )
    if outcome.test is not None and training is not None:
        kind = training.stream.objective.kind
        columns = {PLAIN: kind, TRANSDUCTIVE: f"{kind}_transductive"}
        finals = {column: outcome.test.final(mode) for mode, column in columns.items()}
        for column, values in finals.items():
            facts[f"test_{column}"], facts[f"test_{column}_ci95"] = mean_ci95(values)
        for i, pair in enumerate(zip(*finals.values())):
            known = {"acc": math.nan, "acc_transductive": math.nan} | dict(zip(finals, map(float, pair)))
            tasks.append(TestTask(task=i, **known))
        by_step = outcome.test.measure[PLAIN]
        facts[f"{kind}_before_adaptation"] = float(by_step[0].mean()) if len(by_step) > 1 else None
        for mode, by_step in (outcome.adaptation.measure if outcome.adaptation else {}).items():
            for step, found in by_step.items():
                adaptation.append(AdaptationPoint(mode, step, tasks=len(found), **measured(kind, *mean_ci95(found))))
    details: Mapping[str, Any] = {"config": asdict(config), "command": job.command, **outcome.details}
    row = dataclasses.replace(job.base_row(status, error), **facts)
    examples = outcome.examples.to_bytes() if outcome.examples else None
    write_run(job.folder, row, details, curve, tasks, adaptation, examples)


def _note_growth(config: RunConfig, training: Training, outcome: Outcome) -> None:
    """Note what was held between meta-steps, and warn if it grew beyond what is allowed."""
    kind = torch.device(config.device).type
    outcome.details["held"] = training.held.record(kind)
    if warning := training.held.warning(kind):
        log.warning("%s: %s", config.run_id, warning)


def _finite(value: Tensor) -> float | None:
    return None if value.isnan() else value.item()


def _fields(algorithm: MetaAlgorithm) -> dict[str, Any]:
    return asdict(algorithm) if dataclasses.is_dataclass(algorithm) and not isinstance(algorithm, type) else {}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
