"""Which arms the overlap study compares, at which values, and with which runs."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from bench.settings.config import RunConfig
from bench.studies.arms.cells import Cell, StudyArm, wanted_arms
from bench.studies.axes import Axis, sweep
from bench.studies.study import Request

NAME = "overlap"

# Ours throughout: the paper's own table of this experiment was not found. With 20 images per class, four minibatches of
# 25 are all images of 5 ways once, which is where its curves for cycling minibatches are said to bend.
BASE: dict[str, Any] = {
    "n_way": 5,
    "k_shot": 5,  # of the test episode
    "train_k_shot": 15,
    "k_query": 5,  # the separate tail
    "inner_lr": 0.075,
    "inner_steps": 4,
    "inner_batch": 25,
    "meta_optimizer": "sgd",
    "meta_lr": 0.25,
    "meta_lr_schedule": "linear",
    "meta_steps": 10_000,
    "meta_batch": 1,
    "eval_inner_steps": 5,
    "eval_k_query": 1,
    "train_rotation": "pooled",
    "test_rotation": "none",
    "val_points": 5,
    "val_tasks": 100,
    "test_tasks": 1_000,
    "adaptation_tasks": 0,
}
AXES = (
    Axis("inner_steps", "inner steps", (2, 4, 6, 8)),
    Axis("inner_batch", "images in a minibatch", (10, 25, 50, 100)),
    Axis("meta_lr", "outer step", (0.1, 0.25, 0.5, 1.0), kind=float),
)
ARMS = {
    arm.name: arm
    for arm in (
        StudyArm("reptile", "Reptile", "reptile", {"replacement": False}),
        StudyArm("separate", "FOML, separate tail", "foml", {"tail": "separate", "replacement": False}),
        StudyArm("cycling", "FOML, shared, cycling", "foml", {"tail": "shared", "replacement": False}),
        StudyArm("replacement", "FOML, shared, replacement", "foml", {"tail": "shared", "replacement": True}),
    )
}


def wanted_cells(request: Request) -> list[Cell]:
    """Return every arm at every value of every axis with its runs, all arms of a point one after the other.

    Raises:
        BenchError: what is asked for is not known, or is what makes the arms.
    """
    arms = wanted_arms(NAME, request, ARMS, ARMS, ("tail", "replacement"), [axis.name for axis in AXES])
    found = []
    for axis, value in sweep(AXES, request):
        varied = {axis.name: value, **(_tail(request, value) if axis.name == "inner_batch" else {})}
        for arm in arms:
            own = {**varied, **arm.values}
            configs = tuple(request.config(NAME, arm.algo, seed, BASE, own) for seed in request.seeds)
            found.append(Cell(arm, configs, axis.name, value))
    return found


def _tail(request: Request, inner_batch: int) -> dict[str, int]:
    """Return how the images of a class are dealt out so that a separate tail is as large as the other minibatches.

    Half of the images at most, for the steps before need some as well. All arms of a point hold the same images.
    """
    given = {**BASE, **request.given}
    images = given["train_k_shot"] + given["k_query"]
    tail = min(max(1, inner_batch // given["n_way"]), max(1, images // 2))
    return {"k_query": tail, "train_k_shot": images - tail}


def by_point(wanted: Sequence[Cell]) -> dict[tuple[str, float | None], list[Cell]]:
    """Return the cells of every point: by axis and value, one for each arm."""
    return {point: list(cells) for point, cells in groupby(wanted, lambda cell: (cell.axis, cell.value))}


def setting(config: RunConfig, name: str) -> Any:
    """Return a hyperparameter or another setting of a run."""
    return config.hyperparameters[name] if name in config.hyperparameters else getattr(config, name)
