"""``bench.compare``: the command from Python, every flag by its name, and its results as an object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.analysis.results import Results
from bench.api import BenchError
from bench.cli import configfile
from bench.cli.command import arguments, place_of
from bench.cli.comparison import comparison
from bench.cli.flags import parser
from bench.registry import unknown
from bench.runs.signals import INTERRUPTED
from bench.system.console import Console

_NOT_COMPARED = ("list", "study", "vary")


def compare(algos: Sequence[str] | str | None = None, **flags: Any) -> Results:
    """Run what ``python run_bench.py`` runs with the same flags, and return the results.

    Finished runs are kept and unfinished ones continued, as the command does it. Lines on the progress go to stdout.

    Args:
        algos: registered algorithms; left out, the command's own.
        flags: every flag of the command under its own name: ``n_way=5``, ``k_shot=[1, 5]``, ``seeds=[0, 1, 2]``,
            ``set=["maml.inner_lr=0.4"]``, ``plugin="mine.py"``, ``out="results/first"``, ``fresh=True``. Lists make a
            grid where the flag takes a comma list.
    Returns:
        All runs under ``out``, failed ones included, and what follows from them.
    Raises:
        BenchError: wrong usage or data, in one line, before anything is trained.
        KeyboardInterrupt: interrupted; the same call goes on from there.
    """
    known = {name: flag for name, flag in configfile.keys(parser()).items() if name not in _NOT_COMPARED}
    given = {"algos": algos, **flags}
    words: list[str] = []
    for name, value in given.items():
        if name not in known:
            raise BenchError(unknown("flag of compare", name, known))
        if value is not None:
            words += configfile.words(name, known[name], _plain(value), Path())
    args = arguments(words)
    console = Console()
    try:
        console.open(args.quiet, args.log_file)
        status, results = comparison(args, place_of(args, words), console)
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
