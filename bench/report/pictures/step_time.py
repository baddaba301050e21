"""The time of a meta-step."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from bench.analysis.arms import Arm
from bench.report.drawing.bars import draw_bars
from bench.report.drawing.panels import COLUMN, Page
from bench.report.drawing.pictures import picture


@picture("median time of a meta-step, with the 95th percentile", rank=4, costs=True)
def step_time(arms: Sequence[Arm], page: Page = COLUMN) -> Figure:
    """Draw the median time of a meta-step as a bar, with a line to the 95th percentile."""
    label = "time per meta-step (ms): bar median, line to 95th percentile"
    return draw_bars(arms, "step_ms_median", "step_ms_p95", "p95", "Step time", label, page)
