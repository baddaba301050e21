"""The mark on arms whose times were measured beside other runs or other work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from matplotlib.lines import Line2D

from bench.analysis.arms import Arm
from bench.report.drawing.styles import GREY, Style

MARK = " *"
"""Follows the label of an arm whose times were measured beside other runs or other work."""


def marked(arms: Sequence[Arm]) -> list[Arm]:
    """Return the arms with MARK after the labels of those of whom a run was trained beside others' work."""
    return [replace(arm, label=arm.label + MARK) if arm.disturbed else arm for arm in arms]


def unmarked(arm: Arm) -> str:
    """Return the label that an arm had before ``marked``."""
    return arm.label.removesuffix(MARK)


def marked_look(look: Mapping[str, Style]) -> dict[str, Style]:
    """Return the styles by the labels and by the marked labels."""
    return {**look, **{label + MARK: style for label, style in look.items()}}


def footnote(arms: Sequence[Arm]) -> list[Line2D]:
    """Return what a legend says of marked arms, nothing if there is none."""
    return company_note(max((arm.beside for arm in arms), default=0), max((arm.load for arm in arms), default=0.0))


def company_note(most: int, load: float = 0.0) -> list[Line2D]:
    """Return what a legend says of MARK where up to ``most`` other runs were under way, or others used ``load`` cores.

    Nothing where neither was.
    """
    found = [f"up to {most} other run{'s' if most > 1 else ''}"] * bool(most)
    found += [f"others' work on {load:.1f} cores"] * bool(load)
    text = f"times measured beside {', '.join(found)}"
    return [Line2D([], [], ls="none", marker="$*$", markersize=5, color=GREY, label=text)] if found else []
