"""Which points the study of scale has, the runs that time their steps, and the runs that these times size."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bench.api import BenchError
from bench.records.run import Run
from bench.registry import BACKBONES, default_algorithms, hyperparameter_names, unknown
from bench.settings.config import RunConfig
from bench.settings.protocols import Preset, load_protocol
from bench.settings.values import check_range, coerce
from bench.studies.arms.cells import Cell, StudyArm
from bench.studies.axes import Axis, sweep
from bench.studies.study import Request, run_of

NAME = "scale"
SECONDS = 120.0
"""Of training for each run, unless ``--vary seconds=N`` says otherwise."""
TIMED_STEPS = 10
"""Meta-steps of a run that only times them."""
PROTOCOL = "quick"
"""Whose settings the algorithms have, but for the budget."""

SHAPE = {"n_way": 5, "k_shot": 1}
TESTED: dict[str, Any] = {"test_tasks": 500, "adaptation_tasks": 0, "val_points": 2}  # over what the protocol says
# The least that a run can test, where only its steps are timed.
TIMING: dict[str, Any] = {
    "meta_steps": TIMED_STEPS, "test_tasks": 2, "val_tasks": 2, "val_points": 1, "adaptation_tasks": 0,
    "eval_k_query": 1, "eval_inner_steps": 1,
}  # fmt: skip
AXES = (
    Axis("train_classes", "training classes", (50, 100, 200, 400, 800)),
    Axis("filters", "width (filters per convolution)", (16, 32, 64, 128)),
    Axis("backbone", "network", ("conv4", "resnet12", "vit"), kind=str),
)
NETWORK = "backbone"


@dataclass(frozen=True)
class Point:
    """One algorithm at one value of one axis: for every seed a run that times its steps."""

    cell: Cell
    """With the timing runs."""
    axis: Axis


def wanted_points(request: Request) -> list[Point]:
    """Return every point, all algorithms of a value one after the other.

    Raises:
        BenchError: something to vary that is not known, a value for what the study decides by itself, a list where one
            value fits.
    """
    request.check_vary(NAME, [*(axis.name for axis in AXES), "seconds"])
    request.check_single(NAME)
    seconds_of(request)
    if "meta_steps" in {*request.given, *(override.name for override in request.sets)}:
        raise BenchError(f"--meta-steps: study {NAME} decides it by seconds; --vary seconds=N sets these")
    points = []
    for axis, value in values(request):
        for algo in request.algos or default_algorithms():
            configs = tuple(_config(request, algo, seed, axis, value, TIMING) for seed in request.seeds)
            points.append(Point(Cell(StudyArm(algo, algo, algo, {}), configs, axis.name, value), axis))
    return points


def seconds_of(request: Request) -> float:
    """Return the training seconds of each run.

    Raises:
        BenchError: not one number above 0.
    """
    texts = request.vary.get("seconds", [str(SECONDS)])
    if len(texts) > 1:
        raise BenchError(f"--vary seconds={','.join(texts)}; accepted in study {NAME}: one value")
    seconds = float(coerce("--vary seconds", texts[0], float))
    check_range("--vary seconds", seconds)
    if seconds <= 0:
        raise BenchError(f"--vary seconds={texts[0]}; accepted: a number above 0")
    return seconds


def values(request: Request) -> Iterator[tuple[Axis, Any]]:
    """Yield every axis with its values; of training classes those that the data set has, and then all of them.

    Raises:
        BenchError: a value that is not of the axis's kind, or no network.
    """
    known = request.classes.get(request.dataset)
    named = {name for name in request.vary if name != "seconds"}
    axes = [axis for axis in AXES if axis.name in named] or [axis for axis in AXES if _takes(request, axis)]
    given = replace(request, vary={name: texts for name, texts in request.vary.items() if name in named})
    for axis in axes:
        own = axis
        if axis.name == "train_classes" and known:
            own = replace(axis, values=(*(value for value in axis.values if value < known), known))
        for _, value in sweep([own], given):
            if axis.name == NETWORK and value not in BACKBONES.names():
                raise BenchError(unknown(f"network in --vary of study {NAME}", value, BACKBONES.names()))
            yield axis, value


def _takes(request: Request, axis: Axis) -> bool:
    """Say whether the network of a request has what an axis varies: another one may have no filters."""
    backbone = request.given.get(NETWORK, RunConfig.__dataclass_fields__[NETWORK].default)
    return axis.name != "filters" or axis.name in hyperparameter_names(BACKBONES.get(backbone))


def _config(request: Request, algo: str, seed: int, axis: Axis, value: Any, decided: Mapping[str, Any]) -> RunConfig:
    if axis.name == "train_classes" and value == request.classes.get(request.dataset):
        value = None  # all: the same run as where something else is varied
    presets = (*load_protocol(PROTOCOL).presets, Preset({}, TESTED))
    return request.config(NAME, algo, seed, SHAPE, {axis.name: value, **decided}, presets)


def sized(request: Request, point: Point, runs: Mapping[str, Run]) -> Cell | None:
    """Return the point's runs with as many meta-steps as fit into the seconds; None where a step was not timed.

    The learning rate's schedule ends with them. All seeds have the steps of the first, so that they are one experiment.
    """
    timed = run_of(point.cell.configs[0], runs, ())
    if timed is None or not timed.ok or not timed.row.step_ms_median:
        return None
    steps = max(1, round(1000 * seconds_of(request) / timed.row.step_ms_median))
    budget = {"meta_steps": steps}
    configs = tuple(
        _config(request, config.algo, config.seed, point.axis, point.cell.value, budget)
        for config in point.cell.configs
    )
    return replace(point.cell, configs=configs)
