"""The peak memory of training."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from bench.analysis.arms import Arm
from bench.report.drawing.bars import draw_bars
from bench.report.drawing.panels import COLUMN, Page
from bench.report.drawing.pictures import picture


@picture("peak memory of training", rank=5, costs=True)
def peak_memory(arms: Sequence[Arm], page: Page = COLUMN) -> Figure:
    """Draw the peak memory as a bar, with a line to what was reserved."""
    known = any(arm.values("peak_mem_reserved_mib") for arm in arms)
    label = "peak memory (MiB)" + (": bar allocated, line to reserved" if known else "")
    return draw_bars(arms, "peak_mem_mib", "peak_mem_reserved_mib", "reserved", "Peak memory in training", label, page)
