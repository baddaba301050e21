"""Results of cells: a row each, the differences between their arms, and what a page says of both."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bench.analysis.arms import Arm
from bench.analysis.comparison import Comparison, compare, corrected
from bench.analysis.statistics import PairedDifference
from bench.records.run import Run
from bench.studies.arms.cells import Cell, arm_of
from bench.studies.study import run_of
from bench.system.csvfile import Columns
from bench.system.text import fraction, markdown_table, plus_minus


@dataclass(frozen=True)
class CellRow(Columns):
    """What became of a cell; accuracies are means over seeds, None where no run has finished."""

    arm: str
    axis: str
    value: float | None
    algo: str
    dataset: str
    n_way: int
    k_shot: int
    train_images_per_class: int
    inner_steps: int
    inner_batch: int | None
    inner_lr: float
    meta_lr: float
    meta_steps: int
    meta_batch: int
    seeds: int
    test_tasks: int
    """Over all seeds."""
    test_acc: float | None
    test_acc_ci95: float | None
    test_acc_seed_sd: float | None
    test_acc_transductive: float | None
    test_acc_transductive_ci95: float | None
    test_acc_transductive_seed_sd: float | None
    stream_sha256: str | None
    """Of the first seed."""
    status: str
    run_ids: str


def cell_rows(cells: Iterable[Cell], runs: Mapping[str, Run]) -> list[CellRow]:
    """Return a row per cell, from the runs that are there."""
    rows = []
    for cell in cells:
        config, arm = cell.configs[0], arm_of(cell, runs)
        here = [run_of(c, runs) for c in cell.configs]
        status = next(("not run" if r is None else r.row.status for r in here if r is None or not r.ok), "ok")
        hyper, alone, batch = config.hyperparameters, _score(arm, "test_acc"), _score(arm, "test_acc_transductive")
        row = CellRow(
            cell.arm.name, cell.axis, cell.value, cell.arm.algo, config.dataset, config.n_way, config.k_shot,
            config.train_shots + config.k_query, int(hyper["inner_steps"]), hyper["inner_batch"],
            float(hyper["inner_lr"]), config.meta_lr, config.meta_steps, config.meta_batch,
            len(arm.ok) if arm else 0, int(sum(arm.values("test_tasks"))) if arm else 0, *alone, *batch,
            next((r.row.stream_sha256 for r in here if r is not None and r.ok), None), status,
            " ".join(r.row.run_id for r in here if r is not None),
        )  # fmt: skip
        rows.append(row)
    return rows


def _score(arm: Arm | None, column: str) -> tuple[float | None, float | None, float | None]:
    """Return mean, half-width over tasks and standard deviation over seeds, None where they are not known."""
    if arm is None:
        return None, None, None
    mean, half, sd = (None if math.isnan(v) else v for v in (arm.mean(column), arm.ci95(column), arm.sd(column)))
    return mean, half, sd


def differences(groups: Iterable[Sequence[Cell]], runs: Mapping[str, Run]) -> list[list[Comparison]]:
    """Compare the arms of every group pairwise on their test tasks.

    Holm's correction is over all groups together, in which the same runs side by side in two groups count once.
    """
    family: dict[tuple[Any, ...], Comparison] = {}
    keys: list[list[tuple[Any, ...]]] = []
    for group in groups:
        arms = [arm for cell in group if (arm := arm_of(cell, runs)) is not None]
        ids = {arm.label: tuple(run.row.run_id for run in arm.runs) for arm in arms}
        keys.append([])
        for c in compare(arms):
            key = (c.mode, ids[c.algo_a], ids[c.algo_b])
            family.setdefault(key, c)
            keys[-1].append(key)
    together = dict(zip(family, corrected(list(family.values()))))
    return [[together[key] for key in group] for group in keys]


def missing(rows: Sequence[CellRow]) -> str:
    """Say how many cells have no result, empty if all have one."""
    lost = sum(row.test_acc is None for row in rows)
    return f"{lost} of {len(rows)} results are missing; the status column says why." if lost else ""


class Result(Protocol):
    """A row that names the runs that it was made of."""

    @property
    def run_ids(self) -> str:
        """Return their names, with spaces between them."""


def held_fixed(facts: Iterable[str], rows: Sequence[Result], runs: Mapping[str, Run]) -> str:
    """Return a list of what was the same for all cells, which ends with machines, thread counts and commits."""
    used = [runs[run_id].row for row in rows for run_id in row.run_ids.split() if run_id in runs]
    places = dict.fromkeys(f"{r.device_name or r.device}, threads: {r.threads}" for r in used if r.status == "ok")
    commits = dict.fromkeys(r.git_commit for r in used if r.status == "ok" and r.git_commit)
    machine = f"{'; '.join(places)}; commit {', '.join(commits)}." if places else ""
    return "\n".join(f"- {fact}" for fact in (*facts, machine) if fact)


def score_cells(row: CellRow) -> list[str]:
    """Return plain and transductive accuracy, each with its interval and the spread over seeds, as table cells."""
    scores = (
        (row.test_acc, row.test_acc_ci95, row.test_acc_seed_sd),
        (row.test_acc_transductive, row.test_acc_transductive_ci95, row.test_acc_transductive_seed_sd),
    )
    cells = []
    for mean, half, sd in scores:
        cells += [row.status if mean is None else plus_minus(mean, math.nan if half is None else half), fraction(sd)]
    return cells


def difference_table(pairs: Iterable[tuple[str, str, Comparison | PairedDifference, float]], last: str) -> str:
    """Return paired differences as a Markdown table; ``last`` is the field of a difference in the last column.

    Args:
        pairs: names of a and b, their difference, and its p-value after correction.
    """
    rows = [
        [
            *(f"{a} - {b}", f"{d.diff:+.4f}", f"{d.ci95_low:+.4f} to {d.ci95_high:+.4f}"),
            *(f"{p:.2g}", f"{d.test_tasks:,}", getattr(d, last)),
        ]
        for a, b, d, p in pairs
    ]
    return markdown_table(["A - B", "difference", "95% interval", "p (Holm)", "pairs", last], rows)


def plain_differences(comparisons: Iterable[Comparison]) -> str:
    """Return the comparisons on plain accuracies as a Markdown table."""
    plain = [c for c in comparisons if c.mode == "plain"]
    return difference_table([(c.algo_a, c.algo_b, c, c.p_value_holm) for c in plain], "verdict")


MODES = (
    "Plain: each query image alone with the support set, as in supervised-reptile. Transductive: all query images of a "
    "task in one batch."
)
HOW_TO_READ = (
    "Accuracies are fractions, mean over seeds ± half-width of the 95% interval over test tasks; the spread over "
    f"seeds, which the interval does not cover, stands beside it. {MODES}"
)
HOW_TO_COMPARE = (
    "A minus B on identical test tasks, plain: paired t interval and the p-value of a sign-flip test after Holm's "
    "correction for all comparisons of this study, both test modes (the CSV has them all). They say how the models "
    "trained here compare on further tasks, not what training again with another seed would give."
)
