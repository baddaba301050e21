"""Axes: the settings that a study varies one at a time, over its own values or those of ``--vary``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.settings.values import coerce
from bench.studies.study import Request


@dataclass(frozen=True)
class Axis:
    """One setting that is varied while all others stay as they are; its values are of ``kind``: int, float or str."""

    name: str
    label: str
    values: tuple[Any, ...]
    per: str | None = None
    """What one more of it is called, where cost is expected to grow by the same amount with each."""
    kind: type = int


def sweep(axes: Sequence[Axis], request: Request) -> Iterator[tuple[Axis, Any]]:
    """Yield every axis, or those that the request names, with each of its values.

    Raises:
        BenchError: a value that was given is not of the axis's kind.
    """
    for axis in [axis for axis in axes if axis.name in request.vary] or axes:
        texts = request.vary.get(axis.name)
        values = axis.values if texts is None else sorted({coerce(f"--vary {axis.name}", t, axis.kind) for t in texts})
        for value in values:
            yield axis, value
