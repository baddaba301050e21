"""Plain test accuracy against every swept setting, a panel each, a line per arm."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.drawing.axes import finish, fraction_axis
from bench.report.drawing.legends import put_legend
from bench.report.drawing.panels import COLUMN, Page, entitle, new_figure
from bench.report.drawing.styles import GREY, TEXT, Style, line_style, literal, styles_of
from bench.studies.arms.cells import Cell
from bench.studies.arms.tables import CellRow
from bench.studies.axes import Axis
from bench.studies.overlap.cells import ARMS, setting


def once(cell: Cell) -> float | None:
    """Return the value of the cell's axis up to which a shared tail of cycling minibatches repeats no image."""
    config = cell.configs[0]
    images = config.n_way * (config.train_shots + config.k_query)
    other = {"inner_steps": "inner_batch", "inner_batch": "inner_steps"}.get(cell.axis)
    return images / setting(config, other) if other else None


def draw(axes: Sequence[Axis], wanted: Sequence[Cell], rows: Sequence[CellRow], page: Page = COLUMN) -> Figure:
    """Draw plain test accuracy against every swept setting, a panel each, a line per arm."""
    look = styles_of({name: arm.algo for name, arm in ARMS.items() if any(row.arm == name for row in rows)})
    config = wanted[0].configs[0]
    stacked = page.columns == 1
    height = 1.7 * len(axes) if stacked else 2.3
    figure = new_figure(page, height)
    where = f"{config.dataset}, {config.n_way}-way {config.k_shot}-shot"
    entitle(figure, f"Overlap of the last minibatch: {where}", height)
    shape = (len(axes), 1) if stacked else (1, len(axes))
    panels = figure.subplots(*shape, sharey=True, squeeze=False).ravel()
    for panel, axis in zip(panels, axes):
        _panel(panel, axis, [row for row in rows if row.axis == axis.name], look)
        end = once(next(cell for cell in wanted if cell.axis == axis.name))
        if end is not None:
            panel.axvline(end, color=GREY, lw=1, ls=":")
    known = [(row.test_acc, row.test_acc_ci95 or 0.0) for row in rows if row.test_acc is not None]
    reach = [mean + sign * half for mean, half in known for sign in (-1, 1)]
    for i, panel in enumerate(panels):
        fraction_axis(panel, reach, "test accuracy, plain")
        panel.yaxis.label.set_fontsize(TEXT)
        if i and not stacked:
            panel.set_ylabel("")
    arms = [arm for name, arm in ARMS.items() if name in look]
    handles = [Line2D([], [], label=literal(arm.label), **line_style(look[arm.name], 1)) for arm in arms]
    further = [Line2D([], [], color=GREY, lw=0, marker="|", label="95% interval over tasks")]
    if any(axis.name != "meta_lr" for axis in axes):
        further.append(Line2D([], [], color=GREY, lw=1, ls=":", label="beyond: cycling repeats images"))
    put_legend(figure, handles, further)
    return figure


def _panel(panel: Axes, axis: Axis, rows: Sequence[CellRow], look: Mapping[str, Style]) -> None:
    known = [row for row in rows if row.test_acc is not None and row.value is not None]
    for arm in dict.fromkeys(row.arm for row in known):
        x, y, half = zip(*((r.value, r.test_acc, r.test_acc_ci95 or 0.0) for r in known if r.arm == arm))
        style = line_style(look[arm], 1)
        panel.errorbar(x, y, half, capsize=2, elinewidth=0.8, **style)
    values = sorted({row.value for row in rows if row.value is not None})
    if min(values, default=0.0) > 0 and max(values) > 5 * min(values):
        panel.set_xscale("log")
        panel.minorticks_off()
    panel.set_xticks(values, [f"{value:g}" for value in values])
    finish(panel, axis.label, "", bool(known))
