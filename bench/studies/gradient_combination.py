"""Gradient combinations: which inner-loop gradients make a good meta-gradient (Nichol et al. 2018, section 6.2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.analysis.comparison import Arm, Comparison
from bench.analysis.curves import validation
from bench.api import BenchError
from bench.records.run import MODES, CurvePoint, Run
from bench.registry import unknown
from bench.report.drawing.panels import (
    COLUMN,
    TEXT,
    Page,
    entitle,
    finish,
    fraction_axis,
    label_ends,
    literal,
    new_figure,
    styles,
    thousands,
)
from bench.report.drawing.pictures import write_pictures
from bench.report.exports import write_both
from bench.settings.config import RunConfig
from bench.studies.armstudy import (
    HOW_TO_COMPARE,
    HOW_TO_READ,
    Cell,
    CellRow,
    StudyArm,
    arm_config,
    arm_of,
    cell_rows,
    chosen_arms,
    difference_table,
    differences,
    machine,
    missing,
    page_head,
    refuse,
    run_line,
    score_cells,
)
from bench.studies.study import Request, Study, register_study
from bench.system.files import write_atomic
from bench.system.text import markdown_table, number

NAME = "gradient-combination"
IMAGES = 5  # per class in a minibatch: a task holds that times inner_steps, so that minibatches never overlap
DECIDED = ("k_query", "train_k_shot", "inner_steps", "inner_batch", "tail", "replacement")

# The flags of supervised-reptile's README, "Comparing different inner-loop gradient combinations".
BASE: dict[str, Any] = {
    "n_way": 5,  # --classes
    "k_shot": 5,  # --shots, of the test episode
    "inner_lr": 0.075,  # --sgd --learning-rate 0.003, on a loss summed over 25 images
    "meta_optimizer": "sgd",
    "meta_lr": 0.25,  # --meta-step; a mean of k gradients takes a k-th of it for each
    "meta_lr_schedule": "linear",  # --meta-step-final 0
    "meta_steps": 40_000,  # --meta-iters
    "meta_batch": 1,
    "eval_inner_steps": 5,  # --eval-iters, full batches (--eval-batch 25)
    "eval_k_query": 1,
    "train_rotation": "pooled",
    "test_rotation": "none",
    "val_points": 40,
    "val_tasks": 200,
    "test_tasks": 2_000,
    "adaptation_tasks": 0,
}


@dataclasses.dataclass(frozen=True)
class Combination:
    """An arm: the sum of the last ``terms`` of the inner gradients, with ``share`` of the outer step."""

    arm: StudyArm
    terms: int
    share: float


def _sum(name: str, label: str, steps: int, share: float = 1.0) -> Combination:
    return Combination(StudyArm(name, label, "reptile", {"inner_steps": steps}), steps, share)


def _last(name: str, steps: int) -> Combination:
    return Combination(StudyArm(name, name, "foml", {"inner_steps": steps, "tail": "shared"}), 1, 1.0)


COMBINATIONS = {
    c.arm.name: c
    for c in (
        _sum("g1", "g1", 1),
        _sum("g1_g2", "g1+g2", 2),
        _sum("half_g1_g2", "1/2 (g1+g2)", 2, 1 / 2),
        _last("g2", 2),
        _sum("g1_g2_g3", "g1+g2+g3", 3),
        _sum("third_g1_g2_g3", "1/3 (g1+g2+g3)", 3, 1 / 3),
        _last("g3", 3),
        _sum("g1_g2_g3_g4", "g1+..+g4", 4),
        _sum("fourth_g1_g2_g3_g4", "1/4 (g1+..+g4)", 4, 1 / 4),
        _last("g4", 4),
    )
}
"""By the names of their checkpoints in supervised-reptile's README."""
SUMS = ("g1_g2", "g1_g2_g3", "g1_g2_g3_g4")  # with the whole outer step for each gradient: only if asked for
SEVEN = tuple(name for name in COMBINATIONS if name not in SUMS)


@register_study(NAME)
class GradientCombination(Study):
    """Steps along the first, the last or the mean of k inner gradients."""

    summary = "joint training, Reptile and first-order MAML as combinations of inner gradients (Reptile, section 6.2)"

    def configs(self, request: Request) -> list[RunConfig]:
        """Return the runs, seed by seed and in a seed arm by arm."""
        return [config for group in zip(*(cell.configs for cell in cells(request))) for config in group]

    def line(self, run: Run) -> str:
        """Return one line on a run that has just ended."""
        return run_line(run)

    def report(self, request: Request, runs: Mapping[str, Run], out: Path) -> str:
        """Write tables, curves and the figure, and return the table of results and where all of it is."""
        wanted = cells(request)
        rows, (pairs,) = cell_rows(wanted, runs), differences([wanted], runs)
        arms = [arm for cell in wanted if (arm := arm_of(cell, runs)) is not None]
        write_both(out / f"{NAME}.csv", rows, CellRow.columns())
        write_both(out / "curves.csv", _curve_points(arms), ("arm", "seed", *CurvePoint.columns()))
        write_both(out / "differences.csv", pairs, Comparison.COLUMNS)
        write_pictures(out / "plots", NAME, partial(figure, arms))
        write_atomic(out / f"{NAME}.md", markdown(wanted, rows, pairs, runs))
        where = f"In {out}: {NAME}.md, {NAME}.csv, curves.csv, differences.csv, plots/, runs/"
        return "\n\n".join(filter(None, (result_table(rows), missing(rows), where)))


