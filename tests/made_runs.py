"""Runs with made-up results, written through the real code, for the tests of records, report and plots."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from bench.records.columns import MODES, AdaptationPoint, CurvePoint, SummaryRow, TestTask
from bench.records.intervals import mean_ci95
from bench.records.run import RUN_FILE, load_run, write_run
from bench.report.write import write_report
from bench.training.examples import ExampleTasks


def make_row(algo: str = "alpha", seed: int = 0, **changes: object) -> SummaryRow:
    """Return a row in which every column that has a plain default is filled in."""
    known: dict[str, object] = {
        "algo": algo,
        "dataset": "glyphs",
        "protocol": "quick",
        "n_way": 5,
        "k_shot": 1,
        "k_query": 9,
        "seed": seed,
        "backbone": "conv4",
        "device": "cpu",
        "device_name": "Test CPU",
        "meta_batch": 8,
        "meta_steps": 400,
        "inner_steps": 5,
        "inner_lr": 0.1,
        "inner_optimizer": "sgd",
        "eval_inner_steps": 5,
        "meta_optimizer": "adam",
        "meta_lr": 1e-3,
        "tasks_seen": 3200,
        "images_seen": 160_000,
        "stream_sha256": _sha(f"stream {seed}"),
        "status": "ok",
        "run_id": f"{algo}-5w1s-s{seed}",
        "started_at": "2026-01-02T03:04:05+00:00",
        "torch_version": "2.14.1",
        "git_commit": "abc1234",
        "eval_k_query": 9,
        "threads": 2,
        "test_rotation": "none",
        "data_sha256": _sha("data"),
        "data_pipeline": "glyphs-1",
        "resumed": 0,
    }
    return SummaryRow(**(known | changes))  # type: ignore[arg-type]


def make_run(
    out: Path,
    algo: str = "alpha",
    seed: int = 0,
    level: float = 0.9,
    tasks: int = 200,
    cost: float = 1.0,
    **changes: object,
) -> SummaryRow:
    """Write a finished run with accuracy near ``level``; tasks of one seed are equally hard for every algorithm."""
    row = make_row(algo, seed, **changes)
    folder = out / "runs" / row.run_id
    details = {
        "config": {"seed": seed},
        "hyperparameters": {},
        "environment": {},
        "data": {},
        "command": "run_bench.py",
    }
    if row.status != "ok":
        write_run(folder, row, details, [], [], [])
        return row
    hard = np.random.default_rng(seed).normal(0, 0.06, tasks)
    rng = np.random.default_rng([seed, *algo.encode()])
    images = row.n_way * 9
    chance = 1 / row.n_way

    def accuracies(mean: float) -> np.ndarray:
        return rng.binomial(images, np.clip(mean + hard, 0.02, 0.995)) / images

    plain, transductive = accuracies(level), accuracies(level + 0.02)
    steps = row.meta_steps or 1
    growth = [
        (s, level - (level - chance) * np.exp(-5 * s / steps) + rng.normal(0, 0.004)) for s in range(0, steps + 1, 40)
    ]
    curve = [
        CurvePoint(
            s, s * (row.meta_batch or 1), 0.15 * cost * s, float(a), 0.012, float(-np.log(np.clip(a, 0.01, 0.99)))
        )
        for s, a in growth
    ]
    adaptation = [
        AdaptationPoint(mode, s, float(level + shift - (level - chance) * np.exp(-1.2 * s)), 0.004)
        for mode, shift in zip(MODES, (0.0, 0.02))
        for s in range((row.eval_inner_steps or 0) + 1)
    ]
    (acc, half), (acc_t, half_t) = mean_ci95(plain), mean_ci95(transductive)
    measured = {
        "test_tasks": tasks,
        "test_acc": acc,
        "test_acc_ci95": half,
        "test_acc_transductive": acc_t,
        "test_acc_transductive_ci95": half_t,
        "train_s": 0.15 * cost * steps * (1 + 0.02 * seed),
        "eval_s": 12.5,
        "setup_s": 3.2,
        "step_ms_median": 140.0 * cost,
        "step_ms_p95": 171.0 * cost,
        "tasks_per_s": 55 / cost,
        "peak_mem_mib": 210.0 * cost,
        "acc_before_adaptation": chance,
    }
    row = dataclasses.replace(row, **{name: value for name, value in measured.items() if name not in changes})
    write_run(
        folder,
        row,
        details,
        curve,
        [TestTask(i, *map(float, a)) for i, a in enumerate(zip(plain, transductive))],
        adaptation,
    )
    return row


def rewrite(out: Path, row: SummaryRow, **tables: object) -> None:
    """Write a made-up run again, whole and sealed, with another ``curve``, ``test_tasks`` or ``adaptation``."""
    run = load_run(out / "runs" / row.run_id)
    kept = {"curve": run.curve, "test_tasks": run.test_tasks.itertuples(), "adaptation": run.adaptation}
    (run.folder / RUN_FILE).unlink()
    write_run(run.folder, row, run.details, **(kept | tables))  # type: ignore[arg-type]


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def reported(out: Path) -> Path:
    """Write the report of the runs under a folder and return the folder."""
    write_report(out)
    return out


def make_examples() -> ExampleTasks:
    """Return example tasks of random pictures: right where alone, wrong where together."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (2, 3, 5, 8, 8), dtype=np.uint8)
    answers = np.tile(np.arange(5, dtype=np.uint16), (3, 1))
    return ExampleTasks(*pictures, plain=answers, transductive=(answers + 1) % 5)
