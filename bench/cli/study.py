"""``--study NAME``: the runs of a study, its tables and its page."""

from __future__ import annotations

import argparse
import dataclasses

from bench.api import BenchError
from bench.cli import configfile
from bench.cli.compare import begun, get_ready, tables, with_lost
from bench.cli.plan import check, request, unfinished
from bench.records.run import load_runs
from bench.report.tables import tensorboard
from bench.report.write import write_study_page
from bench.runs.runner import Place, run_all
from bench.settings.code import data_code
from bench.studies.study import STUDIES
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
    options = chosen.configs(asked)[0].dataset_options  # so what is wrong with the request comes before the data
    with console.doing(f"reading the data set {chosen.dataset or args.dataset}"):
        source = load_data(chosen.dataset or args.dataset, place.data_root, place.out / "cache", console.warn, options)
    asked = dataclasses.replace(asked, dataset=source.name, data_code=data_code(source))
    place = dataclasses.replace(place, data_sha256=source.sha256)
    configs = chosen.configs(asked)
    due = unfinished(args, place.out, source.sha256)
    for line in check(configs, source, due):
        console.warn(line)
    status = 0
    if not args.report:
        configfile.save(args, place, configfile.as_given(args, asked))
        get_ready([c for c in configs if due(c)], place, console, others)
        status = run_all(configs, place, args.fresh, console.say, chosen.line, begun(console, place), after_run)
    with tables(after_runs=not args.report), tables_turn(place.out):
        runs = {run.row.run_id: run for run in load_runs(place.out)}
        if not args.report:
            status = with_lost(status, configs, runs.values(), console)
        text = chosen.report(asked, runs, place.out)
        shown = write_study_page(place.out, args.study, list(runs.values()))
    page = f"\nThe page of it: {place.out / 'report.html'}" if shown else ""
    console.say(f"\n{text}{page}")
    return status
