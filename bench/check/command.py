"""Hold plugins against the contract and explain each failure: ``python -m bench.check my_algo.py``."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import torch

from bench.api import BenchError
from bench.check import algorithm, backbone, dataset
from bench.check.verdicts import Status, Verdict, ask_all
from bench.registry import ALGORITHMS, BACKBONES, DATASETS, Registry, load_plugin, unknown

WIDTH = 80
USAGE = 2
REGISTRIES: tuple[Registry[object], ...] = (ALGORITHMS, DATASETS, BACKBONES)  # type: ignore[assignment]  # read only
_INDENT = 26  # of what a check found: status, name


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 if no check failed, 1 if one did, 2 for wrong usage."""
    args = _parser().parse_args(argv)
    if args.list:
        print("\n".join(listing()))
        return 0
    try:
        if not args.plugin:
            raise BenchError("no plugin is named; give a Python file or the name of what is registered")
        plugins = [plugin for text in args.plugin for plugin in named(text)]
    except BenchError as error:
        print(f"bench.check: {error}", file=sys.stderr)
        return USAGE
    torch.set_num_threads(1)  # the problems are small, and times of one thread compare best
    total: Counter[Status] = Counter()
    for registry, name in dict.fromkeys(plugins):
        print(f"{registry.kind} {name}", flush=True)
        for verdict in verdicts(registry, name, args.data_root):
            total[verdict.status] += 1
            print("\n".join(lines(verdict)), flush=True)
        print()
    print(f"{sum(total.values())} checks: " + ", ".join(f"{total[s]} {s}" for s in Status if total[s]))
    return 1 if total[Status.FAILED] else 0


def named(text: str) -> Iterator[tuple[Registry[object], str]]:
    """Yield what a file registers, or what is registered under a name.

    Raises:
        BenchError: no such file or name, a file that fails on import or registers nothing.
    """
    everything = [(registry, name) for registry in REGISTRIES for name in registry.names()]
    if not text.endswith(".py"):
        found = [(registry, name) for registry, name in everything if name == text]
        if not found:
            raise BenchError(unknown("plugin", text, [name for _, name in everything]))
        yield from found
        return
    module = load_plugin(Path(text))
    mine = [
        (registry, name)
        for registry in REGISTRIES
        for name in registry.names()
        if (registry, name) not in everything or registry.get(name).__module__ == module.__name__
    ]
    if not mine:
        raise BenchError(
            f"{text} registers nothing; put @register_algorithm, @register_dataset or @register_backbone above a class"
        )
    yield from mine


def verdicts(registry: Registry[object], name: str, data_root: Path) -> Iterator[Verdict]:
    """Yield the verdict of every check on a registered plugin."""
    if registry.kind == "algorithm":
        return ask_all(algorithm.CHECKS, algorithm.Algorithm(name, ALGORITHMS.get(name)))
    if registry.kind == "dataset":
        return ask_all(dataset.CHECKS, dataset.Data(name, DATASETS.get(name), data_root))
    return ask_all(backbone.CHECKS, backbone.Network(name, BACKBONES.get(name)))


def lines(verdict: Verdict) -> list[str]:
    """Return a verdict as it is printed, 80 columns wide, with what to do below what failed."""
    head = f"  {verdict.status:8} {verdict.check:14} "
    found = [verdict.found, *([f"To do: {verdict.remedy}."] if verdict.remedy else [])]
    text = [line for part in found for line in textwrap.wrap(part, WIDTH - _INDENT, break_on_hyphens=False)]
    return [(head if i == 0 else " " * _INDENT) + line for i, line in enumerate(text)]


def listing() -> Iterator[str]:
    """Yield the checks of each kind with what they ask."""
    for kind, checks in (("algorithm", algorithm.CHECKS), ("dataset", dataset.CHECKS), ("backbone", backbone.CHECKS)):
        yield f"{kind}:"
        yield from (f"  {check.name:14} {check.asks}" for check in checks)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"bench.check: {message}", file=sys.stderr)
        sys.exit(USAGE)


def _parser() -> argparse.ArgumentParser:
    p = _Parser("python -m bench.check", description=__doc__, allow_abbrev=False)
    p.add_argument("plugin", nargs="*", help="a Python file, or the name of a registered or installed plugin")
    p.add_argument("--list", action="store_true", help="show what is asked of each kind of plugin")
    p.add_argument(
        "--data-root",
        type=Path,
        default=Path(os.environ.get("BENCH_DATA") or "data"),
        metavar="DIR",
        help="where a data set finds its files [data, or the variable BENCH_DATA]",
    )
    p.epilog = "Exit status: 0 no check failed, 1 one did, 2 wrong usage."
    return p
