"""What a meta-step costs: its time and peak memory against inner steps, ways, shots, meta-batch and width."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bench.api import BenchError
from bench.records.run import Run
from bench.records.stats import Line, least_squares
from bench.registry import ALGORITHMS, hyperparameter_names, unknown
from bench.report.drawing.marks import MARK, company_note
from bench.report.drawing.panels import (
    COLUMN,
    GREY,
    Page,
    Style,
    entitle,
    finish,
    line_style,
    literal,
    new_figure,
    put_legend,
    styles_of,
)
from bench.report.drawing.pictures import write_pictures
from bench.report.exports import write_both
from bench.settings.config import RunConfig, coerce
from bench.settings.protocols import Override, Preset, Protocol, resolve
from bench.studies.study import Request, Study, register_study, run_of
from bench.system.files import Columns, write_atomic
from bench.system.text import markdown_table, number

MEMORY_STEPS = 3  # meta-steps of a run that only measures memory, whose peak the first one reaches

BASE: dict[str, Any] = {
    "k_query": 15,
    "meta_steps": 20,
    "meta_batch": 16,
    "inner_steps": 5,
    "backbone": "conv4",
    # The same outer rule for all, and as little evaluation as a run can have.
    "meta_optimizer": "adam",
    "meta_lr": 1e-3,
    "meta_lr_schedule": "constant",
    "eval_k_query": 1,
    "eval_inner_steps": 1,
    "val_points": 1,
    "val_tasks": 2,
    "test_tasks": 2,
    "adaptation_tasks": 0,
}


@dataclass(frozen=True)
class Axis:
    """One setting that is varied while all others stay as they are."""

    name: str
    label: str
    values: tuple[int, ...]
    per: str | None = None
    """What one more of it is called, where cost is expected to grow by the same amount with each."""


AXES = (
    Axis("inner_steps", "inner steps", (1, 2, 3, 5, 8, 10, 20), "inner step"),
    Axis("n_way", "ways (classes per task)", (5, 10, 20), "way"),
    Axis("k_shot", "shots (support images per class)", (1, 5)),
    Axis("meta_batch", "meta-batch (tasks per meta-step)", (1, 4, 16, 32), "task"),
    Axis("filters", "width (filters per convolution)", (16, 32, 64, 128)),
)


@dataclass(frozen=True)
class Point:
    """One algorithm at one value of one axis, measured once: by one run, or by one for time and one for memory."""

    axis: Axis
    value: int
    timed: RunConfig
    whole: RunConfig
    """The run that holds the whole meta-batch at once, for its memory."""


@dataclass(frozen=True)
class CostRow(Columns):
    """One algorithm at one value of one axis, over all rounds; None where a value is not known.

    ``step_ms_median`` is the median over rounds of each run's median, ``_low`` and ``_high`` the lowest and highest of
    these. ``peak_mem_mib`` and ``peak_mem_whole_mib`` are the highest over rounds, with ``task_chunk`` tasks at once
    and with the whole meta-batch.
    """

    axis: str
    value: int
    algo: str
    n_way: int
    k_shot: int
    k_query: int
    meta_batch: int
    inner_steps: int
    backbone: str
    device: str
    device_name: str | None
    threads: int | None
    rounds: int
    step_ms_median: float | None
    step_ms_low: float | None
    step_ms_high: float | None
    task_chunk: int | None
    peak_mem_mib: float | None
    peak_mem_whole_mib: float | None
    status: str
    run_ids: str


@dataclass(frozen=True)
class Slope(Columns):
    """How a measure of one algorithm grows along an axis, by least squares."""

    axis: str
    measure: str
    algo: str
    per_unit: float
    at_zero: float
    r2: float | None
    points: int
    last_to_first: float | None
    """The value at the end of the axis over that at its beginning."""


MEASURES = {"step_ms_median": "ms", "peak_mem_whole_mib": "MiB"}


@register_study("cost")
class Cost(Study):
    """Varies one setting at a time around a base that is the same for all algorithms."""

    measures_time = True
    summary = "step time and peak memory against inner steps, ways, shots, meta-batch and network width"

    def configs(self, request: Request) -> list[RunConfig]:
        """Return the runs round by round, and in a round all algorithms of a point before the next point."""
        found = {}
        for point in points(request):
            for config in (point.timed, point.whole):
                found[config.run_id] = config
        return list(found.values())

    def line(self, run: Run) -> str:
        """Return one line on a run that has just ended, which says what it measured."""
        whole = run.row.meta_steps == MEMORY_STEPS
        what = "memory of the whole meta-batch" if whole else "time, in chunks as a run takes them"
        return f"{super().line(run)} ({what})"

    def report(self, request: Request, runs: Mapping[str, Run], out: Path) -> str:
        """Write cost.csv, slopes.csv, cost.md and a figure per axis, and return the slopes and where all of it is."""
        wanted = list(points(request))
        rows = cost_rows(wanted, runs)
        slopes = slope_rows(rows)
        write_both(out / "cost.csv", rows, CostRow.columns())
        write_both(out / "slopes.csv", slopes, Slope.columns())
        axes = [axis for axis in AXES if any(row.axis == axis.name for row in rows)]
        for axis in axes:
            write_pictures(out / "plots", axis.name, partial(figure, axis, rows, slopes, beside(wanted, runs)))
        write_atomic(out / "cost.md", markdown(wanted, axes, rows, slopes))
        missing = sum(row.rounds == 0 for row in rows)
        note = f"\n{missing} of {len(rows)} points were not measured; cost.csv says why." if missing else ""
        return f"{slope_table(slopes)}{note}\n\nIn {out}: cost.md, cost.csv, slopes.csv, plots/, runs/"


def points(request: Request) -> Iterator[Point]:
    """Yield every point of every round.

    Raises:
        BenchError: an axis or value that is not known, an algorithm without inner steps, a list where one value fits.
    """
    for name in request.vary:
        if name not in (names := [axis.name for axis in AXES]):
            raise BenchError(unknown("setting in --vary of study cost", name, names))
    for name, values in request.grid.items():
        if name != "seed" and len(values) > 1:
            listed = ",".join(map(str, values))
            raise BenchError(f"{name} {listed}; accepted in study cost: one value, and --vary n_way=A,B to vary it")
    algos = _algorithms(request)
    axes = [axis for axis in AXES if axis.name in request.vary] if request.vary else AXES
    for seed in request.grid.get("seed", [0]):
        for axis in axes:
            for value in _axis_values(axis, request.vary.get(axis.name)):
                for algo in algos:
                    timed = _config(request, algo, seed, axis, value)
                    whole = dataclasses.replace(timed, task_chunk=timed.meta_batch)
                    if timed.device == "cpu":
                        whole = dataclasses.replace(whole, meta_steps=min(MEMORY_STEPS, timed.meta_steps))
                    elif timed.task_chunk is None:
                        timed = whole  # a GPU holds the whole meta-batch anyway
                    yield Point(axis, value, timed, whole)


def _algorithms(request: Request) -> list[str]:
    if request.algos is None:
        return [
            name
            for name in ALGORITHMS.names()
            if ALGORITHMS.get(name).by_default and "inner_steps" in hyperparameter_names(ALGORITHMS.get(name))
        ]
    for name in request.algos:
        if "inner_steps" not in hyperparameter_names(ALGORITHMS.get(name)):
            raise BenchError(f"study cost: algorithm {name!r} has no inner_steps to vary; leave it out of --algos")
    return list(request.algos)


def _axis_values(axis: Axis, texts: Sequence[str] | None) -> list[int]:
    if texts is None:
        return list(axis.values)
    return sorted({coerce(f"--vary {axis.name}", text, int) for text in texts})


def _config(request: Request, algo: str, seed: int, axis: Axis, value: int) -> RunConfig:
    """Return the run of one algorithm at one value; what the axis varies wins over flags and ``--set``."""
    shape = {name: request.grid.get(name, [default])[0] for name, default in (("n_way", 5), ("k_shot", 1))}
    flags = dict(request.flags)
    if "k_query" in request.grid:
        flags["k_query"] = request.grid["k_query"][0]
    sets = list(request.sets)
    if axis.name in shape:
        shape[axis.name] = value
    else:
        sets.append(Override(None, axis.name, str(value)))
    # Minibatches that together hold all images of a task in the base's number of steps, as in the protocols.
    images = shape["n_way"] * (shape["k_shot"] + flags.get("k_query", BASE["k_query"]))
    hyper = {"inner_batch": max(1, images // BASE["inner_steps"])}
    protocol = Protocol("study-cost", Cost.summary, (Preset({}, {**BASE, **hyper}),))
    machine = {"dataset": request.dataset, "device": request.device, "threads": request.threads}
    return resolve(protocol, {"algo": algo, **shape, "seed": seed, **machine}, flags, sets)


def cost_rows(wanted: Sequence[Point], runs: Mapping[str, Run]) -> list[CostRow]:
    """Return a row per axis, value and algorithm, from the runs that are there."""
    groups: dict[tuple[str, int, str], list[Point]] = {}
    for point in wanted:
        groups.setdefault((point.axis.name, point.value, point.timed.algo), []).append(point)
    rows = []
    for (axis, value, algo), rounds in groups.items():
        timed = [run_of(point.timed, runs, ()) for point in rounds]
        whole = [run_of(point.whole, runs, ()) for point in rounds]
        config, good = rounds[0].timed, [run.row for run in timed if run is not None and run.ok]
        times = [row.step_ms_median for row in good if row.step_ms_median is not None]
        first = good[0] if good else None
        ids = dict.fromkeys(run.row.run_id for pair in zip(timed, whole) for run in pair if run is not None)
        row = CostRow(
            axis, value, algo, config.n_way, config.k_shot, config.k_query, config.meta_batch,
            int(config.hyperparameters["inner_steps"]), config.network, config.device,
            first.device_name if first else None, config.threads, len(times),
            statistics.median(times) if times else None, min(times, default=None), max(times, default=None),
            first.task_chunk if first else None, _peak(timed), _peak(_at_once(whole)), _status([*timed, *whole]),
            " ".join(ids),
        )  # fmt: skip
        rows.append(row)
    return rows


def _at_once(runs: Sequence[Run | None]) -> list[Run | None]:
    """Leave out runs that had to halve the meta-batch for want of memory."""
    return [r for r in runs if r is not None and r.row.task_chunk == r.row.meta_batch]


def _peak(runs: Sequence[Run | None]) -> float | None:
    return max((r.row.peak_mem_mib for r in runs if r and r.ok and r.row.peak_mem_mib is not None), default=None)


def _status(runs: Sequence[Run | None]) -> str:
    """Return ``ok``, or what is wrong with the first run that is not."""
    return next(("not run" if run is None else run.row.status for run in runs if run is None or not run.ok), "ok")


def slope_rows(rows: Sequence[CostRow]) -> list[Slope]:
    """Return the straight lines through both measures of every algorithm, along the axes where one is expected."""
    slopes = []
    for axis in AXES:
        for measure in MEASURES if axis.per else ():
            for algo, line in _series(axis, rows, measure).items():
                fit = least_squares(list(line), list(line.values()))
                if fit is None:
                    continue
                first, last = line[min(line)], line[max(line)]
                growth = last / first if first else None
                slopes.append(
                    Slope(axis.name, measure, algo, fit.slope, fit.at_zero, fit.r2, len(line), growth),
                )
    return slopes


def _series(axis: Axis, rows: Sequence[CostRow], measure: str) -> dict[str, dict[int, float]]:
    """Return the known values of a measure by algorithm, each by the axis' value."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        value = getattr(row, measure)
        if row.axis == axis.name:
            line = found.setdefault(row.algo, {})
            if value is not None and math.isfinite(value):
                line[row.value] = value
    return found


