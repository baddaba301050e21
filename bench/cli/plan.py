"""What the command line asks for, made into the configurations of all runs, checked before anything is trained."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import os
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from bench.api import BenchError, TaskSource
from bench.cli.flags import DEFAULT_PROTOCOL, GRID, flag_names, names_in, values_of, varied
from bench.network.build import build
from bench.network.kernels import available
from bench.registry import (
    ALGORITHMS,
    BACKBONES,
    DATASETS,
    RAISED,
    blaming,
    create_algorithm,
    default_algorithms,
    said,
    unknown,
)
from bench.runs.kept import finished
from bench.runs.rehearsal import rehearse
from bench.runs.runner import Place
from bench.settings.config import RunConfig
from bench.settings.protocols import (
    IDENTITY,
    Override,
    Protocol,
    check_overrides,
    check_taken,
    gaps,
    load_protocol,
    resolve,
    searched_elsewhere,
)
from bench.settings.sources import Sources, load_sources, named
from bench.studies.study import Request
from bench.system.text import counted
from bench.system.untrusted import check_inside
from bench.tasks.corruption import CORRUPTIONS, Corrupted
from bench.tasks.data import AUTO
from bench.tasks.images import ImageSet


def plan(
    args: argparse.Namespace,
    place: Place,
    warn: Callable[[str], None] = lambda line: None,
    doing: Callable[[str], AbstractContextManager[object]] = contextlib.nullcontext,
) -> tuple[Request, list[RunConfig]]:
    """Return what is asked for and the configuration of every run, all checked before anything is trained.

    Args:
        warn: called with lines that the user should read.
        doing: called with a line on what may take a while; entered for as long as it takes.
    Raises:
        BenchError: an unknown name, a value out of range, missing or damaged data, no GPU where one is asked for.
    """
    if args.vary:
        raise BenchError(f"--vary {args.vary[0]!r}: only a study varies settings; add --study NAME")
    asked = request(args, place)
    algos = default_algorithms() if asked.algos is None else asked.algos
    protocol = load_protocol(args.protocol or DEFAULT_PROTOCOL)
    defaults = {f.name: f.default for f in dataclasses.fields(RunConfig)}
    grid = {name: asked.grid.get(name, [None]) for name in GRID}
    configs: list[RunConfig] = []
    told: list[str] = []
    for values in itertools.product(*grid.values()):
        cell = {name: value for name, value in zip(grid, values) if value is not None}
        flags = {name: value for name, value in {**asked.flags, **cell}.items() if name not in IDENTITY}
        shape = {name: cell.get(name, defaults[name]) for name in ("n_way", "k_shot", "seed")}
        machine = {"device": asked.device, "dataset": asked.dataset, "threads": asked.threads}
        for algo in algos:
            configs.append(resolve(protocol, {"algo": algo, **shape, **machine}, flags, asked.sets))
            told += untold(protocol, configs[-1], {*flags, *(o.name for o in asked.sets if o.algo in (None, algo))})
    check_taken(asked.sets, configs)
    if len({(config.test_dataset, str(config.test_dataset_options)) for config in configs}) > 1:
        raise BenchError("test_dataset differs between algorithms; accepted: --test-dataset NAME, one for all")
    with doing(f"reading the data set {args.dataset}"):
        sources = load_sources(configs[0], place.data_roots, place.out / "cache", warn)
    source = sources.train
    configs = [named(config, sources) for config in configs]
    for i, config in enumerate(configs):
        configs[i], lines = searched_elsewhere(protocol, config)
        told += lines
    given = {*asked.flags, *(override.name for override in asked.sets)}
    configs = [_unturned(config, sources, given, told) for config in configs]
    with doing(f"trying {counted(len(algos), 'algorithm')} on two small tasks of {source.name}"):
        told += check(configs, sources, unfinished(args, place.out, {source.name: source.sha256}))
    for line in dict.fromkeys(told):  # now: what is wrong is told alone
        warn(line)
    objective = source.objective
    asked = dataclasses.replace(asked, data_sha256=source.sha256, measured=(objective.measure, objective.kind))
    return asked, list({config.run_id: config for config in configs}.values())


def _unturned(config: RunConfig, sources: Sources, given: Collection[str], told: list[str]) -> RunConfig:
    """Return a configuration whose protocol turns no pictures into classes that stay what they are when turned.

    Which these are is the data set's to say; what was ``given`` stands. A line on each is added to ``told``.
    """
    source = sources.train
    if not isinstance(source, ImageSet):
        return config
    used: dict[str, list[TaskSource]] = {"train_rotation": [source], "test_rotation": [source, sources.test]}
    changed: dict[str, Any] = {
        name: "none"
        for name, sets in used.items()
        if name not in given and any(getattr(config, name) not in _turns(one) for one in sets)
    }
    if changed and source.rotations is None:
        told.append(
            f"{source.name} does not say whether a turned picture is another class, as of characters, so none is"
            f" turned; rotations=ROTATIONS in its ImageSet says so, --{next(iter(changed)).replace('_', '-')} decides"
        )
    presets = load_protocol(config.protocol).presets
    for name in changed:
        if any(preset.where.get("algo") in (None, config.algo) and name in preset.values for preset in presets):
            told.append(
                f"protocol {config.protocol} has {name} {getattr(config, name)} for {config.algo}; on {source.name} it"
                f" is none: a turned picture is no new class there. --{name.replace('_', '-')} decides"
            )
    return dataclasses.replace(config, **changed)


def _turns(source: TaskSource) -> tuple[str, ...]:
    return (source.rotations if isinstance(source, ImageSet) else None) or ("none",)


def stated_s(asked: Request, configs: Sequence[RunConfig]) -> float | None:
    """Return how long the protocol says that each run takes; None where it does not, or where the user changes it."""
    changed = asked.sets or {*asked.given} - {"kernels", "seed"} or asked.device != "cpu" or not configs
    return None if changed else load_protocol(configs[0].protocol).run_s


def untold(protocol: Protocol, config: RunConfig, given: Collection[str]) -> list[str]:
    """Return a line on each setting that a protocol has for other shapes of tasks and that nobody has ``given``."""
    shape = {name: getattr(config, name) for name in ("algo", "n_way", "k_shot")}
    return [
        f"protocol {protocol.name} sets {name} of {config.algo} for {'; '.join(shapes)}, but not for"
        f" {config.n_way}-way {config.k_shot}-shot, where it stays at"
        f" {config.hyperparameters.get(name, getattr(config, name, None))}; --set {config.algo}.{name}=N decides"
        for name, shapes in gaps(protocol, shape).items()
        if name not in given
    ]


def request(args: argparse.Namespace, place: Place) -> Request:
    """Return what the command line asks for, its names and values checked one by one.

    Raises:
        BenchError: an unknown name, a value of the wrong kind, no GPU where one is asked for.
    """
    algos, sets, given = read(args)
    single = {name: values[0] for name, values in given.items() if name not in GRID}
    device = single.pop("device", AUTO)
    launcher = place.runs_by
    if device == "cuda" and not launcher.gpu:
        nobody = "torch finds no GPU here" if launcher.here else "no node of the cluster has a GPU"
        raise BenchError(f"--device cuda: {nobody}; accepted here: auto, cpu")
    if device == AUTO:
        device = "cuda" if launcher.gpu else "cpu"
    if single.get("kernels", AUTO) == AUTO:
        single["kernels"] = available(device)
    threads = single.pop("threads", None)
    _check_writable(place.out)
    check_inside(place.out)
    return Request(
        algos=algos,
        dataset=args.dataset,
        device=device,
        threads=launcher.threads or max(1, _default_threads() // place.jobs) if threads is None else threads,
        flags=single,
        grid={name: values for name, values in given.items() if name in GRID},
        sets=sets,
        vary=dict(varied(text) for text in args.vary),
    )


def read(args: argparse.Namespace) -> tuple[tuple[str, ...] | None, list[Override], dict[str, list[Any]]]:
    """Return algorithms, overrides and further fields of RunConfig as given, whatever data and machine there are.

    Raises:
        BenchError: an unknown name, a value of the wrong kind.
    """
    algos = None if args.algos is None else tuple(names_in("--algos", args.algos))
    for name in algos or ():
        ALGORITHMS.get(name)
    if args.protocol is not None:
        load_protocol(args.protocol)
    if args.dataset not in (AUTO, *DATASETS.names()):
        raise BenchError(unknown("dataset", args.dataset, [AUTO, *DATASETS.names()]))
    sets = [Override.parse(text) for text in args.set]
    check_overrides(sets, algos or (ALGORITHMS.names() if args.study else default_algorithms()))
    given = {name: values_of(name, text) for name in flag_names() if (text := getattr(args, name)) is not None}
    for device in given.get("device", []):
        if device not in (AUTO, "cpu", "cuda"):
            raise BenchError(unknown("device", device, [AUTO, "cpu", "cuda"]))
    for backbone in given.get("backbone", []):
        BACKBONES.get(backbone)
    for dataset in filter(None, given.get("test_dataset", [])):
        DATASETS.get(dataset)
    for text in filter(None, given.get("test_corruption", [])):
        if (corrupted := Corrupted.parse(text)) is not None:
            CORRUPTIONS.get(corrupted.kind)
    return algos, sets, given


def check(configs: Sequence[RunConfig], sources: Sources, due: Callable[[RunConfig], bool]) -> list[str]:
    """Build every run's network, look whether the data can fill its tasks, and rehearse the runs that are ``due``.

    Returns:
        Lines that the user should read.
    Raises:
        BenchError: says which cannot.
    """
    for one in (sources.train, sources.test):
        if one.name not in DATASETS.names():  # by which every run looks for it
            raise BenchError(unknown("name of what a dataset has loaded", one.name, DATASETS.names()))
    told = [*sources.train.notes, *sources.test.notes]
    for classes in dict.fromkeys(config.train_classes for config in configs):
        here = [config for config in configs if config.train_classes == classes]
        told += _checked(here, sources.trained_on(classes), due)
    return list(dict.fromkeys(told))


def _checked(configs: Sequence[RunConfig], sources: Sources, due: Callable[[RunConfig], bool]) -> list[str]:
    source = sources.train
    told: list[str] = []
    for config in configs:
        algorithm = create_algorithm(config.algo, **config.hyperparameters)
        for split, (rotation, episode) in config.episodes.items():
            one = sources.of(split)
            with blaming(f"dataset {one.name!r}"):
                one.check(split, rotation, episode)
                told += one.remarks(split, episode)
        if config.corrupted is not None:
            config.corrupted.check(sources.test)
        try:
            task_loss, _ = build(config, algorithm, source, torch.device("cpu"))
        except BenchError:
            raise
        except RAISED as error:  # from a plugin's or the user's values
            raise BenchError(
                f"backbone {config.backbone!r} cannot be built for {source.name}, whose inputs have the"
                f" shape {tuple(source.shape)}: {said(error)}"
            ) from error
        if task_loss.way.reason:
            told.append(
                f"backbone {config.backbone!r} runs task by task, which is right and slow: {task_loss.way.reason}"
            )
        elif task_loss.way.once and algorithm.order == "second":
            told.append(
                f"backbone {config.backbone!r}: its second derivative, which {config.algo} needs, could not be held"
                f" against the module's own: {task_loss.way.once}"
            )
    rehearse(configs, sources, due)
    return told


def unfinished(args: argparse.Namespace, out: Path, data: Mapping[str, str]) -> Callable[[RunConfig], bool]:
    """Return what says whether the command will make a run under ``out``, and not only keep or read it.

    Args:
        data: the sha256 of the data by the name of the data set.
    """

    def there(config: RunConfig) -> bool:
        return finished(out / "runs" / config.run_id, data.get(config.dataset, "")) is not None

    return lambda config: not args.report and (args.fresh or not there(config))


def _default_threads() -> int:
    """Return what the user's environment says, else one thread for each core that this process may use."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else len(os.sched_getaffinity(0))


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as probe:  # without a name, so that nothing is left if we are killed
            probe.write(b"x")
    except OSError as error:
        raise BenchError(
            f"--out {str(out)!r} cannot be written ({error.strerror}); accepted: a folder that can"
        ) from error
