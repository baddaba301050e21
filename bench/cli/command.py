"""What the command line does: run, report, list; and the exit status that says how it went."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import shlex
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence

from tabulate import tabulate

from bench.api import BenchError
from bench.cli import configfile
from bench.cli.flags import USAGE, flag_names, folder, given, parser
from bench.cli.plan import check, plan, read, request, unfinished
from bench.records.run import Run, load_runs
from bench.registry import (
    ALGORITHMS,
    BACKBONES,
    DATASETS,
    create_algorithm,
    create_backbone,
    hyperparameter_names,
    load_plugin,
)
from bench.report import events
from bench.report.terminal import comparison_table
from bench.report.write import write_report, write_study_page
from bench.runs.runner import Halted, Place, run_all
from bench.runs.worker import INTERRUPTED
from bench.settings.config import RunConfig
from bench.settings.protocols import Override, check_contradictions, load_protocol, protocol_names
from bench.studies.study import STUDIES
from bench.system.console import Console, in_colour, width
from bench.system.locks import tables_turn
from bench.system.text import counted
from bench.system.untrusted import check_inside
from bench.tasks.data import AUTO, load_data

FAILED = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status of SPEC 1."""
    argv = sys.argv[1:] if argv is None else list(argv)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # runs have handlers of their own
    console = Console()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that cannot be shown costs no result
    try:
        return _main(argv, console)
    except BenchError as error:
        console.complain(str(error))
        return USAGE
    except Halted as error:
        if isinstance(error.__cause__, BrokenPipeError):
            _drop_output()
        console.complain(str(error))
        return FAILED
    except BrokenPipeError:
        _drop_output()
        return 0
    except OSError as error:
        console.complain(str(error) if error.strerror is None else f"{error.strerror}: {error.filename}")
        return USAGE
    except KeyboardInterrupt:
        console.complain("interrupted; the same command continues")
        return INTERRUPTED
    finally:
        console.close()
        signal.signal(signal.SIGTERM, before)


def _drop_output() -> None:
    """Let what is still to be printed go nowhere: whoever read it has left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the flags of a command line, those of its ``--config`` under them.

    Raises:
        BenchError: what ``check_contradictions`` refuses, in either; a file that is no configuration.
    """
    p = parser()
    args = p.parse_args(argv)
    typed = _fields(args)
    check_contradictions([Override.parse(text) for text in args.set], typed)
    if args.config is None:
        return args
    words = configfile.arguments(args.config, p, args)
    below = p.parse_args(words)
    sets = [Override.parse(text) for text in below.set]
    check_contradictions(sets, _fields(below))
    # --set comes after flags, but what the user types comes after the file
    hidden = {f"--set={text}" for text, o in zip(below.set, sets) if o.name in typed}
    return p.parse_args([*(word for word in words if word not in hidden), *argv])


def _fields(args: argparse.Namespace) -> dict[str, str]:
    return {name: text for name in flag_names() if (text := getattr(args, name)) is not None}


def _main(argv: Sequence[str], console: Console) -> int:
    args = arguments(argv)
    out, data_root = folder("--out", args.out), folder("--data-root", args.data_root)
    if data_root.exists() and not data_root.is_dir():
        raise BenchError(f"--data-root {str(args.data_root)!r} is not a folder; accepted: the one that holds the data")
    jobs = given("--jobs", args.jobs, int)
    timeout_s = given("--run-timeout", args.run_timeout, float | None)
    log_file = None if args.log_file is None else folder("--log-file", args.log_file)
    for path in args.plugin:
        load_plugin(path)
    if args.list or args.report:
        read(args)
    if args.list:
        print(listing())
        return 0
    console.open(args.quiet, log_file)
    after_run = events.writer(out) if args.tensorboard else None
    status, configs = 0, list[RunConfig]()
    if not args.report or args.study is not None:
        plugins = tuple(path.resolve() for path in args.plugin)
        shown = not args.quiet
        place = Place(out, data_root, plugins, _command(argv), args.profile, jobs, timeout_s, shown, log_file)
        if args.study is not None:
            return study(args, place, console)
        asked, configs = plan(args, place, console.warn)
        place = dataclasses.replace(place, data_sha256=asked.data_sha256)
        configfile.save(args, place, configfile.resolved(args, asked, configs))
        say_how([c for c in configs if unfinished(args, out, asked.data_sha256)(c)], place, console)
        status = run_all(configs, place, args.fresh, console.say, None, begun(console, place), after_run)
    runs = load_runs(out)
    if not args.report:
        status = _with_lost(status, configs, runs, console)
    if args.report and not runs:
        raise BenchError(f"--report: no finished run under {str(out)!r}; --out takes the folder of earlier runs")
    with _tables(after_runs=not args.report):
        write_report(out)
    if args.report and after_run is not None:
        for run in runs:
            after_run(run)
    console.say(f"\n{comparison_table(runs, in_colour(sys.stdout))}\n")
    tables = "summary.csv, curves.csv, comparisons.csv, time_to_accuracy.csv, anchors.csv"
    console.say(
        textwrap.fill(
            f"In {out}: report.html, summary.md, {tables}, plots/, runs/",
            width(),
            break_on_hyphens=False,
            break_long_words=False,
        )
    )
    return status


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
    after_run = events.writer(place.out) if args.tensorboard else None
    asked = request(args, place)
    chosen.configs(asked)  # whatever is wrong with the request comes before the data is looked for
    source = load_data(chosen.dataset or args.dataset, place.data_root, place.out / "cache", console.warn)
    asked = dataclasses.replace(asked, dataset=source.name)
    place = dataclasses.replace(place, data_sha256=source.sha256)
    configs = chosen.configs(asked)
    due = unfinished(args, place.out, source.sha256)
    check(configs, source, due)
    status = 0
    if not args.report:
        configfile.save(args, place, configfile.as_given(args, asked))
        say_how([c for c in configs if due(c)], place, console)
        status = run_all(configs, place, args.fresh, console.say, chosen.line, begun(console, place), after_run)
    with _tables(after_runs=not args.report), tables_turn(place.out):
        runs = {run.row.run_id: run for run in load_runs(place.out)}
        if not args.report:
            status = _with_lost(status, configs, runs.values(), console)
        text = chosen.report(asked, runs, place.out)
        shown = write_study_page(place.out, args.study, list(runs.values()))
    page = f"\nThe page of it: {place.out / 'report.html'}" if shown else ""
    console.say(f"\n{text}{page}")
    return status


