"""Gradient combinations: which inner-loop gradients make a good meta-gradient (Nichol et al. 2018, section 6.2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.api import BenchError
from bench.armstudy import Cell, StudyArm, arm_config, chosen_arms, refuse, run_line
from bench.config import RunConfig
from bench.records import Run
from bench.registry import unknown
from bench.study import Request, Study, register_study

NAME = "gradient-combination"
IMAGES = 5  # per class in a minibatch, so that a task of 5 x inner_steps images per class is passed through once

# The flags of supervised-reptile's README for this experiment ("Comparing different inner-loop gradient combinations").
BASE: dict[str, Any] = {
    "n_way": 5,  # --classes
    "k_shot": 5,  # --shots, of the test episode
    "inner_lr": 0.075,  # --sgd --learning-rate 0.003, on a loss summed over 25 images
    "meta_optimizer": "sgd",
    "meta_lr": 0.25,  # --meta-step; a sum of k gradients takes a k-th of it
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
}


def _arm(name: str, label: str, algo: str, steps: int) -> StudyArm:
    return StudyArm(name, label, algo, {"inner_steps": steps, "tail": "shared"})  # a tail that Reptile knows nothing of


ARMS = {
    arm.name: arm
    for arm in (
        _arm("g1", "g1", "reptile", 1),
        _arm("g1_g2", "g1+g2", "reptile", 2),
        _arm("half_g1_g2", "1/2 (g1+g2)", "reptile", 2),
        _arm("g2", "g2", "foml", 2),
        _arm("g1_g2_g3", "g1+g2+g3", "reptile", 3),
        _arm("third_g1_g2_g3", "1/3 (g1+g2+g3)", "reptile", 3),
        _arm("g3", "g3", "foml", 3),
        _arm("g1_g2_g3_g4", "g1+g2+g3+g4", "reptile", 4),
        _arm("fourth_g1_g2_g3_g4", "1/4 (g1+..+g4)", "reptile", 4),
        _arm("g4", "g4", "foml", 4),
    )
}
"""By the names of their checkpoints in supervised-reptile's README."""
SHARES = {"half_g1_g2": 1 / 2, "third_g1_g2_g3": 1 / 3, "fourth_g1_g2_g3_g4": 1 / 4}
"""Of the outer step; all of it for the others."""
SUMS = ("g1_g2", "g1_g2_g3", "g1_g2_g3_g4")  # in supervised-reptile's commands, not in the paper's figure
SEVEN = tuple(name for name in ARMS if name not in SUMS)


@register_study(NAME)
class GradientCombination(Study):
    """Steps along the first, the last or the mean of k inner gradients, at equal lengths of the outer step."""

    summary = "joint training, Reptile and first-order MAML as sums of inner gradients (Reptile paper, section 6.2)"

    def configs(self, request: Request) -> list[RunConfig]:
        """Return the runs, seed by seed and in a seed arm by arm."""
        return [config for group in zip(*(cell.configs for cell in cells(request))) for config in group]

    def line(self, run: Run) -> str:
        """Return one line on a run that has just ended."""
        return run_line(run)

    def report(self, request: Request, runs: Mapping[str, Run], out: Path) -> str:
        raise NotImplementedError


def cells(request: Request) -> list[Cell]:
    """Return the arms with their runs.

    Raises:
        BenchError: what is asked for is not known, or is what makes the arms.
    """
    for name in request.vary:
        if name != "arm":
            raise BenchError(unknown(f"setting in --vary of study {NAME}", name, ["arm"]))
    refuse(NAME, request, ("k_query", "train_k_shot", "inner_steps", "inner_batch", "tail", "replacement"))
    arms = chosen_arms(NAME, request.vary.get("arm"), SEVEN, ARMS)
    return [Cell(arm, tuple(_config(request, arm, seed) for seed in request.grid.get("seed", [0]))) for arm in arms]


def _config(request: Request, arm: StudyArm, seed: int) -> RunConfig:
    n_way = request.grid.get("n_way", [BASE["n_way"]])[0]
    # One image per class stands as query, which neither Reptile nor a shared tail tells from the others.
    images = {"train_k_shot": IMAGES * arm.values["inner_steps"] - 1, "k_query": 1, "inner_batch": IMAGES * n_way}
    config = arm_config(NAME, request, arm, seed, BASE, images)
    return dataclasses.replace(config, meta_lr=config.meta_lr * SHARES.get(arm.name, 1.0))
