"""Minibatch overlap: what becomes of first-order MAML when its last minibatch is one it has learnt from already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.analysis.comparison import Comparison
from bench.api import BenchError
from bench.records.run import Run
from bench.registry import unknown
from bench.report.drawing.panels import (
    COLUMN,
    GREY,
    TEXT,
    Page,
    Style,
    entitle,
    finish,
    fraction_axis,
    line_style,
    literal,
    new_figure,
    put_legend,
    styles_of,
)
from bench.report.drawing.pictures import write_pictures
from bench.report.exports import write_both
from bench.settings.config import RunConfig, coerce
from bench.studies.armstudy import (
    HOW_TO_COMPARE,
    MODES,
    Cell,
    CellRow,
    StudyArm,
    arm_config,
    cell_rows,
    chosen_arms,
    difference_table,
    differences,
    machine,
    missing,
    page_head,
    refuse,
    run_line,
)
from bench.studies.study import Request, Study, register_study
from bench.system.files import write_atomic
from bench.system.text import markdown_table, plus_minus

NAME = "overlap"

# Ours throughout: the paper's own table of this experiment was not found. With 20 images per class, four minibatches of
# 25 are all images of 5 ways once, which is where its curves for cycling minibatches are said to bend.
BASE: dict[str, Any] = {
    "n_way": 5,
    "k_shot": 5,  # of the test episode
    "train_k_shot": 15,
    "k_query": 5,  # the separate tail
    "inner_lr": 0.075,
    "inner_steps": 4,
    "inner_batch": 25,
    "meta_optimizer": "sgd",
    "meta_lr": 0.25,
    "meta_lr_schedule": "linear",
    "meta_steps": 10_000,
    "meta_batch": 1,
    "eval_inner_steps": 5,
    "eval_k_query": 1,
    "train_rotation": "pooled",
    "test_rotation": "none",
    "val_points": 5,
    "val_tasks": 100,
    "test_tasks": 1_000,
    "adaptation_tasks": 0,
}


@dataclass(frozen=True)
class Axis:
    """One setting that is varied while all others stay as they are; ``kind`` is int or float."""

    name: str
    label: str
    values: tuple[float, ...]
    kind: type


AXES = (
    Axis("inner_steps", "inner steps", (2, 4, 6, 8), int),
    Axis("inner_batch", "images in a minibatch", (10, 25, 50, 100), int),
    Axis("meta_lr", "outer step", (0.1, 0.25, 0.5, 1.0), float),
)
ARMS = {
    arm.name: arm
    for arm in (
        StudyArm("reptile", "Reptile", "reptile", {"replacement": False}),
        StudyArm("separate", "FOML, separate tail", "foml", {"tail": "separate", "replacement": False}),
        StudyArm("cycling", "FOML, shared, cycling", "foml", {"tail": "shared", "replacement": False}),
        StudyArm("replacement", "FOML, shared, replacement", "foml", {"tail": "shared", "replacement": True}),
    )
}


@register_study(NAME)
class Overlap(Study):
    """Reptile and first-order MAML with a last minibatch that overlaps the others or does not."""

    summary = "first-order MAML with a separate or shared last minibatch, beside Reptile (Reptile paper, section 6.3)"

    def configs(self, request: Request) -> list[RunConfig]:
        """Return the runs seed by seed, and in a seed all arms of a point before the next point."""
        by_seed = zip(*(cell.configs for cell in cells(request)))
        return list({config.run_id: config for group in by_seed for config in group}.values())

    def line(self, run: Run) -> str:
        """Return one line on a run that has just ended."""
        return run_line(run)

    def report(self, request: Request, runs: Mapping[str, Run], out: Path) -> str:
        """Write tables and the figure, and return the tables and where all of it is."""
        wanted = cells(request)
        rows, points = cell_rows(wanted, runs), _points(wanted)
        pairs = dict(zip(points, differences(points.values(), runs)))
        write_both(out / f"{NAME}.csv", rows, CellRow.columns())
        write_both(out / "differences.csv", _difference_rows(pairs), ("axis", "value", *Comparison.COLUMNS))
        write_pictures(out / "plots", NAME, partial(figure, wanted, rows))
        write_atomic(out / f"{NAME}.md", markdown(wanted, rows, pairs, runs))
        where = f"In {out}: {NAME}.md, {NAME}.csv, differences.csv, plots/, runs/"
        return "\n\n".join(filter(None, (*(axis_table(axis, rows) for axis in _axes(rows)), missing(rows), where)))


def cells(request: Request) -> list[Cell]:
    """Return every arm at every value of every axis with its runs, all arms of a point one after the other.

    Raises:
        BenchError: what is asked for is not known, or is what makes the arms.
    """
    names = ["arm", *(axis.name for axis in AXES)]
    for name in request.vary:
        if name not in names:
            raise BenchError(unknown(f"setting in --vary of study {NAME}", name, names))
    refuse(NAME, request, ("tail", "replacement"))
    arms = chosen_arms(NAME, request.vary.get("arm"), ARMS, ARMS)
    seeds = request.grid.get("seed", [0])
    found = []
    for axis in [axis for axis in AXES if axis.name in request.vary] or AXES:
        texts = request.vary.get(axis.name)
        values = axis.values if texts is None else sorted({coerce(f"--vary {axis.name}", t, axis.kind) for t in texts})
        for value in values:
            varied = {axis.name: value, **(_tail(request, int(value)) if axis.name == "inner_batch" else {})}
            for arm in arms:
                configs = tuple(arm_config(NAME, request, arm, seed, BASE, varied) for seed in seeds)
                found.append(Cell(arm, configs, axis.name, value))
    return found


def _tail(request: Request, inner_batch: int) -> dict[str, int]:
    """Return how the images of a class are dealt out so that a separate tail is as large as the other minibatches.

    Half of the images at most, for the steps before need some as well. All arms of a point hold the same images.
    """
    given = {**BASE, **request.flags, **{name: values[0] for name, values in request.grid.items()}}
    images = given["train_k_shot"] + given["k_query"]
    tail = min(max(1, inner_batch // given["n_way"]), max(1, images // 2))
    return {"k_query": tail, "train_k_shot": images - tail}


def _points(wanted: Sequence[Cell]) -> dict[tuple[str, float | None], list[Cell]]:
    found: dict[tuple[str, float | None], list[Cell]] = {}
    for cell in wanted:
        found.setdefault((cell.axis, cell.value), []).append(cell)
    return found


def _axes(rows: Sequence[CellRow]) -> list[Axis]:
    return [axis for axis in AXES if any(row.axis == axis.name for row in rows)]


Pairs = Mapping[tuple[str, float | None], Sequence[Comparison]]


def _difference_rows(pairs: Pairs) -> Iterator[dict[str, Any]]:
    for (axis, value), comparisons in pairs.items():
        for c in comparisons:
            yield {"axis": axis, "value": value, **{name: getattr(c, name) for name in Comparison.COLUMNS}}


def axis_table(axis: Axis, rows: Sequence[CellRow]) -> str:
    """Return plain test accuracy by value and arm as a Markdown table."""
    members = {(row.value, row.arm): row for row in rows if row.axis == axis.name}
    arms = [arm for name, arm in ARMS.items() if any(name == other for _, other in members)]

    def cell(row: CellRow) -> str:
        if row.test_acc is None or row.test_acc_ci95 is None:
            return row.status
        return plus_minus(row.test_acc, row.test_acc_ci95)

    lines = [
        [axis.kind(value), *(cell(members[value, arm.name]) for arm in arms)]
        for value in dict.fromkeys(value for value, _ in members)
        if value is not None
    ]
    return markdown_table([axis.label, *(arm.label for arm in arms)], lines)


def markdown(wanted: Sequence[Cell], rows: Sequence[CellRow], pairs: Pairs, runs: Mapping[str, Run]) -> str:
    """Return the study's page: what was held fixed, a table per sweep, differences."""
    config = next((cell for cell in wanted if cell.axis != "inner_batch"), wanted[0]).configs[0]
    images, tail = config.n_way * (config.train_shots + config.k_query), config.n_way * config.k_query
    seeds = ", ".join(str(c.seed) for c in wanted[0].configs)
    fixed = [
        "The settings are ours: the paper's own table of this experiment was not found.",
        f"{config.dataset}, {config.n_way}-way {config.k_shot}-shot, backbone {config.network}, "
        f"{config.meta_steps:,} meta-steps of {config.meta_batch} task(s), seeds {seeds}; outer "
        f"{config.meta_optimizer}, {config.meta_lr_schedule} schedule, the same outer step for all arms, although "
        "Reptile's sum of gradients is longer than one of them.",
        f"A training task holds {images} images, the same tasks for all arms. Separate tail: {tail} of them are held "
        f"out for the last step, the other {images - tail} cycle in the steps before; where the minibatch is varied, "
        "the tail is as large as it, and half of the images at most. Shared tail, and Reptile: all minibatches come "
        "from all images, cycling (every image once before any comes again), or, with replacement, each drawn from all "
        "of them anew (no image twice in one minibatch; with minibatches of all images this is the same as cycling).",
        f"Where not varied: {_base(wanted)}.",
        f"Test: {config.eval_inner_steps} steps on the whole support set, {config.test_tasks:,} meta-test tasks with "
        f"{config.eval_k_query} query image(s) per class, the same for all.",
        machine(rows, runs),
    ]
    parts = [
        *page_head(
            "Minibatch overlap in first-order MAML",
            "After section 6.3 of Nichol et al. 2018, arXiv:1803.02999.",
            fixed,
            ("test accuracy by inner steps, minibatch and outer step", NAME),
            rows,
        ),
        f"{MODES} FOML: first-order MAML on minibatches. Plain accuracy on meta-test, a fraction: mean over seeds ± "
        "half-width of the 95% interval over test tasks; overlap.csv has the other mode and the spread over seeds.",
    ]
    for axis in _axes(rows):
        parts += [f"## By {axis.label}", axis_table(axis, rows)]
    parts += ["## Differences", HOW_TO_COMPARE]
    for (name, value), comparisons in pairs.items():
        if any(c.mode == "plain" for c in comparisons):
            label = next(axis.label for axis in AXES if axis.name == name)
            parts += [f"**{label.capitalize()}: {value:g}**", difference_table(comparisons, "plain")]
    return "\n\n".join(filter(None, parts)) + "\n"


