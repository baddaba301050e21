"""Which runs the study of cost takes: one setting varied at a time, around a base that all algorithms share."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from bench.api import BenchError
from bench.registry import ALGORITHMS, hyperparameter_names
from bench.settings.config import RunConfig
from bench.studies.axes import Axis, sweep
from bench.studies.study import Request

MEMORY_STEPS = 3  # meta-steps of a run that only measures memory, whose peak the first one reaches

BASE: dict[str, Any] = {
    "n_way": 5,
    "k_shot": 1,
    "k_query": 15,
    "meta_steps": 20,
    "meta_batch": 16,
    "inner_steps": 5,
    "backbone": "conv4",
    # The same outer rule for all, and as little evaluation as a run can have.
    "meta_optimizer": "adam",
    "meta_lr": 1e-3,
    "meta_lr_schedule": "constant",
    "eval_k_query": 1,
    "eval_inner_steps": 1,
    "val_points": 1,
    "val_tasks": 2,
    "test_tasks": 2,
    "adaptation_tasks": 0,
}
AXES = (
    Axis("inner_steps", "inner steps", (1, 2, 3, 5, 8, 10, 20), "inner step"),
    Axis("n_way", "ways (classes per task)", (5, 10, 20), "way"),
    Axis("k_shot", "shots (support images per class)", (1, 5)),
    Axis("meta_batch", "meta-batch (tasks per meta-step)", (1, 4, 16, 32), "task"),
    Axis("filters", "width (filters per convolution)", (16, 32, 64, 128)),
)


@dataclass(frozen=True)
class Point:
    """One algorithm at one value of one axis, measured once: by one run, or by one for time and one for memory."""

    axis: Axis
    value: float
    timed: RunConfig
    whole: RunConfig
    """The run that holds the whole meta-batch at once, for its memory."""


def wanted_points(request: Request) -> Iterator[Point]:
    """Yield every point of every round.

    Raises:
        BenchError: an axis or value that is not known, an algorithm without inner steps, a list where one value fits.
    """
    request.check_vary("cost", [axis.name for axis in AXES])
    request.check_single("cost", ", and --vary n_way=A,B to vary it")
    algos = _algorithms(request)
    for seed in request.seeds:
        for axis, value in sweep(AXES, request):
            for algo in algos:
                timed = _config(request, algo, seed, axis, value)
                whole = replace(timed, task_chunk=timed.meta_batch)
                if timed.device == "cpu":
                    whole = replace(whole, meta_steps=min(MEMORY_STEPS, timed.meta_steps))
                elif timed.task_chunk is None:
                    timed = whole  # a GPU holds the whole meta-batch anyway
                yield Point(axis, value, timed, whole)


def _algorithms(request: Request) -> list[str]:
    classes = {name: ALGORITHMS.get(name) for name in request.algos or ALGORITHMS.names()}
    takers = [name for name, cls in classes.items() if "inner_steps" in hyperparameter_names(cls)]
    if request.algos is None:
        return [name for name in takers if classes[name].by_default]
    for name in request.algos:
        if name not in takers:
            raise BenchError(f"study cost: algorithm {name!r} has no inner_steps to vary; leave it out of --algos")
    return list(request.algos)


def _config(request: Request, algo: str, seed: int, axis: Axis, value: int) -> RunConfig:
    given = {**BASE, **request.given, axis.name: value}
    # Minibatches that together hold all images of a task in the base's number of steps, as in the protocols.
    images = given["n_way"] * (given["k_shot"] + given["k_query"])
    base = {**BASE, "inner_batch": max(1, images // BASE["inner_steps"])}
    return request.config("cost", algo, seed, base, {axis.name: value})
