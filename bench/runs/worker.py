"""One run in a process of its own: ``main`` gets the JSON of a Job and leaves the run's record."""

from __future__ import annotations

import contextlib
import functools
import logging
import socket
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch

from bench.api import SPLITS, BenchError
from bench.network.build import KNOWN, build
from bench.network.kernels import choose
from bench.network.trained import Trained
from bench.registry import ALGORITHMS, BACKBONES, create_algorithm, load_plugin
from bench.runs.job import Job
from bench.runs.outcome import Outcome, finite, inner_facts, record
from bench.runs.presence import Company
from bench.runs.progress import Pulse, bar, so_far
from bench.runs.signals import INTERRUPTED, UNWRITABLE, Interrupted, Stop
from bench.settings.code import code_of, data_code
from bench.settings.config import RunConfig
from bench.settings.sources import code_at_test, load_sources
from bench.system.console import Console
from bench.system.load import cores
from bench.system.machine import device_name, environment
from bench.system.waiting import Waiting, one_thread
from bench.tasks.images import ImageSet
from bench.tasks.stream import TaskStream
from bench.training.checkpoint import CHECKPOINT_FILE
from bench.training.clocks import now
from bench.training.contract import Diverged
from bench.training.evaluate import ADAPTATION_STEPS, evaluate, time_to_adapt
from bench.training.examples import example_tasks
from bench.training.memory import is_out_of_memory
from bench.training.train import Training
from bench.training.weights import STATE_FILE, WEIGHTS_FILE, digests, write_inner_state, write_weights

log = logging.getLogger("bench")


def main(text: str) -> int:
    """Run the job and record it, whatever happens; returns the exit status."""
    return recorded(text, execute)


def recorded(text: str, work: Callable[[Job, Stop, Outcome, Console], Training]) -> int:
    """Do the ``work`` of a job and record how it went, whatever happens; returns the exit status."""
    job, stop, outcome, console = Job.from_json(text), Stop(), Outcome(), Console()
    console.open(job.quiet, job.log_file)
    try:
        for path in job.plugins:
            load_plugin(path)
        code = code_of(ALGORITHMS.get(job.config.algo), BACKBONES.get(job.config.backbone))
        check_code(f"algorithm {job.config.algo!r} or backbone {job.config.backbone!r}", job.config.code, code)
        KNOWN.update(job.ways)
        error = work(job, stop, outcome, console).leak()
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
        record(job, outcome, status, error)
    except OSError:  # the runner says so, once, when it cannot write a record either
        return UNWRITABLE
    return {"ok": 0, "interrupted": INTERRUPTED}.get(status, 1)


def check_code(what: str, named: str | None, now: str | None) -> None:
    """Refuse to run what is not the code that the run was named after.

    Raises:
        BenchError: it was edited since.
    """
    if named is not None and named != now:
        raise BenchError(f"{what} was edited after the command had begun; give the command again")


def execute(job: Job, stop: Stop, outcome: Outcome, console: Console) -> Training:
    """Set up, train and test one run, noting in ``outcome`` whatever becomes known; return its training."""
    with contextlib.closing(Waiting(job.config.threads or cores())) as waiting:
        return _executed(job, stop, outcome, console, waiting)


def _executed(job: Job, stop: Stop, outcome: Outcome, console: Console, waiting: Waiting) -> Training:
    training, streams = ready(job, stop, outcome, waiting)
    train(job, training, stop, console, waiting)
    shape = training.stream.pool.source.shape
    progress = training.progress
    write_weights(job.folder / WEIGHTS_FILE, job.config, training.algorithm, shape, progress.slow)
    write_inner_state(job.folder / STATE_FILE, training.task_loss.weights, progress.slow, progress.carry)
    outcome.details["weights"] = digests(job.folder)
    outcome.facts["stream_sha256"] = training.stream_sha256()
    test(job, training, streams["meta_test"], stop, outcome, waiting)
    return training


def ready(
    job: Job, stop: Stop, outcome: Outcome, waiting: Waiting, splits: Collection[str] = SPLITS
) -> tuple[Training, dict[str, TaskStream]]:
    """Return the training of a run, warmed up before its first or next step, and the tasks of ``splits``."""
    training, streams = set_up(job, outcome, job.folder / CHECKPOINT_FILE, stop.check, splits)
    outcome.training = training
    stop.check()
    waiting.look(now=True)  # until here one thread was enough: those that are to come must not spin on a busy machine
    training.warm_up()
    outcome.details["meta_step"] = {"mode": training.mode, "reason": training.reason}
    now(training.device)  # set-up ends once the device has done all it was given
    training.progress.setup_s += time.monotonic() - job.launched
    return training, streams


