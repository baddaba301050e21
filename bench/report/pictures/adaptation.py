"""Test accuracy against adaptation steps."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import ticker
from matplotlib.figure import Figure

from bench.analysis.arms import Arm
from bench.analysis.curves import adaptation as curve_of
from bench.analysis.curves import drawn_points
from bench.records.columns import MODES
from bench.report.drawing.axes import finish, fraction_axis, log_ticks, thousands
from bench.report.drawing.legends import band_handles, legend, shade
from bench.report.drawing.panels import COLUMN, Page, in_panels, make_panels
from bench.report.drawing.pictures import picture
from bench.report.drawing.styles import TEXT, line_style, styles


@picture("test accuracy after each number of adaptation steps, in both modes", rank=7)
def adaptation(arms: Sequence[Arm], page: Page = COLUMN) -> Figure:
    """Draw test accuracy against adaptation steps, from the first one on, plain beside transductive."""
    look, bands = styles(arms), set[str]()
    figure, panels = make_panels(arms, "Test accuracy after adaptation steps", 1.9, tuple(MODES), page)
    for first in range(0, len(panels), len(MODES)):
        values: list[float] = []
        for (axes, members), mode in zip(panels[first : first + len(MODES)], MODES):
            found = [(arm, points) for arm in members if (points := curve_of(arm, mode))]
            longest = max((max(points) for _, points in found), default=0)
            for arm, _ in found:
                style, curve = look[arm.label], drawn_points(arm, mode, longest)
                axes.plot([p.x for p in curve], [p.mean for p in curve], **line_style(style, len(curve)))
                bands |= shade(axes, arm, curve, style)
                values += [end for point in curve for end in (point.low, point.high)]
            if longest > 10:
                axes.set_xscale("log", nonpositive="mask")
                log_ticks(axes, 1, longest, page.width / 2 - 0.7)
                axes.xaxis.set_minor_formatter(ticker.NullFormatter())
                axes.xaxis.set_major_formatter(thousands)
            else:
                axes.xaxis.set_major_locator(ticker.MaxNLocator(4, integer=True))
            finish(axes, f"adaptation steps,\n{mode}", "", bool(found))
        fraction_axis(panels[first][0], values, "test accuracy")
        panels[first][0].yaxis.label.set_fontsize(TEXT)
        for axes, _ in panels[first + 1 : first + len(MODES)]:
            axes.set_ylabel("")
            axes.tick_params(labelleft=False)
    legend(figure, in_panels(panels), look, band_handles(bands))
    return figure
