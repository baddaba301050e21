"""One interactive figure, and what all of them ask of arms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.analysis.arms import Arm


@dataclass(frozen=True)
class FigureSpec:
    """One figure: ``data`` and ``layout`` as plotly.js takes them, ``place`` the setting, empty for all of them.

    Traces of an arm have its label as ``meta``, by which the page shows and hides them.
    """

    kind: str
    title: str
    note: str
    place: int | None
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    labels: list[str] = field(default_factory=list)
    """The arms that are drawn, for the legend."""


def several(arms: Sequence[Arm]) -> bool:
    """Say whether an arm has more than one seed."""
    return any(len(arm.ok) > 1 for arm in arms)


def measure_of(arms: Sequence[Arm]) -> str:
    """Return what was measured."""
    return arms[0].measure


def labels_drawn(data: Iterable[dict[str, Any]], arms: Sequence[Arm]) -> list[str]:
    """Return the labels of the arms that traces show."""
    drawn = {trace.get("meta") for trace in data}
    return [arm.label for arm in arms if arm.label in drawn]