def set_up_torch(config: RunConfig) -> None:
    """Give torch the threads and the precision that a run asks for."""
    torch.set_num_threads(config.threads or cores())
    torch.set_float32_matmul_precision("high" if config.precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = config.precision == "tf32"


def set_up(
    job: Job,
    outcome: Outcome,
    checkpoint: Path,
    check: Callable[[], object] = lambda: None,
    splits: Collection[str] = SPLITS,
) -> tuple[Training, dict[str, TaskStream]]:
    """Return the training of a run before its first step, and the tasks of ``splits``, those to train on among them.

    ``check`` may raise to stop.
    """
    config, facts = job.config, outcome.facts
    device = torch.device(config.device)
    set_up_torch(config)
    facts.update(device_name=device_name(device), threads=torch.get_num_threads())
    outcome.details["environment"] = environment(device) | ({"sharing": job.sharing} if job.sharing else {})

    with one_thread():
        sources = load_sources(config, job.data_roots, job.cache)
    source = sources.train
    check_code(f"dataset {config.dataset!r}", config.data_code, data_code(source))
    what = " or ".join(
        f"{name} {value!r}" for name in ("test_dataset", "test_corruption") if (value := getattr(config, name))
    )
    check_code(what, config.test_data_code, code_at_test(config, sources))
    sources = sources.trained_on(config.train_classes)
    source = sources.train
    if job.remote and job.data_sha256 not in ("", source.sha256):
        here = f"{job.data_root} on {socket.gethostname()}"
        raise BenchError(f"dataset {config.dataset!r} in {here} is other data than the command's; put the same there")
    facts.update(data_sha256=source.sha256, data_pipeline=source.pipeline, measure=source.objective.measure)
    outcome.details["data"] = {"name": source.name, "pipeline": source.pipeline, "sha256": source.sha256}
    outcome.details["data"]["shape"] = list(source.shape)
    if config.test_dataset is not None:
        test = sources.test
        facts["test_data_sha256"] = test.sha256
        outcome.details["test_data"] = {"name": test.name, "pipeline": test.pipeline, "sha256": test.sha256}
    if isinstance(source, ImageSet) and source.reading is not None:
        outcome.details["data"]["reading"] = asdict(source.reading)
    check()  # data may have taken a while
    with one_thread():
        streams = {split: sources.stream(config, split, device) for split in splits}

    algorithm = create_algorithm(config.algo, **config.hyperparameters)
    facts.update(inner_facts(config, algorithm))
    fields: dict[str, Any] = asdict(algorithm) if is_dataclass(algorithm) and not isinstance(algorithm, type) else {}
    outcome.details["hyperparameters"] = fields
    kernels, facts["kernels"] = choose(config.kernels, device, config.precision)
    task_loss, slow = build(config, algorithm, source, device, kernels)

    training = Training(
        config, algorithm, task_loss, slow, streams["meta_train"], streams["meta_val"], checkpoint,
        card_runs=job.jobs if job.sharing else 1,
    )  # fmt: skip
    return training, streams


def train(
    job: Job,
    training: Training,
    stop: Stop,
    console: Console,
    waiting: Waiting,
    look: Callable[[], object] = lambda: None,
) -> None:
    """Train to the end of the budget, telling how far it is and looking for other runs on the way.

    ``look`` is called beside, whenever the state is whole, and may raise to stop.
    """
    progress, total = training.progress, job.config.meta_steps
    if progress.meta_step:
        console.say(f"{job.told}: goes on after meta-step {progress.meta_step:,} of {total:,}, where it was stopped")
    company = Company(job.presence, progress.beside)
    with bar(job, "training", total, "step") as shown:
        pulse = Pulse(job, console, progress, shown)

        def advance(steps: int) -> None:
            pulse.look(steps)
            shown.set_postfix_str(so_far(progress), refresh=False)
            shown.update(steps)
            progress.beside = company.look()
            waiting.look()
            stop.check()
            look()

        training.run(advance)


def test(job: Job, training: Training, stream: TaskStream, stop: Stop, outcome: Outcome, waiting: Waiting) -> None:
    """Measure every test task, follow the first of them further along, and keep a few as examples."""
    config, p = job.config, training.progress
    followed = min(config.adaptation_tasks, config.test_tasks)
    with bar(job, "testing", config.test_tasks + followed, "task") as shown:

        def advance(tasks: int) -> None:
            shown.update(tasks)
            waiting.look()
            stop.check()

        at_test = Trained(training.task_loss, p.slow, p.carry).at_test(
            config, training.algorithm, training.stream.pool.source, training.device
        )
        trained = (training.algorithm, at_test.task_loss, at_test.slow, at_test.carry, stream)
        measure = functools.partial(evaluate, *trained, advance=advance)
        began = now(training.device)
        try:
            outcome.test = finite(measure(config.test_tasks, config.eval_inner_steps, at=(0,)))
            if followed:
                outcome.adaptation = measure(followed, max(ADAPTATION_STEPS), at=ADAPTATION_STEPS)
        finally:
            p.eval_s += now(training.device) - began
        try:
            outcome.facts["adapt_ms"] = time_to_adapt(*trained, config.eval_inner_steps)
        except Exception as error:  # what is measured besides must cost no run
            log.warning("%s: adapting was not timed: %s", config.run_id, error)
        # After the clock has stopped: examples are for the reader, not for the record.
        outcome.examples = example_tasks(*trained, config.eval_inner_steps)