def slope_table(slopes: Sequence[Slope]) -> str:
    """Return the slopes as a Markdown table."""
    per = {axis.name: axis.per for axis in AXES}
    names = {"step_ms_median": "step time", "peak_mem_whole_mib": "peak memory"}
    cells = [
        [
            *(s.algo, names[s.measure], f"{number(s.per_unit)} {MEASURES[s.measure]} per {per[s.axis]}"),
            "-" if s.r2 is None else f"{s.r2:.4f}",
            *(number(s.at_zero), s.points, "-" if s.last_to_first is None else f"{s.last_to_first:.2f}"),
        ]
        for s in slopes
    ]
    return markdown_table(["algorithm", "of", "slope", "r2", "at 0", "points", "last to first"], cells)


def markdown(wanted: Sequence[Point], axes: Sequence[Axis], rows: Sequence[CostRow], slopes: Sequence[Slope]) -> str:
    """Return cost.md: what was held fixed, the slopes, and a table and a figure per axis."""
    config = wanted[0].timed
    machine = next((row.device_name for row in rows if row.device_name), config.device)
    rounds = len({point.timed.seed for point in wanted})
    chunked = any(point.timed.run_id != point.whole.run_id for point in wanted)
    fixed = (
        f"One setting is varied at a time; each figure names what the others are. {machine}, "
        f"CPU threads: {config.threads}, data set {config.dataset}. Every point is a process of its own: the median of "
        f"{config.meta_steps} meta-steps after warm-up, in {rounds} round{'s' if rounds > 1 else ''} over all points"
        f"{', median and highest memory over rounds' if rounds > 1 else ''}. An algorithm that takes minibatches gets "
        f"a {BASE['inner_steps']}th of a task's images in each, however many steps it takes."
    )
    memory = (
        "Memory is the peak while the whole meta-batch is held at once (task_chunk = meta_batch), which is what the "
        f"algorithm itself asks for{f', from runs of {MEMORY_STEPS} meta-steps' if chunked else ''}."
    )
    if chunked:
        memory += (
            " A run walks the task axis in chunks where a meta-batch is large, which takes less: the step times "
            "are of such runs, and the last columns are their memory."
        )
    parts = ["# What a meta-step costs", fixed, memory]
    if slopes:
        parts += ["## Growth", "By least squares over the points of each axis.", slope_table(slopes)]
    for axis in axes:
        members = [row for row in rows if row.axis == axis.name]
        parts += [f"## By {axis.label}", f"{_others(axis, members[0])}.", f"![{axis.label}](plots/{axis.name}.png)"]
        parts.append(_axis_table(axis, members, chunked))
    return "\n\n".join(parts) + "\n"