def cells(request: Request) -> list[Cell]:
    """Return the arms with their runs.

    Raises:
        BenchError: what is asked for is not known, or is what makes the arms.
    """
    for name in request.vary:
        if name != "arm":
            raise BenchError(unknown(f"setting in --vary of study {NAME}", name, ["arm"]))
    refuse(NAME, request, DECIDED)
    arms = {name: c.arm for name, c in COMBINATIONS.items()}
    chosen = chosen_arms(NAME, request.vary.get("arm"), SEVEN, arms)
    return [Cell(arm, tuple(_config(request, arm, seed) for seed in request.grid.get("seed", [0]))) for arm in chosen]


def _config(request: Request, arm: StudyArm, seed: int) -> RunConfig:
    n_way = request.grid.get("n_way", [BASE["n_way"]])[0]
    # One image per class stands as query, which neither Reptile nor a shared tail tells from the others.
    images = {"train_k_shot": IMAGES * arm.values["inner_steps"] - 1, "k_query": 1, "inner_batch": IMAGES * n_way}
    config = arm_config(NAME, request, arm, seed, BASE, images)
    return dataclasses.replace(config, meta_lr=config.meta_lr * COMBINATIONS[arm.name].share)


def _curve_points(arms: Sequence[Arm]) -> Iterator[dict[str, Any]]:
    for arm in arms:
        for seed, run in arm.ok.items():
            for point in run.curve:
                yield {"arm": arm.label, "seed": seed, **dataclasses.asdict(point)}


def result_table(rows: Sequence[CellRow]) -> str:
    """Return what every arm reached on meta-test."""
    headers = ["arm", "algorithm", "inner steps", "outer step", "plain", "seed sd", "transductive", "seed sd"]
    lines = [
        [COMBINATIONS[row.arm].arm.label, row.algo, row.inner_steps, number(row.meta_lr), *score_cells(row)]
        for row in rows
    ]
    return markdown_table(headers, lines)


def theory_table(rows: Sequence[CellRow]) -> str:
    """Return what the expansion of the paper's section 5 says of every arm.

    The expected gradient of one of k inner steps on different minibatches is AvgGrad less (its place - 1) a
    AvgGradInner, up to a^2: g_j has the j - 1 steps before it.
    """
    lines = []
    for row in rows:
        c, k = COMBINATIONS[row.arm], row.inner_steps
        inner = c.share * sum(range(k - c.terms, k))
        ratio = inner / (c.share * c.terms) * row.inner_lr
        lines.append([c.arm.label, number(c.share * c.terms), f"{number(inner)} a" if inner else "0", number(ratio)])
    return markdown_table(["arm", "AvgGrad", "AvgGradInner", "AvgGradInner / AvgGrad at our a"], lines)


THEORY = (
    "For small inner rates a, the expected meta-gradient of k steps on different minibatches is a multiple of "
    "AvgGrad, the gradient of the mean loss, minus a multiple of AvgGradInner, which raises the inner product of the "
    "gradients of different minibatches of a task, up to terms in a² (section 5 of the paper; `tests/test_foml.py` "
    "measures these multiples on random quadratics). The more AvgGradInner beside AvgGrad, the more a step is about "
    "learning fast: MAML > first-order MAML > Reptile at the same k."
)
GENERAL = markdown_table(
    ["meta-gradient of k steps", "AvgGrad", "AvgGradInner", "AvgGradInner / AvgGrad"],
    [
        ["MAML", "1", "2 (k - 1) a", "2 (k - 1) a"],
        ["first-order MAML, the last gradient", "1", "(k - 1) a", "(k - 1) a"],
        ["Reptile, the sum of k", "k", "k (k - 1) a / 2", "(k - 1) a / 2"],
    ],
)


