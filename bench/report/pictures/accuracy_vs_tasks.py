"""Validation accuracy against training tasks seen."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from bench.analysis.arms import Arm
from bench.report.drawing.curves import draw_curves
from bench.report.drawing.panels import COLUMN, Page
from bench.report.drawing.pictures import picture


@picture("validation accuracy against training tasks seen", rank=1)
def accuracy_vs_tasks(arms: Sequence[Arm], page: Page = COLUMN) -> Figure:
    """Draw validation accuracy against training tasks seen."""
    return draw_curves(arms, "tasks_seen", "Validation accuracy against tasks", "training tasks seen", page)