def _others(axis: Axis, row: CostRow) -> str:
    """Name the settings that an axis does not vary."""
    facts = {
        "n_way": f"{row.n_way}-way",
        "k_shot": f"{row.k_shot}-shot",
        "k_query": f"{row.k_query} query images per class",
        "meta_batch": f"meta-batch {row.meta_batch}",
        "inner_steps": f"{row.inner_steps} inner steps",
        "filters": row.backbone,
    }
    return ", ".join(text for name, text in facts.items() if name != axis.name)


def _axis_table(axis: Axis, rows: Sequence[CostRow], chunked: bool) -> str:
    algos = list(dict.fromkeys(row.algo for row in rows))
    columns = {"step_ms_median": "ms", "peak_mem_whole_mib": "MiB"} | (
        {"peak_mem_mib": "MiB chunked"} if chunked else {}
    )
    by_place = {(row.value, row.algo): row for row in rows}

    def cell(row: CostRow, column: str) -> str:
        value = getattr(row, column)
        return number(value) if value is not None else row.status if row.status != "ok" else "-"

    headers = [axis.label.split(" (")[0], *(f"{algo} {unit}" for unit in columns.values() for algo in algos)]
    lines = [
        [value, *(cell(by_place[value, algo], column) for column in columns for algo in algos)]
        for value in dict.fromkeys(row.value for row in rows)
    ]
    return markdown_table(headers, lines)


