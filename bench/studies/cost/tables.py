"""cost.csv, slopes.csv and cost.md: a row per point over all rounds, lines through the rows, and both as tables."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.analysis.statistics import least_squares
from bench.records.run import Run
from bench.studies.axes import Axis
from bench.studies.cost.points import AXES, BASE, MEMORY_STEPS, Point
from bench.studies.study import run_of
from bench.system.csvfile import Columns
from bench.system.load import NOTABLE
from bench.system.text import markdown_table, number


@dataclass(frozen=True)
class CostRow(Columns):
    """One algorithm at one value of one axis, over all rounds; None where a value is not known.

    ``algo`` also tells its form (``maml unroll=mixed``) where the study compares forms.
    ``step_ms_median`` is the median over rounds of each run's median, ``_low`` and ``_high`` the lowest and highest of
    these. ``peak_mem_mib`` and ``peak_mem_whole_mib`` are the highest over rounds, with ``task_chunk`` tasks at once
    and with the whole meta-batch.
    """

    axis: str
    value: float
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


def cost_rows(wanted: Sequence[Point], runs: Mapping[str, Run]) -> list[CostRow]:
    """Return a row per axis, value and algorithm, from the runs that are there."""
    groups: dict[tuple[str, float, str], list[Point]] = {}
    for point in wanted:
        groups.setdefault((point.axis.name, point.value, point.label), []).append(point)
    rows = []
    for (axis, value, algo), rounds in groups.items():
        timed, whole = ([run_of(getattr(point, kind), runs, ()) for point in rounds] for kind in ("timed", "whole"))
        config, good = rounds[0].timed, [run.row for run in timed if run is not None and run.ok]
        times = [row.step_ms_median for row in good if row.step_ms_median is not None]
        first = good[0] if good else None
        at_once = [run for run in whole if run and run.row.task_chunk == run.row.meta_batch]  # memory sufficed
        ids = dict.fromkeys(run.row.run_id for pair in zip(timed, whole) for run in pair if run is not None)
        row = CostRow(
            axis, value, algo, config.n_way, config.k_shot, config.k_query, config.meta_batch,
            int(config.hyperparameters["inner_steps"]), config.network, config.device,
            first.device_name if first else None, config.threads, len(times),
            statistics.median(times) if times else None, min(times, default=None), max(times, default=None),
            first.task_chunk if first else None, _peak(timed), _peak(at_once), _status([*timed, *whole]),
            " ".join(ids),
        )  # fmt: skip
        rows.append(row)
    return rows


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
            for algo, line in series(axis, rows, measure).items():
                fit = least_squares(list(line), list(line.values()))
                if fit is not None:
                    first, last = line[min(line)], line[max(line)]
                    fitted = (fit.slope, fit.at_zero, fit.r2, len(line), last / first if first else None)
                    slopes.append(Slope(axis.name, measure, algo, *fitted))
    return slopes


def series(axis: Axis, rows: Sequence[CostRow], measure: str) -> dict[str, dict[float, float]]:
    """Return the known values of a measure by algorithm, each by the axis' value."""
    found: dict[str, dict[float, float]] = {}
    for row in rows:
        value = getattr(row, measure)
        if row.axis == axis.name:
            line = found.setdefault(row.algo, {})
            if value is not None and math.isfinite(value):
                line[row.value] = value
    return found


def others(axis: Axis, row: CostRow) -> str:
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


def beside(axis: Axis, wanted: Sequence[Point], runs: Mapping[str, Run]) -> dict[str, tuple[int, float]]:
    """Return by algorithm the most other runs and cores at other work beside a timed run of an axis, if there were any.

    Cores count from where times are said to be measured beside them.
    """
    found: dict[str, tuple[int, float]] = {}
    for point in (point for point in wanted if point.axis == axis):
        run = run_of(point.timed, runs, ())
        if run is None:
            continue
        others, load = run.row.beside or 0, run.row.load or 0.0
        load = load if load >= NOTABLE else 0.0
        if others or load:
            most = found.get(point.label, (0, 0.0))
            found[point.label] = max(most[0], others), max(most[1], load)
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
        parts += [f"## By {axis.label}", f"{others(axis, members[0])}.", f"![{axis.label}](plots/{axis.name}.png)"]
        parts.append(_axis_table(axis, members, chunked))
    return "\n\n".join(filter(None, parts)) + "\n"


def _axis_table(axis: Axis, rows: Sequence[CostRow], chunked: bool) -> str:
    algos = list(dict.fromkeys(row.algo for row in rows))
    columns = MEASURES | ({"peak_mem_mib": "MiB chunked"} if chunked else {})
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
