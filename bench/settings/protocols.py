"""Protocols: one readable TOML file each under bench/settings/protocols/, resolved to the RunConfig of every run."""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.api import BenchError, MetaAlgorithm
from bench.registry import (
    ALGORITHMS,
    BACKBONES,
    DATASETS,
    create_algorithm,
    create_backbone,
    create_dataset,
    hyperparameter_names,
    hyperparameter_types,
    unknown,
)
from bench.settings.code import code_of
from bench.settings.config import CODE, OPTIONS, TUNING, RunConfig
from bench.settings.values import coerce
from bench.tasks.data import AUTO

FOLDER = Path(__file__).parent / "protocols"
IDENTITY = ("algo", "dataset", "protocol", "n_way", "k_shot", "seed", "device", "threads")
"""Fields that are the same for all algorithms of a comparison; neither protocols nor --set change them."""

_FIELDS = {f.name: f for f in dataclasses.fields(RunConfig) if f.name not in ("algo", *OPTIONS, *CODE)}
_DEFAULT_BACKBONE = _FIELDS["backbone"].default
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
    deviations: tuple[str, ...] = ()
    """Where its runs depart from what was published, all the same."""
    caution: str = ""
    """What whoever reads its results must know first."""
    run_s: float | None = None
    """How long a run takes on two quiet cores of a CPU, its settings as they are; None where nobody says."""
    extends: str = ""
    searched: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the search trained that found its settings: fields of RunConfig. Empty where there was none."""
    """The protocol whose settings it has but for its own; empty for none."""


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
    """Return the protocol ``name``; its presets come after those of the one that it ``extends``, if it does.

    Raises:
        BenchError: no such protocol; the message holds the accepted ones and the nearest.
    """
    if name not in protocol_names():
        raise BenchError(unknown("protocol", name, protocol_names()))
    content = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    minutes, extends = content.get("run_minutes"), content.get("extends", "")
    below = load_protocol(extends).presets if extends else ()
    return Protocol(
        name, content["summary"], (*below, *read_presets(content)), tuple(content.get("deviations", ())),
        content.get("caution", ""), None if minutes is None else 60 * minutes, extends, content.get("searched", {}),
    )  # fmt: skip


def read_presets(content: Mapping[str, Any]) -> tuple[Preset, ...]:
    """Return the presets of a TOML file, a protocol's or a study's."""
    return tuple(Preset(p.get("where", {}), {k: v for k, v in p.items() if k != "where"}) for p in content["preset"])


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
    algo, tuned = identity["algo"], dict[str, Any]()
    cls = ALGORITHMS.get(algo)
    if not isinstance(cls.run_defaults, Mapping):
        raise BenchError(f"algorithm {algo!r}: run_defaults is {cls.run_defaults!r}; it must map fields to values")
    settings = [(f"run_defaults of {algo}", name, value) for name, value in cls.run_defaults.items()]
    presets_of_algo = f"protocol {protocol.name}, {algo}"
    for preset in protocol.presets:
        if all(identity.get(key) == value for key, value in preset.where.items()):
            named = presets_of_algo if "algo" in preset.where else ""
            tuned |= preset.values if "tuning_trials" in preset.values else {}
            settings += [(named, name, value) for name, value in preset.values.items()]
    settings += [("", name, value) for name, value in flags.items()]
    for override in sets:
        if override.algo in (None, algo):
            settings.append((f"--set {algo}" if override.algo else "", override.name, override.value))

    backbone = str(next((value for _, name, value in reversed(settings) if name == "backbone"), _DEFAULT_BACKBONE))
    hyper_types, option_types = hyperparameter_types(cls), hyperparameter_types(BACKBONES.get(backbone))
    dataset = str(identity["dataset"])
    data_types = {} if dataset == AUTO else hyperparameter_types(DATASETS.get(dataset))
    other = next((value for _, name, value in reversed(settings) if name == "test_dataset"), None)
    other = coerce("test_dataset", other, _TYPES["test_dataset"])
    test_types = {} if other is None else hyperparameter_types(DATASETS.get(other))
    run: dict[str, Any] = {}
    hyper: dict[str, Any] = {}
    options: dict[str, Any] = {}
    of_data: dict[str, Any] = {}
    of_test: dict[str, Any] = {}
    for where, name, value in settings:
        if name in {**data_types, **test_types} and where.startswith("--set "):
            raise BenchError(
                f"{where}.{name}: is the data set's, the same for all algorithms; accepted: --set {name}={value}"
            )
        if name in hyper_types:
            hyper[name] = coerce(f"{algo}.{name}", value, hyper_types[name])
        elif name in _FIELDS and name not in IDENTITY:
            run[name] = coerce(name, value, _TYPES[name], _FIELDS[name].metadata.get("none", "none"))
        elif name in option_types:
            options[name] = coerce(f"{backbone}.{name}", value, option_types[name])
        elif name in data_types or name in test_types:
            for found, kinds in ((of_data, data_types), (of_test, test_types)):
                if name in kinds:
                    found[name] = coerce(name, value, kinds[name])
        elif where and not (where in presets_of_algo and name in _backbone_options()):
            raise BenchError(unknown(f"field in {where} on backbone {backbone}", name, accepted_names(cls, backbone)))
    kinds = {**_TYPES, **hyper_types}
    wanted = {name: coerce(name, value, kinds[name]) for name, value in tuned.items() if name in kinds}
    if any(name not in TUNING and {**run, **hyper}.get(name) != value for name, value in wanted.items()):
        run = {name: value for name, value in run.items() if name not in TUNING}  # no longer what a search found
    data = create_dataset(dataset, **of_data) if dataset != AUTO else None
    test_data = create_dataset(other, **of_test) if other is not None else None
    algorithm, network = create_algorithm(algo, **hyper), create_backbone(backbone, **options)
    return RunConfig(
        **{**run, **identity},
        protocol=protocol.name,
        hyperparameters={name: getattr(algorithm, name) for name in hyper_types},
        backbone_options={name: getattr(network, name) for name in option_types},
        dataset_options={name: getattr(data, name) for name in data_types},
        test_dataset_options={name: getattr(test_data, name) for name in test_types},
        code=code_of(cls, BACKBONES.get(backbone)),
    )


def searched_elsewhere(protocol: Protocol, config: RunConfig) -> tuple[RunConfig, list[str]]:
    """Return a run, as untuned where the search behind its settings trained something else, and a line on that."""
    other = [name for name, value in protocol.searched.items() if getattr(config, name) != value]
    if not (config.tuning_trials and other):
        return config, []
    where = " and ".join(f"{name} {protocol.searched[name]}, not {getattr(config, name)}" for name in other)
    line = f"protocol {protocol.name} was searched on {where}: its values stay, and its runs count as untuned"
    none: dict[str, Any] = {name: _FIELDS[name].default for name in TUNING}
    return dataclasses.replace(config, **none), [line]


def chosen_for(presets: Iterable[Preset]) -> str:
    """Say in a sentence for which algorithms presets have settings of their own."""
    names = ", ".join(dict.fromkeys(str(preset.where["algo"]) for preset in presets if "algo" in preset.where))
    return f"Settings of their own: {names}; all other algorithms run on their defaults." if names else ""


def gaps(protocol: Protocol, identity: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what a protocol sets of an algorithm for some shapes of tasks and not for this one, with those shapes.

    Args:
        identity: algo, n_way, k_shot.
    """
    own = [preset for preset in protocol.presets if preset.where.get("algo") in (None, identity["algo"])]
    matching = [p for p in own if all(identity.get(key) == value for key, value in p.where.items())]
    chosen_for = {name for preset in matching for name in preset.values}
    found: dict[str, list[str]] = {}
    for preset in own:
        shape = ", ".join(f"{key}={preset.where[key]}" for key in ("n_way", "k_shot") if key in preset.where)
        for name in preset.values if shape else ():
            if name not in (*chosen_for, *TUNING):
                found.setdefault(name, []).append(shape)
    return found