def beside(wanted: Sequence[Point], runs: Mapping[str, Run]) -> dict[tuple[str, str], int]:
    """Return by axis and algorithm the most other runs that were under way beside a timed run, where there were any."""
    found: dict[tuple[str, str], int] = {}
    for point in wanted:
        run, key = run_of(point.timed, runs, ()), (point.axis.name, point.timed.algo)
        if run is not None and run.row.beside:
            found[key] = max(found.get(key, 0), run.row.beside)
    return found


def figure(
    axis: Axis, rows: Sequence[CostRow], slopes: Sequence[Slope],
    company: Mapping[tuple[str, str], int] | None = None, page: Page = COLUMN,
) -> Figure:  # fmt: skip
    """Draw step time and peak memory along one axis, a line per algorithm; ``company`` is what ``beside`` returns."""
    look = styles_of(row.algo for row in rows)
    members = [row for row in rows if row.axis == axis.name]
    tall = 1.7 if page.columns == 1 else 2.2
    height = tall * 2 if page.columns == 1 else tall
    drawn = new_figure(page, height)
    entitle(drawn, f"Cost of a meta-step by {axis.label}", height)
    above, below = drawn.subplots(2, 1, sharex=True) if page.columns == 1 else drawn.subplots(1, 2)
    _panel(above, axis, members, "step_ms_median", "time per meta-step (ms)", look)
    _panel(below, axis, members, "peak_mem_whole_mib", "peak memory, whole\nmeta-batch (MiB)", look)
    if page.columns == 1:
        above.set_xlabel("")
    beside_others = {algo: most for (name, algo), most in (company or {}).items() if name == axis.name}
    handles, further = [], []
    for algo in sorted({row.algo for row in members}):
        style, label = look[algo], algo + (MARK if algo in beside_others else "")
        for slope in slopes:
            if (slope.axis, slope.measure, slope.algo) == (axis.name, "peak_mem_whole_mib", algo):
                label += f": {number(slope.per_unit)} MiB per {axis.per}"
        handles.append(Line2D([], [], label=literal(label), **line_style(style, 1)))
    if axis.per and any(slope.points > 2 for slope in slopes if slope.axis == axis.name):
        further.append(Line2D([], [], color=GREY, lw=0.8, label="thin: least squares"))
        for slope in slopes:
            if slope.axis == axis.name and slope.measure == "peak_mem_whole_mib":
                ends = [min(row.value for row in members), max(row.value for row in members)]
                fitted = Line(slope.per_unit, slope.at_zero, slope.r2)
                below.plot(ends, [fitted.at(x) for x in ends], color=look[slope.algo].colour, lw=0.8, alpha=0.7)
    title = _others(axis, members[0]).replace("meta-batch ", "meta-batch\u00a0")  # on one line
    put_legend(drawn, handles, [*further, *company_note(max(beside_others.values(), default=0))], title)
    return drawn


def _panel(
    axes: Axes, axis: Axis, rows: Sequence[CostRow], measure: str, label: str, look: Mapping[str, Style]
) -> None:
    series = _series(axis, rows, measure)
    for algo, line in sorted(series.items()):
        axes.plot(list(line), list(line.values()), **line_style(look[algo], 1))
    axes.set_xticks(sorted({row.value for row in rows}))
    axes.margins(y=0.1)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.10g}")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    finish(axes, axis.label, label, any(series.values()))
