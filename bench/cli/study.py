"""``--study NAME``: the runs of a study, its tables and its page."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from bench.api import BenchError, DataMissing
from bench.cli import configfile
from bench.cli.compare import begun, get_ready, launching, tables, with_lost
from bench.cli.plan import check, request, unfinished
from bench.records.run import Run, load_runs
from bench.report.tables import tensorboard
from bench.report.write import write_study_page
from bench.runs.runner import Place, run_all
from bench.runs.signals import INTERRUPTED
from bench.settings.code import data_code
from bench.settings.config import RunConfig
from bench.settings.sources import Sources, load_sources, named
from bench.studies.study import STUDIES, Study
from bench.system.console import Console
from bench.system.load import Others
from bench.system.locks import tables_turn
from bench.system.untrusted import check_inside
from bench.tasks.data import AUTO


def study(args: argparse.Namespace, place: Place, console: Console) -> int:
    """Run the study that ``--study`` names, or only rebuild its tables for ``--report``; returns the exit status."""
    chosen = STUDIES.get(args.study)()
    if args.protocol is not None:
        raise BenchError(f"--protocol {args.protocol!r}: a study has settings of its own; flags and --set change them")
    if args.dataset not in (AUTO, chosen.dataset) and chosen.dataset is not None:
        raise BenchError(f"--dataset {args.dataset!r}: study {args.study} is about {chosen.dataset}; leave it out")
    if chosen.measures_time and place.jobs > 1:
        raise BenchError(f"--jobs {place.jobs}: study {args.study!r} measures time; accepted: 1")
    if chosen.measures_time and not place.runs_by.here and not args.exclusive:
        raise BenchError(f"--launcher {args.launcher}: study {args.study!r} measures time; add --exclusive")
    check_inside(place.out, [f"study-{args.study}"])
    place = dataclasses.replace(place, out=place.out / f"study-{args.study}")
    with launching(args, place, console):
        return _made(args, place, console, chosen)


def _made(args: argparse.Namespace, place: Place, console: Console, chosen: Study) -> int:
    """Make the runs of a study, or only read them for ``--report``, and its tables; returns the exit status."""
    after_run = tensorboard.writer(place.out) if args.tensorboard else None
    others = Others()
    asked = request(args, place)
    if chosen.dataset is not None:
        asked = dataclasses.replace(asked, dataset=chosen.dataset)
    wanted = {config.dataset: config for config in chosen.configs(asked)}  # what is wrong with these comes first
    read = {}
    for name in chosen.datasets(asked):
        first = wanted.get(name) or dataclasses.replace(next(iter(wanted.values())), dataset=name)
        with console.doing(f"reading the data set {name}"):
            read[name] = load_sources(first, place.data_roots, place.out / "cache", console.warn)
    loaded = {sources.train.name: sources for sources in read.values()}
    asked = dataclasses.replace(
        asked,
        dataset=read[asked.dataset].train.name if asked.dataset in read else asked.dataset,
        data_codes={name: data_code(sources.train) for name, sources in loaded.items()},
        classes={name: sources.train.n_classes("meta_train", "none") for name, sources in loaded.items()},
    )
    place = dataclasses.replace(place, data_sha256={name: s.train.sha256 for name, s in loaded.items()})
    due = unfinished(args, place.out, place.data_sha256)
    configs, lines = able(chosen, chosen.configs(asked), loaded, due)
    if not args.report and (then := chosen.follow_up(asked)) is not None:
        tests = list(_checked(then.tests, configs, place, console, lines, bool(asked.vary)))
        place = dataclasses.replace(place, follow_up=dataclasses.replace(then, tests=tuple(tests)))
    for line in dict.fromkeys(lines):
        console.warn(line)
    status = 0
    if not args.report:
        configfile.save(args, place, configfile.as_given(args, asked))
        get_ready([c for c in configs if due(c)], place, console, others)
        status = run_all(configs, place, args.fresh, console.say, chosen.line, begun(console, place), after_run)
        more, lines = able(chosen, [] if status == INTERRUPTED else chosen.further(asked, by_id(place)), loaded, due)
        for line in dict.fromkeys(lines):
            console.warn(line)
        if more:
            configs += more
            left = run_all(more, place, args.fresh, console.say, chosen.line, begun(console, place), after_run)
            status = max(status, left)
    with tables(after_runs=not args.report), tables_turn(place.out):
        runs = by_id(place)
        if not args.report:
            status = with_lost(status, configs, runs.values(), console)
        text = chosen.report(asked, runs, place.out)
        shown = write_study_page(place.out, args.study, list(runs.values()))
    page = f"\nThe page of it: {place.out / 'report.html'}" if shown else ""
    console.say(f"\n{text}{page}")
    return status


def by_id(place: Place) -> dict[str, Run]:
    """Return the runs of the study that have ended, by run_id."""
    return {run.row.run_id: run for run in load_runs(place.out)}


def able(
    chosen: Study, configs: Sequence[RunConfig], loaded: Mapping[str, Sources], due: Callable[[RunConfig], bool]
) -> tuple[list[RunConfig], list[str]]:
    """Return the runs that can be made, in their order, and lines that the user should read.

    Raises:
        BenchError: one cannot, unless the study leaves it out; then, that no algorithm can do one of the data sets.
    """
    configs = [named(config, loaded[config.dataset]) for config in configs]
    told: list[str] = []
    out: set[tuple[str, str]] = set()
    for name, sources in loaded.items():
        here = [config for config in configs if config.dataset == name]
        algos = dict.fromkeys(config.algo for config in here)
        groups = [[c for c in here if c.algo == algo] for algo in algos] if chosen.leaves_out else [here]
        refusals = {}
        for group in groups:
            try:
                told += check(group, sources, due)
            except BenchError as error:
                refusals[group[0].algo] = error
        if refusals and len(refusals) == len(groups):
            raise next(iter(refusals.values()))
        told += [f"{algo} is left out on {name}: {error}" for algo, error in refusals.items()]
        out |= {(name, algo) for algo in refusals}
    return [config for config in configs if (config.dataset, config.algo) not in out], told


def _checked(
    tests: Iterable[Mapping[str, Any]], configs: Sequence[RunConfig], place: Place, console: Console,
    told: list[str], all_of_them: bool,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield the further tests of the runs, each with the code and data that decide it.

    Args:
        told: gets lines that the user should read.
        all_of_them: whether the user chose them; else those whose data is not there are left out.
    Raises:
        BenchError: data is missing, or cannot fill the tasks of one.
    """
    by_data: dict[str, list[dict[str, Any]]] = {}
    for fields in tests:
        by_data.setdefault(str((fields.get("test_dataset"), fields.get("test_dataset_options"))), []).append({**fields})
    for alike in by_data.values():
        first = dataclasses.replace(configs[0], **alike[0])
        with console.doing(f"trying further tests on {first.test_dataset or first.dataset}"):
            try:
                sources = load_sources(first, place.data_roots, place.out / "cache")
            except DataMissing as error:
                if all_of_them:
                    raise
                told.append(f"no test on {first.test_dataset}: {error}")
                continue
            for fields in alike:
                wanted = {c.algo: named(dataclasses.replace(c, **fields), sources) for c in configs}
                told += check(list(wanted.values()), sources, _of_another_shape)
                yield {**fields, "test_data_code": wanted[configs[0].algo].test_data_code}


def _of_another_shape(config: RunConfig) -> bool:
    """Say whether a further test asks algorithm and network for what the run itself has not."""
    return config.test_n_way is not None
