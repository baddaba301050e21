"""``python -m bench.studies.tuning``: what the searches under a folder have found, as a protocol with its record."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w

from bench.analysis.tuning import TrialRow, trial_rows
from bench.api import BenchError
from bench.records.tuning import Search, load_searches
from bench.settings.protocols import FOLDER, protocol_names
from bench.system.console import Console
from bench.system.csvfile import csv_text
from bench.system.files import write_atomic

PROGRAM = "bench.studies.tuning"
USAGE = 2
"""Exit status of wrong usage."""

_HEADER = """\
# Written by `python -m {program}`. Do not change a value by hand: {name}.csv beside this file holds every
# trial that it comes from.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write NAME.toml and NAME.csv and return the exit status."""
    p = argparse.ArgumentParser(PROGRAM, description="Write what a search has found as a protocol.")
    p.add_argument("folder", type=Path, metavar="OUT", help="the folder that --out of run_bench.py --tune named")
    p.add_argument("--name", default="tuned", help="what the protocol is called [tuned]")
    p.add_argument("--to", type=Path, default=FOLDER, metavar="DIR", help="where it goes [the folder of the protocols]")
    args = p.parse_args(argv)
    console = Console()
    try:
        written = write(args.folder, args.name, args.to)
    except BenchError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return USAGE
    console.say("\n".join(map(str, written)))
    return 0


def write(out: Path, name: str, to: Path) -> list[Path]:
    """Write the protocol that extends the one of the searches under ``out``, and its record; return both paths.

    Raises:
        BenchError: there is no search; one has not ended or found nothing, or they are not of one effort.
    """
    searches = load_searches(out)
    content = protocol(searches, str(out), name)
    csv = csv_text(trial_rows(searches), TrialRow.columns())
    header = _HEADER.format(program=PROGRAM, name=name)
    paths = [to / f"{name}.toml", to / f"{name}.csv"]
    write_atomic(paths[1], csv)
    write_atomic(paths[0], header + "\n" + tomli_w.dumps(content))
    return paths


def protocol(searches: Sequence[Search], where: str, name: str) -> dict[str, Any]:
    """Return what the TOML file of the protocol holds.

    Raises:
        BenchError: as ``write``.
    """
    if not searches:
        raise BenchError(f"{where!r} holds no search; accepted: the --out of a command with --tune")
    for what in ("dataset", "protocol", "meta_steps", "val_tasks", "backbone"):
        if len(values := {getattr(search, what) for search in searches}) > 1:
            told = ", ".join(sorted(map(str, values)))
            raise BenchError(f"{where!r} holds searches of {what} {told}; accepted: one, as an equal search has")
    efforts = {len(search.trials) for search in searches}
    if len(efforts) > 1:
        told = ", ".join(f"{search.algo} {len(search.trials)}" for search in searches)
        raise BenchError(f"{where!r} holds unequal searches (trials: {told}); give the command again to its end")
    if (base := searches[0].protocol) not in protocol_names() or base == name:
        raise BenchError(f"{where!r} is a search in protocol {base!r}; accepted: {', '.join(protocol_names())}")
    seen: dict[tuple[Any, ...], str] = {}
    for search in searches:
        if search.best is None:
            raise BenchError(f"{search.name}: no trial ended well; {search.why}")
        if (other := seen.setdefault((search.algo, search.n_way, search.k_shot), search.name)) != search.name:
            raise BenchError(f"{where!r} holds two searches of one kind: {other} and {search.name}; remove one")
    first = searches[0]
    summary = (
        f"{base} with the settings that an equal search of {len(first.trials)} trials of {first.meta_steps} meta-steps"
        f" gave each algorithm on {first.dataset}, its record in {name}.csv"
    )
    searched = {"dataset": first.dataset, "backbone": first.backbone}
    presets = [_preset(search) for search in searches]
    return {"summary": summary, "extends": base, "searched": searched, "preset": presets}


def _preset(search: Search) -> dict[str, Any]:
    assert search.best is not None, "protocol() has looked"
    where = {"algo": search.algo, "n_way": search.n_way, "k_shot": search.k_shot}
    return {"where": where, **{n: "none" if v is None else v for n, v in search.best.values.items()}, **search.cost}
