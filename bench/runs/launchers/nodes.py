"""The nodes of a Ray cluster, as they come and go: which of them runs can be on, and how many."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bench.api import BenchError
from bench.runs.launchers import node

LOOK_S = 1.0
TRIES = 3  # to ask a node
PATIENCE_S = 120.0  # for a node to answer, the copy of the harness included
INSTALLING_S = 1200.0  # where packages are fetched first


@dataclass
class Known:
    """A node that has answered: its name, and which of the data's folders it has."""

    name: str
    has: Sequence[bool]
    refused: str = ""
    """How its versions differ; empty where it can make runs."""


@dataclass(frozen=True)
class Share:
    """What each run is given of a node."""

    cpus: float
    gpus: float
    whole: bool
    """Whether a node makes one run at a time."""

    def runs(self, resources: Mapping[str, float]) -> int:
        """Return how many runs a node with these resources can make at once."""
        cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
        if self.whole:
            return int(cpus >= self.cpus)
        found = int(cpus / self.cpus + 1e-9)
        if self.gpus:
            by_gpus = gpus // self.gpus if self.gpus >= 1 else gpus * int(1 / self.gpus + 1e-9)
            found = min(found, int(by_gpus))
        return found


class Nodes:
    """Nodes that are there, asked once each for their versions and data before a run is on them.

    Where one lacks packages, all are given them by pip, pinned, as part of Ray's runtime environment.

    Args:
        versions: of this machine.
        say: called with one line per node that cannot make runs.
    """

    def __init__(self, share: Share, roots: Sequence[str], versions: Mapping[str, str], say: Callable[[str], None]):
        self.share, self._roots, self._versions, self._say = share, roots, versions, say
        self.known: dict[str, Known] = {}
        self.environment: dict[str, Any] = {}
        """What runs need beyond the harness, as Ray's runtime environment."""
        self._asked: dict[Any, str] = {}
        self._failures: dict[str, int] = {}
        self._waiting = False
        self._there: dict[str, Mapping[str, float]] = {}
        self._next = 0.0

    def look(self, at_once: bool = False) -> None:
        """Look around, at most once a second."""
        if time.monotonic() < self._next and not at_once:
            return
        self._next = time.monotonic() + LOOK_S
        self._there = {n["NodeID"]: n["Resources"] for n in ray.nodes() if n["Alive"]}
        for ident in self._there.keys() - self.known.keys() - set(self._asked.values()):
            here = NodeAffinitySchedulingStrategy(ident, soft=False)
            asked = ray.remote(node.facts).options(
                num_cpus=0, scheduling_strategy=here, max_retries=0, runtime_env=self.environment
            )
            self._asked[asked.remote(self._roots, list(node.pins()))] = ident
        ready, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0) if self._asked else ([], [])
        for reference in ready:
            if ident := self._asked.pop(reference, ""):
                self._take(ident, reference)

    def _take(self, ident: str, reference: Any) -> None:
        try:
            name, versions, has, lacks = ray.get(reference)
        except RayError as error:
            self._failures[ident] = self._failures.get(ident, 0) + 1
            if ident in self._there and self._failures[ident] >= TRIES:
                words = " ".join(str(error).split())[-300:]  # the reason comes last
                self.known[ident] = Known(ident[:12], [], f"cannot make runs: {words}")
        else:
            wrong = node.difference(versions, {n: v for n, v in self._versions.items() if n in versions})
            if lacks and not wrong and not self.environment and self._waiting:  # not while runs are on the others
                self._install(name, lacks)
                return
            differs = wrong or node.difference(versions, self._versions)
            self.known[ident] = Known(name, has, differs or (f"lacks {', '.join(lacks)}" if lacks else ""))
        if ident in self.known and (why := self.known[ident].refused):
            self._say(f"node {self.known[ident].name} {why}: it makes no runs")

    def refuse(self, ident: str, why: str) -> None:
        """Make no runs on a node any more."""
        self.known[ident].refused = why
        self._say(f"node {self.known[ident].name}: {why}; it makes no runs")

    def _install(self, name: str, lacks: Sequence[str]) -> None:
        """Ask all nodes anew, with what runs need installed."""
        self._say(f"node {name} lacks {', '.join(lacks)}: the nodes install what runs need by pip, in our versions")
        self.environment = {"pip": list(node.pins().values())}
        self._asked.clear()
        self.known.clear()

    def wait(self) -> None:
        """Wait until all nodes have answered.

        Raises:
            BenchError: versions differ on one, or none can make a run.
        """
        began, self._waiting = time.monotonic(), True
        self.look(at_once=True)
        while self._there.keys() - self.known.keys():
            if time.monotonic() - began > (INSTALLING_S if self.environment else PATIENCE_S):
                break
            time.sleep(0.05)
            self.look(at_once=True)
        self._waiting = False
        if refused := [one for ident, one in self.known.items() if one.refused and ident in self._there]:
            raise BenchError(f"node {refused[0].name} {refused[0].refused}; accepted: the same on all nodes")
        if not self.room:
            gpus = f" and {self.share.gpus:g} GPUs" if self.share.gpus else ""
            cpus = f"{self.share.cpus:g} CPU{'s' * (self.share.cpus != 1)}"
            raise BenchError(f"no node of the cluster has {cpus}{gpus} for a run (--cpus-per-run, --gpus-per-run)")

    @property
    def usable(self) -> dict[str, Mapping[str, float]]:
        """Return the resources of the nodes that can make runs."""
        return {i: r for i, r in self._there.items() if i in self.known and not self.known[i].refused}

    @property
    def with_room(self) -> dict[str, int]:
        """Return how many runs each node that can make some has room for."""
        return {i: count for i, r in self.usable.items() if (count := self.share.runs(r))}

    @property
    def room(self) -> int:
        """Return how many runs can be under way at once."""
        return sum(self.with_room.values())

    def freest(self, ours: Sequence[str], avoided: Collection[str] = ()) -> str | None:
        """Return a node with room for a run beside ours, which are on nodes called so; None where there is none."""
        left = {i: count - ours.count(i) for i, count in self.with_room.items() if i not in avoided}
        best = max(left, key=lambda i: left[i], default=None)
        return best if best is not None and left[best] > 0 else None
