"""The flags that say where runs run: ``--launcher``, what belongs to one of them, and what does not go together."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.api import BenchError
from bench.registry import unknown
from bench.settings.values import check_range, coerce

LOCAL, RAY = "local", "ray"
LAUNCHERS = (LOCAL, RAY)
_LEAST = 0.01  # of a CPU: Ray counts in 1/10,000
RAYS_OWN = ("ray_address", "gpus_per_run", "cpus_per_run")


@dataclass(frozen=True)
class Options:
    """Where runs run, and what each gets there."""

    launcher: str = LOCAL
    jobs: int = 1
    """Runs at once on this machine; elsewhere as many as there is room for."""
    address: str = "auto"
    """Of a Ray cluster; ``auto`` for the one that runs here, ``local`` for one of our own on this machine."""
    gpus: float | None = None
    """Of each run; None for a whole one where runs are on GPUs."""
    cpus: float = 1.0
    exclusive: bool = False
    """Whether each run has a device of its own, or on CPUs a node."""
    device: str | None = None
    """As ``--device`` has it."""
    fresh: bool = False
    """Whether runs that an earlier command has left under way are ended."""

    @classmethod
    def of(cls, args: argparse.Namespace, jobs: int) -> Options:
        """Return what the flags ask for.

        Raises:
            BenchError: no such launcher, a value out of range, or flags that do not go together.
        """
        if args.launcher not in LAUNCHERS:
            raise BenchError(unknown("launcher", args.launcher, LAUNCHERS))
        if args.launcher == LOCAL:
            for name in RAYS_OWN:
                if (value := getattr(args, name)) is not None:
                    raise BenchError(f"{_flag(name)} {value}: belongs to --launcher ray; add that, or leave it out")
            if args.exclusive and jobs > 1:
                raise BenchError(f"--jobs {jobs} with --exclusive: a run has this machine for itself; accepted: 1")
            return cls(jobs=jobs, exclusive=args.exclusive)
        if args.jobs is not None:
            raise BenchError(
                f"--jobs {args.jobs}: belongs to --launcher local; with ray --cpus-per-run and --gpus-per-run decide"
            )
        gpus = _amount("gpus_per_run", args.gpus_per_run, least=0)
        cpus = _amount("cpus_per_run", args.cpus_per_run, least=None)
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise BenchError(f"--gpus-per-run {args.gpus_per_run}; accepted: a part of a GPU, as 0.25, or 1")
        if gpus and args.device == "cpu":
            raise BenchError(f"--gpus-per-run {args.gpus_per_run} with --device cpu: leave one of them out")
        if gpus == 0 and args.device == "cuda":
            raise BenchError("--gpus-per-run 0 with --device cuda: leave one of them out")
        if args.exclusive and gpus not in (None, 0, 1):
            raise BenchError(f"--exclusive with --gpus-per-run {args.gpus_per_run}: each run has a GPU; accepted: 1")
        return cls(
            RAY, 1, args.ray_address or cls.address, gpus, cls.cpus if cpus is None else cpus, args.exclusive,
            args.device, args.fresh,
        )  # fmt: skip


def add_flags(add: Callable[..., Any]) -> None:
    """Add the flags, by the ``add_argument`` of a group of a parser."""
    add(
        "--jobs",
        metavar="N",
        help="runs under way at once, each with its share of the cores unless --threads says more [1]",
    )
    add(
        "--launcher",
        default=LOCAL,
        metavar="NAME",
        help=f"where runs run: {LOCAL}, this machine, or {RAY}, the nodes of a Ray cluster [{LOCAL}]",
    )
    add(
        "--ray-address",
        metavar="ADDR",
        help="of the Ray cluster: auto, the one that this machine is a node of; local, one of its own here [auto]",
    )
    add("--gpus-per-run", metavar="X", help="GPUs that Ray gives each run, as 0.25 [1 on GPUs, 0 on CPUs]")
    add("--cpus-per-run", metavar="X", help="CPU cores that Ray gives each run, and its threads [1]")
    add(
        "--exclusive",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="for times to publish: each run has a GPU, or on CPUs a node, for itself",
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _amount(name: str, text: str | None, least: float | None) -> float | None:
    """Return the number that a flag was given, above zero unless ``least`` says otherwise."""
    value: float | None = coerce(_flag(name), text, float | None) if text is not None else None
    check_range(_flag(name), value, least=least)
    if value is not None and least is None and value < _LEAST:
        raise BenchError(f"{_flag(name)} {text!r}; accepted: {_LEAST} or more")
    return value
