"""scale.csv and scale.md: accuracy and cost at every point, at equal training seconds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.analysis.comparison import Comparison
from bench.records.run import Run
from bench.settings.protocols import chosen_for, load_protocol
from bench.studies.arms.cells import Cell, arm_of
from bench.studies.arms.tables import HOW_TO_COMPARE, HOW_TO_READ, held_fixed, plain_differences
from bench.studies.axes import Axis
from bench.studies.scale.cells import AXES, NAME, PROTOCOL, TIMED_STEPS, Point
from bench.studies.study import run_of
from bench.system.csvfile import Columns
from bench.system.text import markdown_table, number, plus_minus


@dataclass(frozen=True, kw_only=True)
class ScaleRow(Columns):
    """One algorithm at one value of one axis; None where a value is not known.

    ``timed_step_ms`` is the median step of the run that only timed them, ``meta_steps`` how many of these fit into the
    ``seconds``, and ``train_s`` what they took. Accuracies and costs are means over seeds.
    """

    axis: str
    value: str
    algo: str
    dataset: str
    backbone: str
    train_classes: int | None
    seconds: float
    timed_step_ms: float | None = None
    meta_steps: int | None = None
    meta_batch: int
    tasks_seen: int | None = None
    train_s: float | None = None
    step_ms_median: float | None = None
    peak_mem_mib: float | None = None
    adapt_ms: float | None = None
    seeds: int = 0
    test_tasks: int = 0
    test_acc: float | None = None
    test_acc_ci95: float | None = None
    test_acc_seed_sd: float | None = None
    test_acc_transductive: float | None = None
    test_acc_transductive_ci95: float | None = None
    test_acc_transductive_seed_sd: float | None = None
    status: str
    run_ids: str


def scale_rows(
    points: Sequence[Point], cells: Sequence[Cell | None], seconds: float, classes: int | None, runs: Mapping[str, Run]
) -> list[ScaleRow]:
    """Return a row per point; ``cells`` are the runs that its timing sized, ``classes`` all those of meta-train."""
    return [_row(point, cell, seconds, classes, runs) for point, cell in zip(points, cells, strict=True)]


def _row(point: Point, cell: Cell | None, seconds: float, classes: int | None, runs: Mapping[str, Run]) -> ScaleRow:
    timing = run_of(point.cell.configs[0], runs, ())
    here = [timing] if cell is None else [run_of(config, runs) for config in cell.configs]
    status = next(("not run" if run is None else run.row.status for run in here if run is None or not run.ok), "ok")
    config = point.cell.configs[0]
    known: dict[str, Any] = {}
    if cell is not None and timing is not None:
        known = {"timed_step_ms": timing.row.step_ms_median, "meta_steps": cell.configs[0].meta_steps}
        arm = arm_of(cell, runs)
        if arm is not None and arm.ok:
            known |= {"seeds": len(arm.ok), "test_tasks": int(sum(arm.values("test_tasks")))}
            for column in ("train_s", "step_ms_median", "peak_mem_mib", "adapt_ms"):
                known[column] = _known(arm.mean(column))
            known["tasks_seen"] = known["meta_steps"] * config.meta_batch
            for column in ("test_acc", "test_acc_transductive"):
                scores = {"": arm.mean(column), "_ci95": arm.ci95(column), "_seed_sd": arm.sd(column)}
                known |= {f"{column}{name}": _known(value) for name, value in scores.items()}
    row = ScaleRow(
        axis=point.axis.name,
        value=str(point.cell.value),
        algo=config.algo,
        dataset=config.dataset,
        backbone=config.network,
        train_classes=config.train_classes or classes,
        seconds=seconds,
        meta_batch=config.meta_batch,
        status=status if cell is not None or status != "ok" else "not timed",
        run_ids=" ".join(run.row.run_id for run in here if run is not None),
    )
    return replace(row, **known)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def axis_table(axis: Axis, rows: Sequence[ScaleRow]) -> str:
    """Return plain test accuracy by value and algorithm as a Markdown table."""
    members = {(row.value, row.algo): row for row in rows if row.axis == axis.name}
    algos = list(dict.fromkeys(algo for _, algo in members))

    def cell(row: ScaleRow) -> str:
        if row.test_acc is None:
            return row.status
        return plus_minus(row.test_acc, math.nan if row.test_acc_ci95 is None else row.test_acc_ci95)

    lines = [[value, *(cell(members[value, algo]) for algo in algos)] for value in dict.fromkeys(v for v, _ in members)]
    return markdown_table([axis.label, *algos], lines)


def cost_table(axis: Axis, rows: Sequence[ScaleRow]) -> str:
    """Return what every point of an axis cost as a Markdown table."""
    lines = [
        [
            *(row.value, row.algo, number(row.timed_step_ms), "-" if row.meta_steps is None else f"{row.meta_steps:,}"),
            *(number(row.train_s), number(row.step_ms_median), number(row.peak_mem_mib), number(row.adapt_ms)),
        ]
        for row in rows
        if row.axis == axis.name
    ]
    headers = ["algorithm", "timed step ms", "meta-steps", "training s", "step ms", "MiB", "adapt ms"]
    return markdown_table([axis.label.split(" (")[0], *headers], lines)


def lost(rows: Sequence[ScaleRow]) -> str:
    """Say how many points have no result, empty if all have one."""
    missing = sum(row.test_acc is None for row in rows)
    return f"{missing} of {len(rows)} results are missing; the status column of {NAME}.csv says why." if missing else ""


def markdown(
    points: Sequence[Point], rows: Sequence[ScaleRow], pairs: Mapping[tuple[str, str], Sequence[Comparison]],
    runs: Mapping[str, Run],
) -> str:  # fmt: skip
    """Return scale.md: what was held fixed, a table and a figure per axis, costs and differences."""
    first = points[0].cell.configs
    config, seconds = first[0], rows[0].seconds
    fixed = [
        f"{config.dataset}, {config.n_way}-way {config.k_shot}-shot, meta-batch {config.meta_batch}, seeds "
        f"{', '.join(str(c.seed) for c in first)}. What an axis does not vary is in {NAME}.csv: all training classes, "
        "the network of the protocol, unless flags say otherwise.",
        f"Every run trains {seconds:g} s, as near as a timing tells: a run of {TIMED_STEPS} meta-steps gives the "
        "median step, and as many steps as fit into the seconds are the budget. The learning rate's schedule ends with "
        "them. The costs below show both: the step as timed, and the seconds that training took.",
        f"Rates are those of protocol {PROTOCOL}, chosen for conv4 with 64 filters and all classes; nothing is tuned "
        f"for other networks. {chosen_for(load_protocol(PROTOCOL).presets)}",
        "Fewer training classes are always among more, the first by a hash of their names. Test classes are the same.",
    ]
    parts = ["# Accuracy and cost against scale", held_fixed(fixed, rows, runs), lost(rows), HOW_TO_READ]
    for axis in [axis for axis in AXES if any(row.axis == axis.name for row in rows)]:
        parts += [
            f"## By {axis.label}",
            f"![accuracy and cost by {axis.label}](plots/{axis.name}.png)",
            axis_table(axis, rows),
            "What it cost:",
            cost_table(axis, rows),
        ]
    parts += ["## Differences", HOW_TO_COMPARE]
    for (name, value), comparisons in pairs.items():
        if any(c.mode == "plain" for c in comparisons):
            label = next(axis.label for axis in AXES if axis.name == name)
            parts += [f"**{label.capitalize()}: {value}**", plain_differences(comparisons)]
    return "\n\n".join(filter(None, parts)) + "\n"
