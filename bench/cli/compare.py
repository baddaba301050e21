"""The comparison: what a command, or ``bench.compare`` in Python, asks for is planned, run and reported."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.analysis.results import Results
from bench.api import BenchError
from bench.cli import configfile
from bench.cli.arguments import arguments, place_of
from bench.cli.flags import given, parser
from bench.cli.plan import plan, stated_s, unfinished
from bench.records.run import Run
from bench.registry import unknown
from bench.report.tables import tensorboard
from bench.report.write import write_report
from bench.runs.runner import Halted, Place, run_all
from bench.runs.signals import INTERRUPTED
from bench.settings.config import RunConfig
from bench.studies.study import Request
from bench.studies.tuning.question import questions_of, told
from bench.system.console import Console
from bench.system.load import Others, cores
from bench.system.text import counted
from bench.system.waiting import crowded

FAILED = 1
"""Exit status where some run failed."""


def comparison(args: argparse.Namespace, place: Place, console: Console) -> tuple[int, Results]:
    """Make the runs that are asked for and a report of all that is under ``--out``, or for ``--report`` that alone.

    Returns:
        The exit status (0 all runs finished, 1 some failed, 130 interrupted), and the results.
    Raises:
        BenchError: wrong usage or data; before anything is trained.
        Halted: results cannot be written.
    """
    after_run, status = tensorboard.writer(place.out) if args.tensorboard else None, 0
    if args.report:
        results = write_report(place.out, needs_runs=True)
        if after_run is not None:
            for run in results.runs:
                after_run(run)
        return 0, results
    others = Others()
    asked, configs = plan(args, place, console.warn, console.doing)
    data = {config.dataset: asked.data_sha256 for config in configs}
    place = dataclasses.replace(place, data_sha256=data, stated_s=stated_s(asked, configs))
    if args.tune is None:
        configfile.save(args, place, configfile.resolved(args, asked, configs))
        get_ready([c for c in configs if unfinished(args, place.out, data)(c)], place, console, others)
    else:
        configfile.save(args, place, configfile.as_given(args, asked))
        get_ready(configs, place, console, others)
        status, configs = tuned(args, asked, configs, place, console)
    if status != INTERRUPTED:
        made = run_all(configs, place, args.fresh, console.say, None, begun(console, place), after_run)
        status = made or status
    with tables(after_runs=True):
        results = write_report(place.out)
    return with_lost(status, configs, results.runs, console), results


@contextlib.contextmanager
def launching(args: argparse.Namespace, place: Place, console: Console) -> Iterator[None]:
    """Be in touch with where runs are made, unless none will be.

    Raises:
        BenchError: that cannot be.
    """
    if args.report:
        yield
        return
    launcher = place.runs_by
    try:
        launcher.open(console.say, place.out, place.data_roots)
        yield
    finally:
        launcher.close()


def check_tune(args: argparse.Namespace) -> None:
    """Refuse ``--tune`` beside what makes no runs of a comparison, or without what it needs.

    Raises:
        BenchError: names the flag, or how to get what is missing.
    """
    if args.tune is None and args.tune_steps is not None:
        raise BenchError(f"--tune-steps {args.tune_steps}: says how long a trial of --tune is; add --tune N")
    if args.tune is None:
        return
    given("--tune", args.tune, int)
    given("--tune-steps", args.tune_steps, int)
    for flag, beside in (("--study", args.study), ("--report", args.report)):
        if beside:
            raise BenchError(f"--tune {args.tune} with {flag}: a search belongs to a comparison; leave one of them out")
    if importlib.util.find_spec("optuna") is None:
        raise BenchError("--tune needs Optuna; `pip install -r requirements-tune.txt` installs it")


def tuned(
    args: argparse.Namespace, asked: Request, configs: Sequence[RunConfig], place: Place, console: Console
) -> tuple[int, list[RunConfig]]:
    """Search for the settings of every algorithm and return the exit status and the runs that have them.

    Raises:
        BenchError: what ``questions_of`` refuses.
        Halted: results cannot be written.
    """
    from bench.studies.tuning.search import chosen, search  # Optuna is needed for nothing else

    trials = given("--tune", args.tune, int)
    steps = given("--tune-steps", args.tune_steps, int)
    algos = {
        config.algo: {*asked.given} | {o.name for o in asked.sets if o.algo in (None, config.algo)}
        for config in configs
    }
    questions = questions_of(configs, algos, steps, asked.data_sha256)
    for line in dict.fromkeys(told(question) for question in questions.values()):
        console.say(line)
    found = search(questions.values(), trials, asked.measured, place, args.fresh, console.say, begun(console, place))
    if found is None:
        return INTERRUPTED, []
    runs, status = [], 0
    for config in configs:
        one = found[questions[config.run_id].name]
        if (run := chosen(config, one)) is not None:
            runs.append(run)
            continue
        status = FAILED
        console.complain(
            f"{config.run_id}: not made: none of {counted(len(one.trials), 'trial')} ended well; {one.why}"
        )
    return status, runs


def with_lost(status: int, configs: Iterable[RunConfig], runs: Iterable[Run], console: Console) -> int:
    """Return the status, that of a failure if a run that was made is not among those read again, and say which."""
    lost = {config.run_id for config in configs} - {run.row.run_id for run in runs}
    if not lost or status == INTERRUPTED:
        return status
    console.complain(f"{len(lost)} of the runs made cannot be read again and miss in all tables, as {min(lost)}")
    return FAILED


def get_ready(configs: Sequence[RunConfig], place: Place, console: Console, others: Others) -> None:
    """Say what will show in the times of the runs to be made, and have what they need imported.

    Args:
        others: opened when the command was begun.
    Raises:
        OSError: no process can be made.
    """
    if not configs:
        return
    if place.runs_by.here:
        warn_if_busy(console, others, place.jobs * max(config.threads or 1 for config in configs))
    if place.jobs > 1:
        threads = " or ".join(str(n) for n in sorted({config.threads or 0 for config in configs}))
        console.say(f"{place.jobs} runs at a time, --threads {threads} each: times are measured beside other runs")
    with console.doing("loading what runs need"):
        place.runs_by.prepare(any(config.device == "cuda" for config in configs))


def begun(console: Console, place: Place) -> Callable[[str], None]:
    """Return what says that a run has begun: a log always does, a terminal where no progress bar says it."""
    return console.say if place.runs_by.room > 1 or not place.runs_by.here else console.note


def warn_if_busy(console: Console, others: Others, threads: int) -> None:
    """Warn if others leave fewer cores than the runs have threads."""
    if crowded(load := others.load, threads):
        console.warn(
            f"this machine is busy (others use {load:.1f} of {counted(cores(), 'core')}): runs take longer, and their "
            "times say what the machine gave."
        )


@contextlib.contextmanager
def tables(after_runs: bool) -> Iterator[None]:
    """Take an error on writing tables for what it is: not wrong usage, if runs have been made."""
    try:
        yield
    except OSError as error:
        if not after_runs:
            raise
        raise Halted.by(error) from error


_NOT_COMPARED = ("help", "list", "study", "vary")


def compare(algos: Sequence[str] | str | None = None, **flags: Any) -> Results:
    """Run what ``python run_bench.py`` runs with the same flags, and return the results.

    Finished runs are kept and unfinished ones continued, as the command does it. Lines on the progress go to stdout.
    The process that has imported what runs need stays with this one, for the next call.

    Args:
        algos: registered algorithms; left out, the command's own.
        flags: every flag of the command under its own name, save ``--list``, ``--study`` and ``--vary``: ``n_way=5``,
            ``k_shot=[1, 5]``, ``seeds=[0, 1, 2]``, ``set=["maml.inner_lr=0.4"]``, ``plugin="mine.py"``,
            ``out="results/first"``, ``fresh=True``. Lists make a grid where the flag takes a comma list.
    Returns:
        All runs under ``out``, failed ones included, and what follows from them.
    Raises:
        BenchError: wrong usage or data, in one line, before anything is trained.
        Halted: results cannot be written.
        OSError: a file or folder cannot be read or made; no process can.
        KeyboardInterrupt: interrupted; the same call goes on from there.
    """
    known = configfile.keys(parser(), but=_NOT_COMPARED)
    words: list[str] = []
    for name, value in {"algos": algos, **flags}.items():
        if name not in known:
            raise BenchError(unknown("flag of compare", name, known))
        if value is not None:
            words += configfile.words(name, known[name], _plain(value), Path())
    args = arguments(words)
    check_tune(args)
    console = Console()
    place = place_of(args, words)
    try:
        console.open(args.quiet, place.log_file)
        with launching(args, place, console):
            status, results = comparison(args, place, console)
    finally:
        console.close()
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    return results


def _plain(value: Any) -> Any:
    """Return a value as a configuration file would hold it."""
    if isinstance(value, list | tuple | set | range):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
