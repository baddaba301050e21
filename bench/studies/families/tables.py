"""families.csv, mean_ranks.csv and families.md: what was measured in every family, and the ranks that follow."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.analysis.arms import Arm
from bench.analysis.statistics import Floats
from bench.records.run import Run
from bench.settings.config import RunConfig
from bench.settings.protocols import chosen_for
from bench.studies.arms.cells import Cell, StudyArm, arm_of
from bench.studies.arms.tables import difference_table, held_fixed
from bench.studies.families.members import NAME, Family
from bench.studies.families.ranks import Rank, Ranking, mean_rank, rank
from bench.studies.study import run_of
from bench.system.csvfile import Columns
from bench.system.text import counted, markdown_table, number


@dataclass(frozen=True, kw_only=True)
class RankRow(Columns):
    """An algorithm in a family; None where it has no finished run, or none on a seed that the others have.

    ``measured`` is the mean over seeds of what the data set measures, plain, and ``rank_low`` to ``rank_high`` the 95%
    interval of ranks. ``status`` is that of the first run that is not ok.
    """

    family: str
    dataset: str
    algo: str
    measure: str | None = None
    measured: float | None = None
    measured_ci95: float | None = None
    rank: float | None = None
    rank_low: float | None = None
    rank_high: float | None = None
    seeds: int = 0
    test_tasks: int = 0
    backbone: str
    meta_steps: int
    meta_batch: int
    train_s: float | None = None
    status: str
    run_ids: str


@dataclass(frozen=True)
class MeanRow(Columns):
    """The mean rank of an algorithm over the ``families`` in which it has one."""

    algo: str
    mean_rank: float | None
    mean_rank_low: float | None
    mean_rank_high: float | None
    families: int


@dataclass(frozen=True)
class Ranked:
    """A family with its rows, one for each algorithm, and its ranking; None where fewer than two can be compared."""

    family: Family
    rows: tuple[RankRow, ...]
    ranking: Ranking | None


def ranked(family: Family, configs: Mapping[str, Sequence[RunConfig]], runs: Mapping[str, Run]) -> Ranked:
    """Return a family's results from the runs that are there; ``configs`` are those wanted, by algorithm."""
    found = {
        algo: arm_of(Cell(StudyArm(algo, algo, algo, {}), tuple(wanted)), runs) for algo, wanted in configs.items()
    }
    arms = {algo: arm for algo, arm in found.items() if arm is not None and _measures(arm)}
    seeds = Counter(seed for arm in arms.values() for seed in _measures(arm))
    if seeds:  # those that lack the seed that most have cannot be compared with them
        (usual, _), *_ = seeds.most_common(1)
        arms = {algo: arm for algo, arm in arms.items() if usual in _measures(arm)}
    less = any(arm.tested["plain"] == "test_error" for arm in arms.values())
    ranking = rank({algo: _measures(arm) for algo, arm in arms.items()}, less) if len(arms) > 1 else None
    rows = [
        _row(family, wanted, found[algo], ranking.ranks.get(algo) if ranking else None, runs)
        for algo, wanted in configs.items()
    ]
    return Ranked(family, tuple(rows), ranking)


def _row(
    family: Family, wanted: Sequence[RunConfig], arm: Arm | None, placed: Rank | None, runs: Mapping[str, Run]
) -> RankRow:
    config, here = wanted[0], [run_of(config, runs) for config in wanted]
    known: dict[str, Any] = {}
    if arm is not None and arm.ok:
        column = arm.tested["plain"]
        known = {"measure": arm.measure, "measured": arm.mean(column), "measured_ci95": arm.ci95(column)}
        known |= {
            "seeds": len(arm.ok),
            "test_tasks": int(sum(arm.values("test_tasks"))),
            "train_s": arm.mean("train_s"),
        }
    if placed is not None:
        known |= {"rank": placed.rank, "rank_low": placed.low, "rank_high": placed.high}
    status = next(("not run" if run is None else run.row.status for run in here if run is None or not run.ok), "ok")
    row = RankRow(
        family=family.name,
        dataset=config.dataset,
        algo=config.algo,
        backbone=config.network,
        meta_steps=config.meta_steps,
        meta_batch=config.meta_batch,
        status=status,
        run_ids=" ".join(run.row.run_id for run in here if run is not None),
    )
    return replace(row, **known)


def _measures(arm: Arm) -> dict[int, Floats]:
    """Return the plain measure of every test task by seed, of the runs that have recorded it whole."""
    column = arm.tested["plain"].removeprefix("test_")
    found = {seed: run.test_tasks[column].to_numpy(dtype=float) for seed, run in arm.ok.items()}
    return {seed: values for seed, values in found.items() if len(values) and np.isfinite(values).all()}


