"""``--study NAME``: the runs of a study, its tables and its page."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence

from bench.api import BenchError, TaskSource
from bench.cli import configfile
from bench.cli.compare import begun, get_ready, tables, with_lost
from bench.cli.plan import check, request, unfinished
from bench.records.run import Run, load_runs
from bench.report.tables import tensorboard
from bench.report.write import write_study_page
from bench.runs.runner import Place, run_all
from bench.runs.signals import INTERRUPTED
from bench.settings.code import data_code
from bench.settings.config import RunConfig
from bench.studies.study import STUDIES, Study
from bench.system.console import Console
from bench.system.load import Others
from bench.system.locks import tables_turn
from bench.system.untrusted import check_inside
from bench.tasks.data import AUTO, load_data


def study(args: argparse.Namespace, place: Place, console: Console) -> int:
    """Run the study that ``--study`` names, or only rebuild its tables for ``--report``; returns the exit status."""
    chosen = STUDIES.get(args.study)()
    if args.protocol is not None:
        raise BenchError(f"--protocol {args.protocol!r}: a study has settings of its own; flags and --set change them")
    if args.dataset not in (AUTO, chosen.dataset) and chosen.dataset is not None:
        raise BenchError(f"--dataset {args.dataset!r}: study {args.study} is about {chosen.dataset}; leave it out")
    if chosen.measures_time and place.jobs > 1:
        raise BenchError(f"--jobs {place.jobs}: study {args.study!r} measures time; accepted: 1")
    check_inside(place.out, [f"study-{args.study}"])
    place = dataclasses.replace(place, out=place.out / f"study-{args.study}")
    after_run = tensorboard.writer(place.out) if args.tensorboard else None
    others = Others()
    asked = request(args, place)
    if chosen.dataset is not None:
        asked = dataclasses.replace(asked, dataset=chosen.dataset)
    options = {c.dataset: c.dataset_options for c in chosen.configs(asked)}  # what is wrong with these comes first
    sources = {}
    for name in chosen.datasets(asked):
        with console.doing(f"reading the data set {name}"):
            cache = place.out / "cache"
            sources[name] = load_data(name, place.data_root, cache, console.warn, options.get(name))
    loaded = list(sources.values())
    named = sources[asked.dataset].name if asked.dataset in sources else asked.dataset
    asked = dataclasses.replace(asked, dataset=named, data_codes={source.name: data_code(source) for source in loaded})
    classes = {source.name: source.n_classes("meta_train", "none") for source in loaded}
    asked = dataclasses.replace(asked, classes=classes)
    place = dataclasses.replace(place, data_sha256={source.name: source.sha256 for source in loaded})
    due = unfinished(args, place.out, place.data_sha256)
    configs = able(chosen, chosen.configs(asked), loaded, due, console)
    status = 0
    if not args.report:
        configfile.save(args, place, configfile.as_given(args, asked))
        get_ready([c for c in configs if due(c)], place, console, others)
        status = run_all(configs, place, args.fresh, console.say, chosen.line, begun(console, place), after_run)
        more = [] if status == INTERRUPTED else chosen.further(asked, by_id(place))
        if more := able(chosen, more, loaded, due, console):
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
    chosen: Study, configs: Sequence[RunConfig], sources: Sequence[TaskSource], due: Callable[[RunConfig], bool],
    console: Console,
) -> list[RunConfig]:  # fmt: skip
    """Return the runs that can be made, in their order, and warn of what the user should read.

    Raises:
        BenchError: one cannot, unless the study leaves it out; then, that no algorithm can do one of the data sets.
    """
    told, out = [], set()
    for source in sources:
        here = [config for config in configs if config.dataset == source.name]
        algos = dict.fromkeys(config.algo for config in here)
        groups = [[c for c in here if c.algo == algo] for algo in algos] if chosen.leaves_out else [here]
        refusals = {}
        for group in groups:
            try:
                told += check(group, source, due)
            except BenchError as error:
                refusals[group[0].algo] = error
        if refusals and len(refusals) == len(groups):
            raise next(iter(refusals.values()))
        told += [f"{algo} is left out on {source.name}: {error}" for algo, error in refusals.items()]
        out |= {(source.name, algo) for algo in refusals}
    for line in dict.fromkeys(told):
        console.warn(line)
    return [config for config in configs if (config.dataset, config.algo) not in out]
