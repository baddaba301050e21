"""What a run has found out, and how that becomes its row, its tables and its folder."""

from __future__ import annotations

import dataclasses
import logging
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from bench.api import MetaAlgorithm
from bench.records.columns import AdaptationPoint, TestTask, measured
from bench.records.intervals import mean_ci95
from bench.records.run import write_run
from bench.runs.job import Job
from bench.settings.config import RunConfig
from bench.training.contract import Diverged
from bench.training.evaluate import PLAIN, TRANSDUCTIVE, Evaluation
from bench.training.examples import ExampleTasks
from bench.training.memory import MIB
from bench.training.train import Training

log = logging.getLogger("bench")


@dataclass
class Outcome:
    """What a run has found out so far; columns of its row in ``facts``, what run.json holds besides in ``details``."""

    facts: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    training: Training | None = None
    test: Evaluation | None = None
    adaptation: Evaluation | None = None
    """Of the first test tasks, at ADAPTATION_STEPS."""
    examples: ExampleTasks | None = None


def record(job: Job, outcome: Outcome, status: str, error: str | None) -> None:
    """Write the run's folder.

    Raises:
        OSError: it cannot be written.
    """
    facts, training, test = dict(outcome.facts), outcome.training, outcome.test
    details: dict[str, Any] = {"config": asdict(job.config), "command": job.command, **outcome.details}
    if job.attempts:
        details["attempts"] = [*job.attempts[:-1], {**job.attempts[-1], "ended": status}]
    tasks, adaptation = [], []
    if training is not None:
        device = torch.device(job.config.device).type
        details["held"] = training.held.record(device)
        if warning := training.held.warning(device):
            log.warning("%s: %s", job.config.run_id, warning)
        facts |= _training_facts(job.config, training)
    if training is not None and test is not None:
        kind, before = training.stream.objective.kind, test.measure[PLAIN]
        finals = {kind: test.final(PLAIN), f"{kind}_transductive": test.final(TRANSDUCTIVE)}
        for column, values in finals.items():
            facts[f"test_{column}"], facts[f"test_{column}_ci95"] = mean_ci95(values)
        facts[f"{kind}_before_adaptation"] = float(before[0].mean()) if len(before) > 1 else None
        for i, pair in enumerate(zip(*finals.values())):
            known = {"acc": math.nan, "acc_transductive": math.nan} | dict(zip(finals, map(float, pair)))
            tasks.append(TestTask(task=i, **known))
        for mode, by_step in (outcome.adaptation.measure if outcome.adaptation else {}).items():
            for step, found in by_step.items():
                adaptation.append(AdaptationPoint(mode, step, tasks=len(found), **measured(kind, *mean_ci95(found))))
    row = dataclasses.replace(job.base_row(status, error), **facts)
    examples = outcome.examples.to_bytes() if outcome.examples else None
    write_run(job.folder, row, details, training.progress.curve if training else [], tasks, adaptation, examples)


def inner_facts(config: RunConfig, algorithm: MetaAlgorithm) -> dict[str, Any]:
    """Return the columns on the inner loop; empty for an algorithm without one."""
    if not hasattr(algorithm, "inner_steps"):
        return {}
    facts = {name: getattr(algorithm, name, None) for name in ("inner_steps", "inner_lr", "inner_optimizer")}
    facts["eval_inner_steps"] = algorithm.inner_steps if config.eval_inner_steps is None else config.eval_inner_steps
    return facts


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


def _training_facts(config: RunConfig, training: Training) -> dict[str, Any]:
    progress, memory = training.progress, training.memory
    seen = progress.meta_step * config.meta_batch
    steps = torch.tensor(progress.step_ms, dtype=torch.float64)
    return {
        "tasks_seen": seen,
        "images_seen": seen * config.n_way * (config.train_shots + config.k_query),
        "train_s": progress.train_s,
        "eval_s": progress.eval_s,
        "setup_s": progress.setup_s or None,
        "step_ms_median": steps.quantile(0.5).item() if progress.step_ms else None,
        "step_ms_p95": steps.quantile(0.95).item() if progress.step_ms else None,
        "tasks_per_s": seen / progress.train_s if progress.train_s else None,
        "peak_mem_mib": memory.peak_mib if memory else None,
        "peak_mem_reserved_mib": memory.reserved_mib if memory else None,
        "peak_tensor_mib": None if training.tensor_peak is None else training.tensor_peak / MIB,
        "task_chunk": progress.chunk,
        "resumed": progress.parts - 1,
        "step_mode": training.mode if memory else None,
        "oom_retries": progress.oom_retries,
        "beside": progress.beside,
        "load": progress.load,
    }