def mean_rows(families: Sequence[Ranked]) -> list[MeanRow]:
    """Return the mean rank of every algorithm, the best first and those without one last."""
    rankings = [one.ranking for one in families if one.ranking is not None]
    rows = []
    for algo in dict.fromkeys(row.algo for one in families for row in one.rows):
        mean = mean_rank(rankings, algo)
        count = sum(algo in ranking.ranks for ranking in rankings)
        rows.append(
            MeanRow(algo, *(None,) * 3, count) if mean is None else MeanRow(algo, mean.rank, mean.low, mean.high, count)
        )
    return sorted(rows, key=lambda row: (row.mean_rank is None, row.mean_rank or 0.0))


def rank_table(families: Sequence[Ranked]) -> str:
    """Return the ranks by algorithm and family as a Markdown table, the best mean rank first."""
    place = {(one.family.name, row.algo): row for one in families for row in one.rows}

    def cell(rank: float | None, low: float | None, high: float | None) -> str:
        return "-" if rank is None else f"{rank:.3g} ({low:.3g} to {high:.3g})"

    lines = []
    for mean in mean_rows(families):
        rows = [place[one.family.name, mean.algo] for one in families]
        cells = [cell(row.rank, row.rank_low, row.rank_high) for row in rows]
        said = cell(mean.mean_rank, mean.mean_rank_low, mean.mean_rank_high)
        if mean.mean_rank is not None and mean.families < len(families):
            said += f", of {mean.families}"
        lines.append([mean.algo, *cells, said])
    return markdown_table(["algorithm", *(_title(one) for one in families), "mean rank"], lines)


def _title(one: Ranked) -> str:
    dataset = one.rows[0].dataset if one.rows else one.family.dataset
    return one.family.name if one.family.name == dataset else f"{one.family.name} ({dataset})"


def measured_table(one: Ranked) -> str:
    """Return what was measured in a family as a Markdown table."""
    lines = []
    for row in one.rows:
        known = row.measured is not None
        score = f"{number(row.measured)} ± {number(row.measured_ci95, 2)}" if known else row.status
        lines.append([row.algo, score, row.seeds or "-", f"{row.test_tasks:,}" if known else "-", number(row.train_s)])
    measure = next((row.measure for row in one.rows if row.measure), "measure")
    return markdown_table(["algorithm", measure, "seeds", "test tasks", "training s"], lines)


def lost(families: Sequence[Ranked]) -> str:
    """Say which algorithms have no result where, empty if all have one."""
    missing = [
        f"{row.algo} on {row.dataset} ({row.status})" for one in families for row in one.rows if row.status != "ok"
    ]
    return f"{counted(len(missing), 'result')} missing or on fewer seeds: {', '.join(missing)}." if missing else ""


def markdown(families: Sequence[Ranked], configs: Sequence[RunConfig], runs: Mapping[str, Run]) -> str:
    """Return families.md: ranks, what they rest on, and the differences."""
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(config.seed for config in configs))
    rows = [row for one in families for row in one.rows]
    budgets = [
        f"{_title(one)}: {one.family.shape['n_way']}-way {one.family.shape['k_shot']}-shot, network {first.backbone}, "
        f"{first.meta_steps:,} meta-steps of {counted(first.meta_batch, 'task')}. {chosen_for(one.family.presets)}"
        for one in families
        for first in one.rows[:1]
    ]
    parts = [
        "# Ranks in every family of tasks",
        "Each algorithm trains anew in each family, on the same tasks as the others. Rank 1 is the best.",
        rank_table(families),
        "A rank is 1, plus one for each algorithm that is significantly better, plus a half for each that it cannot be "
        "told from: sign-flip test on identical test tasks, Holm's correction within the family, 5%. In brackets, the "
        "95% interval of plain ranks when seeds and test tasks are drawn again; with one seed, tasks alone. The mean "
        "rank takes the families as they are. A dash: no result.",
        f"![ranks](plots/{NAME}.png)",
        lost(families),
        "## What was measured",
        "Plain: each query example alone with the support set. ± is the half-width of a 95% interval over test tasks. "
        "Of errors and negative returns less is better.",
    ]
    for one in families:
        parts += [f"**{_title(one)}**", measured_table(one)]
    parts += ["## Differences", "A minus B, above zero where A is better, on identical test tasks."]
    for one in families:
        if one.ranking is not None:
            parts += [f"**{_title(one)}**", difference_table(one.ranking.compared, "seeds")]
    parts += ["## Settings", held_fixed([*budgets, f"Seeds {seeds}."], rows, runs)]
    return "\n\n".join(filter(None, parts)) + "\n"