def _backbone_options() -> set[str]:
    """Return the options of all backbones: a protocol's, for the backbone that it has in mind, do nothing on others."""
    return {option for name in BACKBONES.names() for option in hyperparameter_names(BACKBONES.get(name))}


def check_overrides(sets: Sequence[Override], algos: Sequence[str]) -> None:
    """Refuse overrides that no algorithm of the comparison takes, on any backbone.

    Raises:
        BenchError: names the algorithm or field, what is accepted, the nearest.
    """
    for override in sets:
        if override.algo is not None and override.algo not in algos:
            raise BenchError(unknown("algorithm in --set (it is not among --algos)", override.algo, algos))
        takers = [override.algo] if override.algo else algos
        names = {n for algo in takers for b in BACKBONES.names() for n in accepted_names(ALGORITHMS.get(algo), b)}
        names |= {option for name in DATASETS.names() for option in hyperparameter_names(DATASETS.get(name))}
        if override.name not in names:
            owners = [a for a in ALGORITHMS.names() if override.name in hyperparameter_names(ALGORITHMS.get(a))]
            if owners:
                told = f"it is a setting of {', '.join(owners)}; not of {', '.join(takers)}"
                raise BenchError(f"--set {override.name}: {told}")
            raise BenchError(unknown("field in --set", override.name, sorted(names)))


def check_contradictions(sets: Sequence[Override], flags: Mapping[str, str]) -> None:
    """Refuse two values for one thing: ``--set`` twice, or once and the flag of that name.

    A value for all (``inner_lr``) and another for one of them (``maml.inner_lr``) is no contradiction.

    Raises:
        BenchError: names both.
    """
    seen: dict[tuple[str | None, str], str] = {(None, name): text for name, text in flags.items()}
    for override in sets:
        key = (override.algo, override.name)
        if seen.setdefault(key, override.value) != override.value:
            name = f"{override.algo}.{override.name}" if override.algo else override.name
            raise BenchError(
                f"{name} is given twice, as {seen[key]} and as {override.value} (--set); accepted: one value"
            )


def check_taken(sets: Sequence[Override], configs: Sequence[RunConfig]) -> None:
    """Refuse overrides that no run of the comparison has taken, neither its backbone nor its data set having them.

    Raises:
        BenchError: names the field, the backbones and the data set.
    """
    for override in sets:
        if not any(
            override.name in accepted_names(ALGORITHMS.get(config.algo), config.backbone)
            or override.name in {**config.dataset_options, **config.test_dataset_options}
            for config in configs
            if override.algo in (None, config.algo)
        ):
            used = ", ".join(sorted({config.backbone for config in configs}))
            data = ", ".join(sorted({config.dataset for config in configs}))
            raise BenchError(
                f"--set {override.name}: no such option of the backbone ({used}) or the data set ({data}); see --list"
            )


def accepted_names(cls: type[MetaAlgorithm], backbone: str) -> list[str]:
    """Return what ``--set`` takes: the algorithm's hyperparameters, the fields of RunConfig, the backbone's options."""
    fields = [name for name in _FIELDS if name not in (*IDENTITY, *TUNING)]
    return [*hyperparameter_names(cls), *fields, *hyperparameter_names(BACKBONES.get(backbone))]
