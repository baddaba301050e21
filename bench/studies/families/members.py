"""The families, the settings of their runs, and which runs a request asks for."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.api import BenchError
from bench.registry import DATASETS, default_algorithms, unknown
from bench.settings.config import RunConfig
from bench.settings.protocols import Preset, load_protocol, read_presets
from bench.studies.sine import SETTINGS as SINE
from bench.studies.study import Request

NAME = "families"
SETTINGS = tomllib.loads(Path(__file__).with_name("settings.toml").read_text(encoding="utf-8"))
IMAGES = "images"
"""The family of the data set that ``--dataset`` names, and what a family without settings here takes them from."""


@dataclass(frozen=True)
class Family:
    """A kind of task, with the settings of its runs."""

    name: str
    dataset: str
    shape: dict[str, int]
    """n_way and k_shot."""
    presets: tuple[Preset, ...]

    @property
    def decided(self) -> dict[str, int]:
        """Return what no flag changes: the one way of a family without classes."""
        return {"n_way": 1} if self.shape["n_way"] == 1 else {}


def family(name: str, dataset: str) -> Family:
    """Return a family; one that is not in the settings is a data set of that name, with the settings of images."""
    found: dict[str, Any] = SETTINGS["family"].get(name, SETTINGS["family"][IMAGES])
    shape = {key: found[key] for key in ("n_way", "k_shot")}
    if "protocol" in found:
        presets = load_protocol(found["protocol"]).presets
    else:
        presets = read_presets(SINE if "study" in found else found)
    return Family(name, dataset if name == IMAGES else name, shape, presets)


def families(request: Request) -> list[Family]:
    """Return the families that are asked for.

    Raises:
        BenchError: no such family or data set; something else to vary; the same data set twice.
    """
    request.check_vary(NAME, ["family"])
    found = []
    for name in request.vary.get("family", SETTINGS["families"]):
        if name != IMAGES and name not in DATASETS.names():
            accepted = [IMAGES, *DATASETS.names()]
            raise BenchError(unknown(f"family in --vary of study {NAME}", name, accepted))
        found.append(family(name, request.dataset))
        if found[-1].dataset in (other.dataset for other in found[:-1]):
            raise BenchError(
                f"--vary family={name}: data set {found[-1].dataset} is a family already; accepted: each once"
            )
    return found


def config(request: Request, of: Family, algo: str, seed: int) -> RunConfig:
    """Return the run of an algorithm in a family."""
    return request.config(NAME, algo, seed, of.shape, of.decided, of.presets, of.dataset)


def algorithms(request: Request) -> list[str]:
    """Return the algorithms that are ranked."""
    return list(request.algos or default_algorithms())


def wanted(request: Request) -> list[RunConfig]:
    """Return the runs, all families and algorithms of a seed before the next seed.

    Raises:
        BenchError: what ``families`` refuses, or a list where one value fits.
    """
    request.check_single(NAME, ", and several --seeds")
    members = families(request)
    return [config(request, of, algo, seed) for seed in request.seeds for of in members for algo in algorithms(request)]
