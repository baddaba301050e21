"""Which runs the study of cost takes: one setting varied at a time, around a base that all algorithms share."""

import itertools
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.api import BenchError
from bench.registry import ALGORITHMS, hyperparameter_names, hyperparameter_types
from bench.settings.config import RunConfig
from bench.settings.values import coerce
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
    label: str
    """The algorithm, and which of its forms where the study is to compare these: ``maml unroll=mixed``."""
    timed: RunConfig
    whole: RunConfig
    """The run that holds the whole meta-batch at once, for its memory."""


def wanted_points(request: Request) -> Iterator[Point]:
    """Yield every point of every round.

    Raises:
        BenchError: an axis or value that is not known, an algorithm without inner steps, a list where one value fits.
    """
    algos = _algorithms(request)
    choices = {name: kind for algo in algos for name, kind in choices_of(algo).items()}
    request.check_vary("cost", [*(axis.name for axis in AXES), *choices])
    request.check_single("cost", ", and --vary n_way=A,B to vary it")
    forms = [(algo, form) for algo in algos for form in _forms(request, algo)]
    for seed in request.seeds:
        for axis, value in sweep(AXES, request):
            for algo, form in forms:
                timed = _config(request, algo, seed, {axis.name: value, **form})
                label = " ".join([algo, *(f"{name}={chosen}" for name, chosen in form.items())])
                whole = replace(timed, task_chunk=timed.meta_batch)
                if timed.device == "cpu":
                    whole = replace(whole, meta_steps=min(MEMORY_STEPS, timed.meta_steps))
                elif timed.task_chunk is None:
                    timed = whole  # a GPU holds the whole meta-batch anyway
                yield Point(axis, value, label, timed, whole)


def _algorithms(request: Request) -> list[str]:
    classes = {name: ALGORITHMS.get(name) for name in request.algos or ALGORITHMS.names()}
    takers = [name for name, cls in classes.items() if "inner_steps" in hyperparameter_names(cls)]
    if request.algos is None:
        return [name for name in takers if classes[name].by_default]
    for name in request.algos:
        if name not in takers:
            raise BenchError(f"study cost: algorithm {name!r} has no inner_steps to vary; leave it out of --algos")
    return list(request.algos)


def choices_of(algo: str) -> dict[str, Any]:
    """Return the hyperparameters that are one of a few words, with their types."""
    types = hyperparameter_types(ALGORITHMS.get(algo))
    return {name: kind for name, kind in types.items() if typing.get_origin(kind) is typing.Literal}


def _forms(request: Request, algo: str) -> Sequence[dict[str, Any]]:
    """Return in which forms an algorithm is measured: by all values of those of its choices that the request varies."""
    varied = {name: kind for name, kind in choices_of(algo).items() if name in request.vary}
    values = [[coerce(f"--vary {n}", text, kind) for text in request.vary[n]] for n, kind in varied.items()]
    return [dict(zip(varied, chosen)) for chosen in itertools.product(*values)]


def _config(request: Request, algo: str, seed: int, varied: dict[str, Any]) -> RunConfig:
    given = {**BASE, **request.given, **varied}
    # Minibatches that together hold all images of a task in the base's number of steps, as in the protocols.
    images = given["n_way"] * (given["k_shot"] + given["k_query"])
    base = {**BASE, "inner_batch": max(1, images // BASE["inner_steps"])}
    return request.config("cost", algo, seed, base, varied)