def _with_lost(status: int, configs: Iterable[RunConfig], runs: Iterable[Run], console: Console) -> int:
    """Return the status, that of a failure if a run that was made is not among those read again, and say which."""
    lost = {config.run_id for config in configs} - {run.row.run_id for run in runs}
    if not lost or status == INTERRUPTED:
        return status
    console.complain(f"{len(lost)} of the runs made cannot be read again and miss in all tables, as {min(lost)}")
    return FAILED


def say_how(configs: Sequence[RunConfig], place: Place, console: Console) -> None:
    """Say what will show in the times of runs to be made: other work on this machine, and runs beside each other."""
    if not configs:
        return
    warn_if_busy(console)
    if place.jobs > 1:
        threads = " or ".join(str(n) for n in sorted({config.threads or 0 for config in configs}))
        console.say(f"{place.jobs} runs at a time, --threads {threads} each: times are measured beside other runs")


def begun(console: Console, place: Place) -> Callable[[str], None]:
    """Return what says that a run has begun: a log always does, a terminal where no progress bar says it."""
    return console.say if place.jobs > 1 else console.note


def warn_if_busy(console: Console) -> None:
    """Warn if other work on this machine will show in the times."""
    cores = len(os.sched_getaffinity(0))
    if (load := os.getloadavg()[0]) > cores:
        where = f"load {load:.1f} on {counted(cores, 'core')}"
        console.warn(f"this machine is busy ({where}): times measured now will mean little.")


@contextlib.contextmanager
def _tables(after_runs: bool) -> Iterator[None]:
    """Take an error on writing tables for what it is: not wrong usage, if runs have been made."""
    try:
        yield
    except OSError as error:
        if not after_runs:
            raise
        raise Halted.by(error) from error


def _command(argv: Sequence[str]) -> str:
    return shlex.join(["python", "run_bench.py", *argv])


def listing() -> str:
    """Return the tables of ``--list``: what is registered and the protocols, with settings and papers."""
    algorithms = [(name, _settings(create_algorithm(name)), ALGORITHMS.get(name).paper) for name in ALGORITHMS.names()]
    data = [
        (name, f"licence: {DATASETS.get(name).licence or 'not stated'}", DATASETS.get(name).paper)
        for name in DATASETS.names()
    ]
    networks = [(name, _settings(create_backbone(name)), BACKBONES.get(name).paper) for name in BACKBONES.names()]
    protocols = [(name, _protocol(name), "") for name in protocol_names()]
    studies = [(name, STUDIES.get(name).summary, "") for name in STUDIES.names()]
    parts = []
    tables = {"algorithm": algorithms, "dataset": data, "backbone": networks, "protocol": protocols, "study": studies}
    for title, rows in tables.items():
        columns = [title, "settings", "paper"]
        kept = [i for i in range(3) if i == 0 or any(row[i] for row in rows)]
        table = [[row[i] for i in kept] for row in rows]
        parts.append(
            tabulate(
                table,
                [columns[i] for i in kept],
                maxcolwidths=[20, 56] if len(kept) == 2 else [14, 32, 30],
                break_on_hyphens=False,
            )
        )
    parts.append(
        "Settings of algorithms and backbones are the defaults of the class. Protocols,\nflags and --set override them,"
        " the last named winning; the sources of a\nprotocol's values stand in bench/protocols/."
    )
    return "\n\n".join(parts)


def _protocol(name: str) -> str:
    """Return what a protocol is for and, a line each, what it sets for all and for some."""
    found = load_protocol(name)
    lines = [found.summary]
    for preset in found.presets:
        where = ", ".join(str(v) if k == "algo" else f"{k}={v}" for k, v in preset.where.items()) or "all"
        lines.append(f"{where}: {', '.join(f'{k}={v}' for k, v in preset.values.items())}")
    return "\n".join(lines)


def _settings(plugin: object) -> str:
    return ", ".join(f"{field}={getattr(plugin, field)}" for field in hyperparameter_names(type(plugin)))
