"""sine.csv and sine.md: errors by run and adaptation step, means over seeds, paired differences."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.analysis.statistics import PairedDifference, holm, paired_comparison
from bench.studies.arms.tables import difference_table
from bench.studies.sine.follow import STEPS, TASKS, Followed
from bench.system.csvfile import Columns
from bench.system.text import counted, markdown_table, number


@dataclass(frozen=True)
class SineRow(Columns):
    """The error of one run after so many adaptation steps: a line of sine.csv."""

    algo: str
    seed: int
    step: int
    mse: float
    mse_ci95: float | None
    test_tasks: int
    run_id: str


def sine_rows(found: Sequence[Followed]) -> list[SineRow]:
    """Return a row per run and step, in the order of the runs."""
    return [
        SineRow(f.run.row.algo, f.run.row.seed, p.step, p.mse, p.mse_ci95, p.tasks, f.run.row.run_id)
        for f in found
        for p in f.errors
    ]


def by_algo(rows: Sequence[SineRow]) -> dict[str, dict[int, tuple[float, float]]]:
    """Return mean and half-width of the 95% interval over the tasks of all seeds, by algorithm and step."""
    found: dict[str, dict[int, tuple[float, float]]] = {}
    for algo, step in dict.fromkeys((row.algo, row.step) for row in rows):
        same = [row for row in rows if (row.algo, row.step) == (algo, step)]
        half = math.hypot(*(math.nan if row.mse_ci95 is None else row.mse_ci95 for row in same)) / len(same)
        found.setdefault(algo, {})[step] = (sum(row.mse for row in same) / len(same), half)
    return found


def differences(found: Sequence[Followed]) -> list[tuple[str, str, PairedDifference, float]]:
    """Return names, difference and corrected p-value (Holm) of every two algorithms, on identical test waves."""
    errors: dict[str, dict[int, np.ndarray]] = {}
    for f in found:
        values = f.run.test_tasks["error"].to_numpy(dtype=float)
        if len(values) and np.isfinite(values).all():
            errors.setdefault(f.run.row.algo, {})[f.run.row.seed] = values
    pairs = [(a, b) for a, b in itertools.combinations(errors, 2) if errors[a].keys() & errors[b].keys()]
    compared = [paired_comparison(errors[a], errors[b]) for a, b in pairs]
    return [(*pair, d, p) for pair, d, p in zip(pairs, compared, holm([d.p_value for d in compared]))]


def error_table(rows: Sequence[SineRow]) -> str:
    """Return the errors by adaptation step as a Markdown table."""
    cells = [
        [algo, *(f"{number(by_step[s][0])} ± {number(by_step[s][1], 2)}" if s in by_step else "-" for s in STEPS)]
        for algo, by_step in by_algo(rows).items()
    ]
    return markdown_table(["mse after", *(counted(step, "step") for step in STEPS)], cells)


def markdown(found: Sequence[Followed], rows: Sequence[SineRow], missing: Sequence[str], notes: Sequence[str]) -> str:
    """Return sine.md: what was run, errors, paired differences and figures."""
    if not found:
        return "# Sine waves\n\nNo run has finished yet.\n"
    row, config = found[0].run.row, found[0].run.details["config"]
    seeds = ", ".join(map(str, dict.fromkeys(f.run.row.seed for f in found)))
    steps = ", ".join(map(str, dict.fromkeys(f.run.row.eval_inner_steps for f in found)))
    whole = "the whole grid" if row.eval_k_query == 50 else f"{row.eval_k_query} further points"
    intro = (
        f"y = a sin(x + b), a uniform in 0.1..5, b in 0..2 pi, on 50 points over -5..5. {row.tasks_seen:,} training "
        f"tasks, the same in the same order for every algorithm, {row.meta_batch} in each meta-step; network "
        f"{config['backbone']} ({', '.join(f'{k}={v}' for k, v in config['backbone_options'].items())}). At test "
        f"{row.k_shot} points of a new wave and up to {max(STEPS)} steps of SGD on all of them, error on {whole}, "
        f"{row.test_tasks:,} waves for each seed. Seeds: {seeds}. {row.device_name or row.device}."
    )
    parts = [
        "# Sine waves",
        intro,
        f"**Missing**, so that means are over unequal seeds: {', '.join(missing)}." if missing else "",
        "## Settings",
        _settings(found),
        "\n".join(f"- {note}" for note in notes),
        "## Mean squared error",
        error_table(rows),
        "± is the half-width of a 95% interval over test waves.",
        f"Paired differences on identical test waves after {steps} steps; below zero the first is better. The p-value "
        "of the sign-flip test is corrected (Holm) for all of these; it says how the models trained here compare "
        "on further waves, and nothing of training anew with other seeds:",
        difference_table(differences(found), "seeds"),
        "![error against adaptation steps](plots/mse.png)",
        "## Functions before and after adaptation",
        f"The first {TASKS} test waves of seed {row.seed}, the same for all.",
        "![functions](plots/curves.png)",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _settings(found: Sequence[Followed]) -> str:
    columns = ("inner_steps", "inner_lr", "meta_optimizer", "meta_lr")
    cells = []
    for algo, run in {f.run.row.algo: f.run for f in found}.items():
        values = ["-" if getattr(run.row, c) is None else getattr(run.row, c) for c in columns]
        config = run.details["config"]
        cells.append([algo, *values, config["meta_lr_schedule"], config["hyperparameters"].get("inner_batch") or "all"])
    return markdown_table(["algorithm", *columns, "schedule", "points in an inner step of training"], cells)
