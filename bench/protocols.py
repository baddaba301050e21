"""Protocols: one readable TOML file each under bench/protocols/, resolved to the RunConfig of every run."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.api import BenchError, MetaAlgorithm
from bench.config import RunConfig, coerce
from bench.registry import ALGORITHMS, create_algorithm, hyperparameter_names, unknown

FOLDER = Path(__file__).parent / "protocols"
IDENTITY = ("algo", "dataset", "protocol", "n_way", "k_shot", "seed", "device", "threads")
"""Fields that are the same for all algorithms of a comparison; neither protocols nor --set change them."""

_FIELDS = {f.name: f for f in dataclasses.fields(RunConfig) if f.name not in ("algo", "hyperparameters", "code")}
_TYPES = typing.get_type_hints(RunConfig)


@dataclass(frozen=True)
class Preset:
    """Settings for the runs that agree with ``where`` (keys: algo and fields of RunConfig); later presets win."""

    where: Mapping[str, Any]
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Protocol:
    """A named budget with its settings."""

    name: str
    summary: str
    presets: tuple[Preset, ...]


@dataclass(frozen=True)
class Override:
    """``--set algo.name=value``, or ``--set name=value`` with algo None: for all that have it."""

    algo: str | None
    name: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Override:
        """Return the override that ``[algo.]field=value`` describes.

        Raises:
            BenchError: the text is not of that form.
        """
        key, equals, value = text.partition("=")
        algo, dot, name = key.rpartition(".")
        if not (equals and name and value and (algo or not dot)):
            raise BenchError(f"--set {text!r}; accepted: algo.field=value, as in reptile.inner_lr=0.1, or field=value")
        return cls(algo or None, name, value)


def protocol_names() -> list[str]:
    """Return the names of the protocols, the default one first."""
    names = sorted(path.stem for path in FOLDER.glob("*.toml"))
    return sorted(names, key=lambda name: name != _FIELDS["protocol"].default)


def load_protocol(name: str) -> Protocol:
    """Return the protocol ``name``.

    Raises:
        BenchError: no such protocol; the message holds the accepted ones and the nearest.
    """
    if name not in protocol_names():
        raise BenchError(unknown("protocol", name, protocol_names()))
    content = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    presets = tuple(Preset(p.pop("where", {}), p) for p in content["preset"])
    return Protocol(name, content["summary"], presets)


def resolve(
    protocol: Protocol, identity: Mapping[str, Any], flags: Mapping[str, Any], sets: Sequence[Override]
) -> RunConfig:
    """Return the configuration of one run.

    In order, each overriding the one before: defaults of RunConfig, the algorithm's own ``run_defaults``, the
    protocol's presets, flags, ``--set``.

    Args:
        identity: algo, dataset, n_way, k_shot, seed, device, threads.
        flags: further fields of RunConfig that the user gave.
    Raises:
        BenchError: an unknown name or a value out of range.
    """
    algo = identity["algo"]
    cls = ALGORITHMS.get(algo)
    hyper_types = hyperparameter_types(cls)
    run: dict[str, Any] = {}
    hyper: dict[str, Any] = {}

    def put(name: str, value: Any) -> bool:
        if name in hyper_types:
            hyper[name] = coerce(f"{algo}.{name}", value, hyper_types[name])
        elif name in _FIELDS and name not in IDENTITY:
            run[name] = coerce(name, value, _TYPES[name])
        else:
            return False
        return True

    for name, value in cls.run_defaults.items():
        if not put(name, value):
            raise BenchError(unknown(f"field in run_defaults of {algo}", name, accepted_names(cls)))
    for preset in protocol.presets:
        if all(identity.get(key) == value for key, value in preset.where.items()):
            for name, value in preset.values.items():
                if not put(name, value) and "algo" in preset.where:
                    raise BenchError(unknown(f"field of {algo} in protocol {protocol.name}", name, accepted_names(cls)))
    for name, value in flags.items():
        run[name] = value
    for override in sets:
        if override.algo in (None, algo) and not put(override.name, override.value) and override.algo == algo:
            raise BenchError(unknown(f"field of {algo}", override.name, accepted_names(cls)))
    algorithm = create_algorithm(algo, **hyper)
    resolved = {name: getattr(algorithm, name) for name in hyper_types}
    return RunConfig(**{**run, **identity}, protocol=protocol.name, hyperparameters=resolved, code=_code(cls))


def check_overrides(sets: Sequence[Override], algos: Sequence[str]) -> None:
    """Refuse overrides that no algorithm of the comparison takes.

    Raises:
        BenchError: names the algorithm or field, what is accepted, the nearest.
    """
    for override in sets:
        if override.algo is not None and override.algo not in algos:
            raise BenchError(unknown("algorithm in --set (it is not among --algos)", override.algo, algos))
        names = sorted({name for algo in algos for name in accepted_names(ALGORITHMS.get(algo))})
        if override.name not in names:
            raise BenchError(unknown("field in --set", override.name, names))


def accepted_names(cls: type[MetaAlgorithm]) -> list[str]:
    """Return what ``--set`` takes for an algorithm: its hyperparameters, then the fields of RunConfig."""
    return [*hyperparameter_names(cls), *(name for name in _FIELDS if name not in IDENTITY)]


def _code(cls: type[MetaAlgorithm]) -> str | None:
    """Return a hash over the file that defines an algorithm, None where there is no such file."""
    file = inspect.getsourcefile(cls)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12] if file else None


def hyperparameter_types(cls: type[MetaAlgorithm]) -> dict[str, Any]:
    """Return the annotations of an algorithm's hyperparameters by name."""
    hints = typing.get_type_hints(cls)
    return {name: hints[name] for name in hyperparameter_names(cls)}
