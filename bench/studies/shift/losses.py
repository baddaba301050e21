"""What every algorithm loses under every shift, and how these losses compare, from the records of the runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.analysis.statistics import holm, paired_comparison
from bench.records.columns import MODES
from bench.records.intervals import mean_ci95
from bench.records.run import Run
from bench.settings.config import RunConfig
from bench.studies.shift.retest import measured
from bench.studies.shift.shifts import Shift
from bench.studies.study import run_of
from bench.system.csvfile import Columns

BySeed = dict[int, NDArray[np.float64]]
"""Accuracy of every test task ``[tasks]``, by seed."""


@dataclass(frozen=True)
class LossRow(Columns):
    """The accuracy of an algorithm under a shift and what it loses against its own test; means over seeds.

    The run's own test has a row in every family, which loses nothing.
    """

    family: str
    value: str
    algo: str
    mode: str
    acc: float
    acc_ci95: float
    lost: float
    lost_ci95_low: float
    lost_ci95_high: float
    test_tasks: int
    seeds: int


@dataclass(frozen=True)
class LossDifference(Columns):
    """What algorithm a loses less what b loses, paired by the number of the task and the seed."""

    family: str
    value: str
    algo_a: str
    algo_b: str
    mode: str
    diff: float
    ci95_low: float
    ci95_high: float
    p_value: float
    p_value_holm: float
    test_tasks: int
    seeds: int


@dataclass(frozen=True)
class Losses:
    """Rows, differences, and in words what is missing."""

    rows: list[LossRow]
    differences: list[LossDifference]
    missing: list[str]


def losses(
    configs: Sequence[RunConfig], shifts: Sequence[Shift], own: Mapping[str, float | str], runs: Mapping[str, Run]
) -> Losses:
    """Return what follows from the runs that have finished.

    Args:
        own: where a run's own test stands on the axis of each family.
    """
    algos = list(dict.fromkeys(config.algo for config in configs))
    found = {algo: [run for c in configs if c.algo == algo and (run := run_of(c, runs)) and run.ok] for algo in algos}
    after = {run.row.run_id: measured(run) for members in found.values() for run in members}
    rows: list[LossRow] = []
    drawn: list[LossDifference] = []
    missing = [f"{algo} (no finished run)" for algo in algos if not found[algo]]
    for mode, column in MODES.items():
        clean = {algo: {run.row.seed: _own(run, column) for run in members} for algo, members in found.items()}
        for family in dict.fromkeys(shift.family for shift in shifts):
            of_family = [shift for shift in shifts if shift.family == family]
            for algo, by_seed in clean.items():
                if by_seed:
                    rows.append(_row(family, own[family], algo, mode, by_seed, by_seed))
            for shift in of_family:
                lost: dict[str, BySeed] = {}
                for algo, members in found.items():
                    place = list(MODES).index(mode)
                    there = {run.row.seed: _under(shift, after[run.row.run_id], place) for run in members}
                    known = {seed: x for seed, x in there.items() if len(x) and np.isfinite(x).all()}
                    if not known:
                        missing += [f"{algo} under {shift.test}"] * bool(members and mode == "plain")
                        continue
                    before = {seed: clean[algo][seed] for seed in known}
                    rows.append(_row(family, shift.value, algo, mode, before, known))
                    lost[algo] = {seed: before[seed] - known[seed] for seed in known}
                drawn += _pairs(family, shift.value, mode, lost)
    corrected = holm([d.p_value for d in drawn])
    return Losses(rows, [_with(d, p) for d, p in zip(drawn, corrected)], missing)


def _own(run: Run, column: str) -> NDArray[np.float64]:
    return run.test_tasks[column].to_numpy(dtype=np.float64)


def _under(shift: Shift, tests: Mapping[str, Mapping[int, tuple[float, float]]], place: int) -> NDArray[np.float64]:
    by_task = tests.get(shift.test, {})
    return np.array([by_task[task][place] for task in sorted(by_task)], dtype=np.float64)


def _row(family: str, value: float | str, algo: str, mode: str, before: BySeed, then: BySeed) -> LossRow:
    scores = [mean_ci95(x) for x in then.values()]
    mean = sum(score[0] for score in scores) / len(scores)
    half = math.hypot(*(score[1] for score in scores)) / len(scores)
    d = paired_comparison(before, then)
    tasks = sum(map(len, then.values()))
    return LossRow(family, str(value), algo, mode, mean, half, d.diff, d.ci95_low, d.ci95_high, tasks, len(then))


def _pairs(family: str, value: float | str, mode: str, lost: Mapping[str, BySeed]) -> list[LossDifference]:
    """Return every pair of algorithms; their losses are paired, for both faced the same tasks without and with it."""
    found = []
    for a, b in itertools.combinations(lost, 2):
        if lost[a].keys() & lost[b].keys():
            d = paired_comparison(lost[a], lost[b])
            p = d.p_value
            facts = (d.diff, d.ci95_low, d.ci95_high, p, p, d.test_tasks, d.seeds)
            found.append(LossDifference(family, str(value), a, b, mode, *facts))
    return found


def _with(difference: LossDifference, p_value_holm: float) -> LossDifference:
    return LossDifference(**{**vars(difference), "p_value_holm": p_value_holm})
