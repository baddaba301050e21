"""Corruptions of test images: the contract, who has registered what, and a task's images under one of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bench.api import BenchError, Bits, TaskSource
from bench.registry import Registry, load_package

STRONGEST = 5
QUERY = "query"
_FORM = (
    f"KIND:STRENGTH with a strength from 0 (none) to {STRONGEST}, as in noise:3, or noise:3:{QUERY} for queries alone"
)

ImageBits = Callable[[int], Tensor]
"""Maps n to 32 random bits each, int64 ``[T, n]``: a pure function of stream and task, the same for every strength."""


class Corruption(ABC):
    """What is done to the images of a test task; a file in ``bench/tasks/corruptions/`` or a plugin registers one."""

    summary: ClassVar[str] = ""
    """What it does at which strength, in one line."""

    @abstractmethod
    def apply(self, x: Tensor, strength: int, bits: ImageBits) -> Tensor:
        """Return the images ``[T, n, C, H, W]``, in [0, 1], at a strength of 1 to 5.

        All that is random comes from ``bits``, so that every algorithm and batch size meets the same images; these
        need not be clipped.
        """


CORRUPTIONS: Registry[Corruption] = Registry("corruption", Corruption, lambda: load_package("bench.tasks.corruptions"))  # type: ignore[type-abstract]  # the base is abstract
register_corruption = CORRUPTIONS.register


@dataclass(frozen=True)
class Corrupted:
    """One corruption at one strength, of support and query images or of the latter alone."""

    kind: str
    strength: int
    query_only: bool = False

    @classmethod
    def parse(cls, text: str) -> Corrupted | None:
        """Return what ``KIND:STRENGTH[:query]`` says, None for strength 0; whether there is such a kind is not asked.

        Raises:
            BenchError: not of that form, or a strength that there is not.
        """
        kind, *rest = str(text).split(":")
        if not (kind and rest and rest[0] in map(str, range(STRONGEST + 1)) and rest[1:] in ([], [QUERY])):
            raise BenchError(f"test_corruption {text!r}; accepted: {_FORM}")
        return cls(kind, int(rest[0]), bool(rest[1:])) if int(rest[0]) else None

    def __str__(self) -> str:
        return f"{self.kind}:{self.strength}{f':{QUERY}' * self.query_only}"

    def check(self, source: TaskSource) -> None:
        """Refuse a kind that nobody has registered, and data that is no images.

        Raises:
            BenchError: names the value and what is accepted.
        """
        CORRUPTIONS.get(self.kind)
        if len(source.shape) != 3:
            raise BenchError(f"test_corruption {str(self)!r}: {source.name} has no images; accepted here: none")

    def images(self, x: Tensor, bits: Bits, query: bool) -> Tensor:
        """Return the images ``[T, n, C, H, W]`` of support or query sets, rounded to 256 levels as all images are.

        So CPU and GPU agree but for an image whose value lies halfway between two levels.
        """
        if self.query_only and not query:
            return x
        corruption = CORRUPTIONS.get(self.kind)()
        made = corruption.apply(x, self.strength, lambda n: bits(int(query), n))
        if made.shape != x.shape or made.dtype != x.dtype:
            raise BenchError(
                f"corruption {self.kind!r} made {made.dtype} {tuple(made.shape)} of images {x.dtype} {tuple(x.shape)};"
                " both must stay"
            )
        return made.clamp(0, 1).mul(255).round().div(255)


def uniform(bits: Tensor) -> Tensor:
    """Return numbers in (0, 1), float64, of 32 random bits each."""
    return (bits.to(torch.float64) + 0.5) / 2**32
