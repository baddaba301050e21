"""Validation accuracy against training time."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from bench.analysis.arms import Arm
from bench.report.drawing.curves import draw_curves
from bench.report.drawing.panels import COLUMN, Page
from bench.report.drawing.pictures import picture


@picture("validation accuracy against training time", rank=2)
def accuracy_vs_wallclock(arms: Sequence[Arm], page: Page = COLUMN) -> Figure:
    """Draw validation accuracy against seconds of meta-steps."""
    label = "training time, meta-steps only (s)"
    return draw_curves(arms, "train_s", "Validation accuracy against training time", label, page)
