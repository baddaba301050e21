"""The one table of outputs: everything that a report writes or prints, each a function of Results in its own file.

A new output is a new file in ``tables/``, ``pictures/``, ``words/`` or ``page/``; nothing else is edited.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from weakref import WeakKeyDictionary

from bench.analysis.results import Results
from bench.registry import load_package

Files = Mapping[str, bytes]
"""Contents by the path under ``--out``."""

PACKAGES = ("bench.report.tables", "bench.report.pictures", "bench.report.words", "bench.report.page")
"""Where outputs are, in the order in which they are made: tables come first."""


@dataclass(frozen=True, eq=False)
class Output:
    """One output: what it is called, what it holds, and the function that makes it.

    ``when``: ``always`` for every report; ``asked`` where a flag of its name asks for it; ``shown`` on the terminal.
    ``rank`` orders the outputs of one package; lower comes first.
    """

    name: str
    says: str
    make: Callable[[Results], Files]
    when: Literal["always", "asked", "shown"]
    rank: int
    _made: WeakKeyDictionary[Results, Files] = field(default_factory=WeakKeyDictionary)

    @property
    def folder(self) -> str:
        """Return the folder under ``--out`` that the output writes to, empty for ``--out`` itself."""
        return self.name.rpartition("/")[0]

    def files(self, results: Results) -> Files:
        """Return the contents, made once for the same results, whoever asks."""
        if results not in self._made:
            self._made[results] = self.make(results)
        return self._made[results]


_TABLE: list[Output] = []


def output(
    name: str, says: str, *, when: Literal["always", "asked", "shown"] = "always", rank: int = 100
) -> Callable[[Callable[[Results], Files]], Callable[[Results], Files]]:
    """Return a decorator that puts a function into the table of outputs.

    Raises:
        ValueError: the name is taken.
    """

    def add(make: Callable[[Results], Files]) -> Callable[[Results], Files]:
        if name in (one.name for one in _TABLE):
            raise ValueError(f"output {name!r} is registered twice")
        _TABLE.append(Output(name, says, make, when, rank))
        return make

    return add


@functools.cache
def outputs() -> tuple[Output, ...]:
    """Return all outputs in the order in which they are made."""
    for package in PACKAGES:
        load_package(package)
    place = {package: i for i, package in enumerate(PACKAGES)}
    return tuple(sorted(_TABLE, key=lambda one: (place[_package(one)], one.rank, one.name)))


def _package(one: Output) -> str:
    return one.make.__module__.rpartition(".")[0]
