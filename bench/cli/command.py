"""What the command line does: run, report, list; and the exit status that says how it went."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from bench.api import BenchError
from bench.cli.arguments import arguments, place_of
from bench.cli.compare import FAILED, check_tune, comparison, launching
from bench.cli.flags import USAGE
from bench.cli.listing import listing
from bench.cli.plan import read
from bench.cli.study import study
from bench.report.outputs import outputs
from bench.report.write import shown
from bench.runs.runner import Halted
from bench.runs.signals import INTERRUPTED
from bench.system.console import Console, folded
from bench.system.start import heeded


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status of SPEC 1."""
    argv = sys.argv[1:] if argv is None else list(argv)
    stopping = [number for number in heeded() if number != signal.SIGINT]  # of which Python makes the same
    before = {number: signal.signal(number, signal.default_int_handler) for number in stopping}  # runs have their own
    console = Console()
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
        for number, handler in before.items():
            signal.signal(number, handler)


def _drop_output() -> None:
    """Let what is still to be printed go nowhere: whoever read it has left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _main(argv: Sequence[str], console: Console) -> int:
    args = arguments(argv)
    place = place_of(args, argv)
    if args.list or args.report:
        read(args)
    if args.list:
        print(listing())
        return 0
    console.open(args.quiet, place.log_file)
    check_tune(args)
    if args.study is not None:
        return study(args, place, console)
    with launching(args, place, console):
        status, results = comparison(args, place, console)
    tables = ", ".join(one.name for one in outputs() if one.name.endswith(".csv") and one.files(results))
    console.say(folded(f"\nIn {place.out}: report.html, summary.md, {tables}, plots/, runs/", ""))
    console.say("\n".join(["", *shown(results), "", f"open {place.out / 'report.html'}"]))
    return status
