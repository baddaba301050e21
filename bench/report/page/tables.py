"""Tables of report.html that sort: a line per arm, a line per run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.analysis.arms import Arm
from bench.analysis.naming import short_places
from bench.analysis.results import Results
from bench.records.run import Run
from bench.report.repeat import repeat_command
from bench.report.words.parts import modes
from bench.system.text import counted, fraction, number, plus_minus


@dataclass(frozen=True)
class Cell:
    """A cell of a sortable table: what it shows, what it is sorted by, and whether it wins its setting."""

    text: str
    order: float | str | None = None
    wins: bool = False


def result_rows(results: Results) -> list[list[Cell]]:
    """Return a row per arm with finished runs, in the columns of ``result_headers``; the winner's scores are marked."""
    rows, arms = [], results.compared
    named = short_places(arm.setting for arm in arms)  # in full above the verdicts
    devices = {_device(arm) for arm in arms}  # the only one of a page is named under "Cost" and "Environment"
    for arm in arms:
        scores = []
        for mode, column in arm.tested.items():
            outcome = results.outcome(arm, mode)
            wins = outcome is not None and outcome.winner == arm.label
            scores.append(Cell(plus_minus(arm.mean(column), arm.ci95(column)), arm.mean(column), wins))
        peak = max(arm.values("peak_mem_mib"), default=math.nan)
        costs = [Cell(number(v), v) for v in (arm.mean("train_s"), arm.mean("step_ms_median"), peak)]
        statuses = [run.row.status for run in arm.runs if not run.ok]
        notes = [f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses)]
        notes += [f"timed beside {counted(arm.beside, 'other run')}"] * bool(arm.beside)
        notes += [f"timed beside others' work on {arm.load:.1f} cores"] * bool(arm.load)
        spread = arm.sd(arm.tested["plain"])
        before = arm.mean(f"{arm.tested['plain'].removeprefix('test_')}_before_adaptation")
        tasks = sum(arm.values("test_tasks"))
        rows.append(
            [
                Cell(arm.label),
                *scores,
                Cell(
                    named[arm.setting] if len(named) > 1 else "",
                    f"{arm.setting.data} {arm.setting.n_way:05} {arm.setting.k_shot:05} {arm.setting.shift}",
                ),
                Cell(str(len(arm.ok)), float(len(arm.ok))),
                Cell(fraction(spread), spread),
                Cell(fraction(before), before),
                Cell(f"{tasks:,.0f}", tasks),
                *costs,
                Cell(_device(arm) if len(devices) > 1 else ""),
                Cell(", ".join(notes)),
            ]
        )
    return rows


def _device(arm: Arm) -> str:
    row = next(iter(arm.ok.values())).row
    return row.device_name or row.device


def result_headers(arms: Sequence[Arm]) -> list[str]:
    """Return the columns of ``result_rows``; test modes are named after the measure where it is not accuracy."""
    named = list(dict.fromkeys(header for arm in arms for header in modes(arm)))
    plain, transductive = named if len(named) == 2 else ("plain", "transductive")
    start = ["algorithm", plain, transductive, "setting", "seeds", "sd over seeds (plain)", "unadapted"]
    return [*start, "test tasks", "train s", "step ms", "peak MiB", "device", "note"]


def filled(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> tuple[list[str], list[list[Cell]]]:
    """Return the columns that say something in at least one row."""
    kept = [i for i in range(len(headers)) if any(row[i].text not in ("", "-") for row in rows)]
    return [headers[i] for i in kept], [[row[i] for i in kept] for row in rows]


RUN_HEADERS = (
    *("algorithm", "setting", "seed", "status", "plain", "transductive", "train s", "step ms", "peak MiB"),
    *("tasks seen", "started", "commit", "command", "run"),
)


def run_cells(run: Run) -> tuple[list[Cell], str, str | None]:
    """Return the cells of a run but for the last two, why it is not ok, and the command that repeats it."""
    r = run.row
    kind = "test_error" if r.test_error is not None else "test_acc"
    scores = [getattr(r, f"{kind}{part}") for part in ("", "_transductive")]
    cells = [Cell(r.algo), Cell(r.setting, f"{r.n_way:05} {r.k_shot:05} {r.setting}")]
    unit = f" {r.measure}" if kind == "test_error" and r.measure else ""
    told = (Cell(fraction(score) + unit * (score is not None), score) for score in scores)
    cells += [Cell(str(r.seed), float(r.seed)), Cell(r.status), *told]
    cells += [Cell(number(v), v) for v in (r.train_s, r.step_ms_median, r.peak_mem_mib)]
    cells.append(Cell("-" if r.tasks_seen is None else f"{r.tasks_seen:,}", r.tasks_seen))
    cells += [Cell(r.started_at[:19].replace("T", " ")), Cell((r.git_commit or "-")[:12])]
    return cells, " ".join((r.error or "").split()), repeat_command(run)