def _base(wanted: Sequence[Cell]) -> str:
    """Name what the swept settings are where another is swept."""
    found = []
    for axis in AXES:
        config = next((cell.configs[0] for cell in wanted if cell.axis != axis.name), None)
        if config is not None:
            found.append(f"{axis.label} {_setting(config, axis.name)}")
    return ", ".join(found)


def _setting(config: RunConfig, name: str) -> Any:
    return config.hyperparameters[name] if name in config.hyperparameters else getattr(config, name)


def once(cell: Cell) -> float | None:
    """Return the value of the cell's axis up to which a shared tail of cycling minibatches repeats no image."""
    config = cell.configs[0]
    images = config.n_way * (config.train_shots + config.k_query)
    other = {"inner_steps": "inner_batch", "inner_batch": "inner_steps"}.get(cell.axis)
    return images / _setting(config, other) if other else None


def figure(wanted: Sequence[Cell], rows: Sequence[CellRow], page: Page = COLUMN) -> Figure:
    """Draw plain test accuracy against every swept setting, a panel each, a line per arm."""
    axes = _axes(rows)
    look = styles_of({name: arm.algo for name, arm in ARMS.items() if any(row.arm == name for row in rows)})
    config = wanted[0].configs[0]
    stacked = page.columns == 1
    height = 1.7 * len(axes) if stacked else 2.3
    drawn = new_figure(page, height)
    where = f"{config.dataset}, {config.n_way}-way {config.k_shot}-shot"
    entitle(drawn, f"Overlap of the last minibatch: {where}", height)
    shape = (len(axes), 1) if stacked else (1, len(axes))
    panels = drawn.subplots(*shape, sharey=True, squeeze=False).ravel()
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
    put_legend(drawn, handles, further)
    return drawn


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
