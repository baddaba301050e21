"""What the command line does: run, report, list; and the exit status that says how it went."""

from __future__ import annotations

import argparse
import io
import os
import shlex
import signal
import sys
import textwrap
from collections.abc import Sequence

from bench.api import BenchError
from bench.cli import configfile
from bench.cli.comparison import FAILED, comparison
from bench.cli.flags import USAGE, flag_names, folder, given, parser
from bench.cli.listing import listing
from bench.cli.plan import read
from bench.cli.study import study
from bench.registry import (
    load_plugin,
)
from bench.report.outputs import outputs
from bench.report.words.terminal import comparison_table
from bench.runs.runner import Halted, Place
from bench.runs.signals import INTERRUPTED
from bench.settings.protocols import Override, check_contradictions
from bench.system.console import Console, in_colour, width


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
    place = place_of(args, argv)
    if args.list or args.report:
        read(args)
    if args.list:
        print(listing())
        return 0
    console.open(args.quiet, place.log_file)
    if args.study is not None:
        return study(args, place, console)
    status, results = comparison(args, place, console)
    console.say(f"\n{comparison_table(results, in_colour(sys.stdout))}\n")
    tables = ", ".join(one.name for one in outputs() if one.name.endswith(".csv"))
    text = f"In {place.out}: report.html, summary.md, {tables}, plots/, runs/"
    console.say(textwrap.fill(text, width(), break_on_hyphens=False, break_long_words=False))
    return status


def place_of(args: argparse.Namespace, argv: Sequence[str]) -> Place:
    """Return where a command reads and writes and how it makes its runs, its plugins loaded.

    Raises:
        BenchError: a folder or number that cannot be; a plugin that fails.
    """
    out, data_root = folder("--out", args.out), folder("--data-root", args.data_root)
    if data_root.exists() and not data_root.is_dir():
        raise BenchError(f"--data-root {str(args.data_root)!r} is not a folder; accepted: the one that holds the data")
    jobs = given("--jobs", args.jobs, int)
    timeout_s = given("--run-timeout", args.run_timeout, float | None)
    log_file = None if args.log_file is None else folder("--log-file", args.log_file)
    for path in args.plugin:
        load_plugin(path)
    plugins = tuple(path.resolve() for path in args.plugin)
    command = shlex.join(["python", "run_bench.py", *argv])
    return Place(out, data_root, plugins, command, args.profile, jobs, timeout_s, not args.quiet, log_file)
