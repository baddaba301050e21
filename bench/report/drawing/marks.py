"""The mark on arms whose times were measured beside other runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from matplotlib.lines import Line2D

from bench.analysis.arms import Arm
from bench.report.drawing.styles import GREY, Style

MARK = " *"
"""Follows the label of an arm whose times were measured beside other runs."""


def marked(arms: Sequence[Arm]) -> list[Arm]:
    """Return the arms with MARK after the labels of those of whom a run was trained beside others."""
    return [replace(arm, label=arm.label + MARK) if any(arm.values("beside")) else arm for arm in arms]


def unmarked(arm: Arm) -> str:
    """Return the label that an arm had before ``marked``."""
    return arm.label.removesuffix(MARK)


def marked_look(look: Mapping[str, Style]) -> dict[str, Style]:
    """Return the styles by the labels and by the marked labels."""
    return {**look, **{label + MARK: style for label, style in look.items()}}


def footnote(arms: Sequence[Arm]) -> list[Line2D]:
    """Return what a legend says of marked arms, nothing if there is none."""
    return company_note(max((v for arm in arms for v in arm.values("beside")), default=0.0))


def company_note(most: float) -> list[Line2D]:
    """Return what a legend says of MARK where up to ``most`` other runs were under way, nothing for none."""
    text = f"times measured beside up to {most:.0f} other run{'s' if most > 1 else ''}"
    return [Line2D([], [], ls="none", marker="$*$", markersize=5, color=GREY, label=text)] if most else []
