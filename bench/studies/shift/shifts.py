"""Which shifts the study tests under, and the runs that are trained for it, one per algorithm and seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.api import BenchError
from bench.registry import DATASETS, default_algorithms, unknown
from bench.settings.config import RunConfig
from bench.settings.protocols import Preset, load_protocol
from bench.settings.values import coerce
from bench.studies.study import Request
from bench.tasks.corruption import CORRUPTIONS, STRONGEST

NAME, PROTOCOL = "shift", "quick"
OWN = {"n_way": 5, "k_shot": 1, "test_tasks": 500, "adaptation_tasks": 0}
"""What the study has otherwise than the protocol that it trains by; flags win over both."""
WAYS, SHOTS = (2, 10, 20), (2, 5, 10)
DECIDED = ("test_dataset", "test_n_way", "test_k_shot", "test_corruption")


@dataclass(frozen=True)
class Shift:
    """One thing that is otherwise at test; ``value`` is where it stands on the axis of its family."""

    family: str
    value: float | str
    fields: Mapping[str, Any]

    @property
    def test(self) -> str:
        """What the test is called in the tables of a run."""
        return name_of(self.fields)


def name_of(fields: Mapping[str, Any]) -> str:
    """Return what a test is called whose settings are otherwise in these fields."""
    return ", ".join(f"{name}={fields[name]}" for name in DECIDED if fields.get(name) is not None)


@dataclass(frozen=True)
class Family:
    """What may shift along one axis."""

    label: str
    axis: str
    """What is along its axis."""
    unshifted: float | str
    """Where the run's own test stands."""
    note: str
    """What is done, in a sentence."""


def wanted_runs(request: Request) -> list[RunConfig]:
    """Return the runs to be trained, all algorithms of a seed before the next seed.

    Raises:
        BenchError: the request holds something that this study cannot use.
    """
    request.check_vary(NAME, DECIDED)
    request.check_single(NAME, ", and --vary test_n_way=A,B to vary it")
    presets = (*load_protocol(PROTOCOL).presets, Preset({}, {k: v for k, v in OWN.items() if not k.endswith(_SHAPE)}))
    base = {name: value for name, value in OWN.items() if name.endswith(_SHAPE)}
    algos = request.algos or default_algorithms()
    configs = [request.config(NAME, algo, seed, base, presets=presets) for seed in request.seeds for algo in algos]
    for name in DECIDED:
        if (value := getattr(configs[0], name)) is not None:
            raise BenchError(f"{name} {value!r}: study {NAME} decides it; --vary {name}=A,B chooses what it tests")
    return configs


_SHAPE = ("_way", "_shot")


def wanted_shifts(request: Request, config: RunConfig) -> list[Shift]:
    """Return what runs like ``config`` are tested under, all that the study knows or what ``--vary`` names.

    Raises:
        BenchError: a name or number that cannot be.
    """
    asked = request.vary
    found = {
        "test_corruption": lambda: _corruptions(asked.get("test_corruption")),
        "test_n_way": lambda: _numbers("test_n_way", WAYS, asked, config.n_way),
        "test_k_shot": lambda: _numbers("test_k_shot", SHOTS, asked, config.k_shot),
        "test_dataset": lambda: _data_sets(asked.get("test_dataset"), config.dataset),
    }
    return [shift for name, make in found.items() if name in asked or not asked for shift in make()]


def families(config: RunConfig) -> dict[str, Family]:
    """Return every family by name, as it looks from a run's own test."""
    summaries = {kind: CORRUPTIONS.get(kind).summary for kind in CORRUPTIONS.names()}
    corruptions = {
        kind: Family(kind, "strength", 0, f"Strengths 1 to {STRONGEST}: {summary}.")
        for kind, summary in summaries.items()
    }
    ways = "Another number of classes in each test task; the head is cut, or its outputs repeated."
    shots = "Another number of support images for each class of a test task."
    data = "Test tasks of another data set, from its own meta-test classes."
    return {
        **corruptions,
        "test_n_way": Family("ways at test", "classes per task", config.n_way, ways),
        "test_k_shot": Family("shots at test", "support images per class", config.k_shot, shots),
        "test_dataset": Family("another data set", "data set at test", config.dataset, data),
    }


def _corruptions(asked: Any) -> list[Shift]:
    for kind in asked or ():
        if kind not in CORRUPTIONS.names():
            raise BenchError(unknown("corruption in --vary test_corruption", kind, CORRUPTIONS.names()))
    return [
        Shift(kind, strength, {"test_corruption": f"{kind}:{strength}"})
        for kind in asked or CORRUPTIONS.names()
        for strength in range(1, STRONGEST + 1)
    ]


def _numbers(name: str, usual: tuple[int, ...], asked: Mapping[str, Any], own: int) -> list[Shift]:
    values = sorted({coerce(f"--vary {name}", text, int) for text in asked.get(name, usual)})
    return [Shift(name, value, {name: value}) for value in values if value != own]


def _data_sets(asked: Any, own: str) -> list[Shift]:
    usual = [name for name in DATASETS.names() if DATASETS.get(name).auto_rank is not None]
    return [Shift("test_dataset", name, {"test_dataset": name}) for name in asked or usual if name != own]
