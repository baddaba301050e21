"""Which combinations of inner gradients are compared, and with which runs."""

from dataclasses import dataclass, replace
from typing import Any

from bench.settings.config import RunConfig
from bench.studies.arms.cells import Cell, StudyArm, wanted_arms
from bench.studies.study import Request

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


@dataclass(frozen=True)
class Combination(StudyArm):
    """An arm: the sum of the last ``terms`` of the inner gradients, with ``share`` of the outer step."""

    terms: int
    share: float


COMBINATIONS = {
    name: Combination(name, label, "reptile", {"inner_steps": steps}, terms, share)
    if terms == steps
    else Combination(name, label, "foml", {"inner_steps": steps, "tail": "shared"}, terms, share)
    for name, label, steps, terms, share in (
        ("g1", "g1", 1, 1, 1.0),
        ("g1_g2", "g1+g2", 2, 2, 1.0),
        ("half_g1_g2", "1/2 (g1+g2)", 2, 2, 1 / 2),
        ("g2", "g2", 2, 1, 1.0),
        ("g1_g2_g3", "g1+g2+g3", 3, 3, 1.0),
        ("third_g1_g2_g3", "1/3 (g1+g2+g3)", 3, 3, 1 / 3),
        ("g3", "g3", 3, 1, 1.0),
        ("g1_g2_g3_g4", "g1+..+g4", 4, 4, 1.0),
        ("fourth_g1_g2_g3_g4", "1/4 (g1+..+g4)", 4, 4, 1 / 4),
        ("g4", "g4", 4, 1, 1.0),
    )
}
"""By the names of their checkpoints in supervised-reptile's README."""
SEVEN = tuple(name for name, c in COMBINATIONS.items() if c.share * c.terms == 1)
"""All but the sums that take the whole outer step for each gradient: those only if asked for."""


def wanted_cells(request: Request) -> list[Cell]:
    """Return the arms with their runs.

    Raises:
        BenchError: the request holds something that this study cannot use.
    """
    arms = wanted_arms(NAME, request, COMBINATIONS, SEVEN, DECIDED)
    return [Cell(arm, tuple(_config(request, arm, seed) for seed in request.seeds)) for arm in arms]


def _config(request: Request, arm: StudyArm, seed: int) -> RunConfig:
    n_way = request.given.get("n_way", BASE["n_way"])
    # One image per class stands as query, which neither Reptile nor a shared tail tells from the others.
    images = {"train_k_shot": IMAGES * arm.values["inner_steps"] - 1, "k_query": 1, "inner_batch": IMAGES * n_way}
    config = request.config(NAME, arm.algo, seed, BASE, {**images, **arm.values})
    return replace(config, meta_lr=config.meta_lr * COMBINATIONS[arm.name].share)
