"""What the sections of summary.md share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.analysis.arms import Arm, by_setting
from bench.analysis.naming import place
from bench.records.columns import MODES
from bench.system.text import escape

_TITLES = {"accuracy": "Accuracy", "mse": "Mean squared error (mse)", "negative return": "Negative return"}


def per_setting(arms: Sequence[Arm], table_of: Any) -> list[str]:
    """Return a heading for every setting with the blocks that ``table_of`` makes of its arms."""
    blocks = []
    for _, members in by_setting(arms):
        blocks += [f"### {escape(place(members[0], arms))}", *table_of(members)]
    return blocks


def modes(arm: Arm) -> list[str]:
    """Return the headers of both test modes, which name the measure where it is not accuracy."""
    return [mode if arm.measure == "accuracy" else f"{mode} {arm.measure}" for mode in MODES]


def modes_told(arms: Sequence[Arm]) -> str:
    """Say what the test modes are, a sentence each."""
    query = "image" if {arm.measure for arm in arms} == {"accuracy"} else "example"
    return (
        f"Plain: the network answers each query {query} alone, with the support set. "
        f"Transductive: it answers all query {query}s of a task in one batch, so that each may help with the others."
    )


def measures(arms: Sequence[Arm]) -> str:
    """Name what was measured, as a title."""
    return " and ".join(dict.fromkeys(_TITLES.get(arm.measure, arm.measure) for arm in arms))