def markdown(
    wanted: Sequence[Cell], rows: Sequence[CellRow], pairs: Sequence[Comparison], runs: Mapping[str, Run]
) -> str:
    """Return the study's page: what was held fixed, results, theory, differences."""
    config = wanted[0].configs[0]
    hyper, seeds = config.hyperparameters, ", ".join(str(c.seed) for c in wanted[0].configs)
    paper = "" if config.meta_steps == BASE["meta_steps"] else f" (the paper: {BASE['meta_steps']:,})"
    fixed = [
        f"{config.dataset}, {config.n_way}-way {config.k_shot}-shot, backbone {config.network}, "
        f"{config.meta_steps:,} meta-steps{paper} of {config.meta_batch} task(s), seeds {seeds}.",
        f"Inner SGD of {hyper['inner_lr']} on mean losses of {hyper['inner_batch']} images (0.003 on a sum of 25 is "
        f"0.075 here); outer {config.meta_optimizer}, {config.meta_lr_schedule} schedule, its first step in the table.",
        f"A training task holds {IMAGES} images per class for every inner step, so that the minibatches, whose order "
        "belongs to the task, never overlap. Arms with equally many inner steps train on identical tasks; arms with "
        "more steps see more images.",
        f"Test: {config.eval_inner_steps} steps on the whole support set; {config.test_tasks:,} meta-test tasks with "
        f"{config.eval_k_query} query image(s) per class, the same for all arms, looked at once, at the end. Curves: "
        f"transductive accuracy on {config.val_tasks} meta-validation tasks, the same at every point.",
        machine(rows, runs),
    ]
    parts = [
        *page_head(
            "Combinations of inner-loop gradients",
            "After section 6.2 of Nichol et al. 2018, arXiv:1803.02999.",
            fixed,
            ("accuracy along the run and on meta-test", NAME),
            rows,
        ),
        *("## Accuracy on meta-test", HOW_TO_READ, result_table(rows)),
        *("## What the theory says", THEORY, GENERAL, f"For these arms, a = {hyper['inner_lr']}:", theory_table(rows)),
        *("## Differences", HOW_TO_COMPARE, difference_table(pairs, "plain")),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def smoothed(values: Sequence[float], width: int) -> list[float]:
    """Return centred running means over ``width`` values, an odd number, over fewer towards the ends."""
    half = width // 2
    reach = [min(half, i, len(values) - 1 - i) for i in range(len(values))]
    return [float(np.mean(values[i - r : i + r + 1])) for i, r in enumerate(reach)]


def figure(arms: Sequence[Arm], page: Page = COLUMN) -> Figure:
    """Draw smoothed validation accuracy against meta-steps, labelled at its end, and accuracy on meta-test."""
    look = styles(arms)
    tall = [2.6, 0.7 + 0.2 * len(arms)] if page.columns == 1 else [max(2.6, 0.7 + 0.2 * len(arms))]
    drawn = new_figure(page, sum(tall))
    where = f": {arms[0].setting.dataset}, {arms[0].setting.name}" if arms else ""
    entitle(drawn, f"Combinations of inner-loop gradients{where}", sum(tall))
    if page.columns == 1:
        along, tested = drawn.subplots(2, 1, height_ratios=tall)
    else:
        along, tested = drawn.subplots(1, 2, width_ratios=[5, 4])
    ends: dict[str, tuple[float, str]] = {}
    values: list[float] = []
    width = 1
    for arm in arms:
        curve = validation(arm, "meta_step")
        if not curve:
            continue
        x, y = [point.x for point in curve], [point.mean for point in curve]
        width = min(7, max(1, len(y) // 6) // 2 * 2 + 1)
        line, style = smoothed(y, width), look[arm.label]
        along.plot(x, y, color=style.colour, lw=0.6, alpha=0.35)
        along.plot(x, line, color=style.colour, ls=style.dash, lw=1.4)
        ends[arm.label] = (line[-1], style.colour)
        values += y
    along.xaxis.set_major_formatter(thousands)
    along.xaxis.set_major_locator(MaxNLocator(4))
    along.margins(x=0)
    fraction_axis(along, values, "validation accuracy,\ntransductive")
    finish(along, "meta-steps", "", bool(ends))
    along.set_title(f"along the run; thick: running mean\nover {width} points" if width > 1 else "along the run",
                    fontsize=TEXT)  # fmt: skip
    label_ends(along, ends, tall[0] - 0.6)
    reach = []
    for mode, (marker, shift) in {"plain": ("o", -0.15), "transductive": ("D", 0.15)}.items():
        column = f"test_{MODES[mode]}"
        for i, arm in enumerate(arms):
            mean, half, colour = arm.mean(column), float(np.nan_to_num(arm.ci95(column))), look[arm.label].colour
            tested.errorbar(mean, i + shift, xerr=half, color=colour, marker=marker, markersize=3.5, capsize=2)
            reach += [mean - half, mean + half]
    tested.set_yticks(range(len(arms)), [literal(arm.label) for arm in arms])
    tested.set_ylim(len(arms) - 0.4, -0.6)
    fraction_axis(tested, reach, "test accuracy", "x")
    tested.xaxis.set_major_locator(MaxNLocator(5))
    finish(tested, "", "", any(arm.ok for arm in arms))
    tested.set_title("● plain, ◆ transductive;\nbar: 95% interval\nover tasks", fontsize=TEXT)
    return drawn
