"""Everything under ``--out`` that is derived from the runs: tables, plots, summary; and the table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tabulate import tabulate

from bench.anchors import ANCHOR_COLUMNS, beside, load_anchors
from bench.comparison import Arm, Comparison, arms, by_setting, compare
from bench.files import used_columns, write_atomic, write_csv, write_table
from bench.locks import tables_turn
from bench.plots import FIGURES, write_pictures
from bench.records import CurvePoint, Run, SummaryRow, load_runs, log
from bench.summary import modes, summary
from bench.text import heading, number, plus_minus
from bench.time_to_accuracy import Reached, time_to_accuracy

WIDTH = 100


@dataclass(frozen=True)
class ReportFiles:
    """Where a report was written, and the warnings about what had to be left out of it."""

    summary_csv: Path
    curves_csv: Path
    comparisons_csv: Path
    time_to_accuracy_csv: Path
    anchors_csv: Path
    summary_md: Path
    plots: tuple[Path, ...]
    warnings: tuple[str, ...]


def write_report(out: Path) -> ReportFiles:
    """Rebuild the tables, plots and summary.md under ``out`` from ``out/runs``, each file in one step.

    Works with any number of finished runs, none included. Damaged files are left out, with one line each in the log,
    in summary.md and in what is returned. Processes that want this take turns, so that what is there in the end holds
    all runs.

    Raises:
        OSError: a file cannot be written.
    """
    with tables_turn(out):
        return _write_report(out)


def _write_report(out: Path) -> ReportFiles:
    problems: list[str] = []

    def warn(line: str) -> None:
        log.warning(line)
        problems.append(line)

    runs = load_runs(out, warn)
    grouped = arms(runs)
    comparisons = compare(grouped)
    lines = beside(load_anchors(), grouped)
    names = ("summary", "curves", "comparisons", "time_to_accuracy", "anchors")
    files = {f"{name}_csv": out / f"{name}.csv" for name in names}
    named = ({"run_id": r.row.run_id, "algo": r.row.algo, "seed": r.row.seed} | vars(p) for r in runs for p in r.curve)
    write_table(files["summary_csv"], SummaryRow.table(run.row for run in runs))
    points = used_columns(CurvePoint, (point for run in runs for point in run.curve))
    write_csv(files["curves_csv"], named, ("run_id", "algo", "seed", *points))
    write_csv(files["comparisons_csv"], comparisons, Comparison.COLUMNS)
    write_csv(files["time_to_accuracy_csv"], time_to_accuracy(runs), Reached.columns())
    write_csv(files["anchors_csv"], (line.cells for line in lines), ANCHOR_COLUMNS)
    plots = tuple(write_pictures(out / "plots", name, partial(draw, grouped)) for name, draw in FIGURES.items())
    text = summary(runs, grouped, comparisons, lines, [path.relative_to(out).as_posix() for path in plots], problems)
    write_atomic(out / "summary.md", text)
    return ReportFiles(**files, summary_md=out / "summary.md", plots=plots, warnings=tuple(problems))


def comparison_table(runs: Sequence[Run]) -> str:
    """Return the table for the terminal, at most 100 columns wide: one line per algorithm and setting.

    Accuracies are means over seeds ± the half-width of the 95% interval over tasks; train and step times are means
    over seeds and memory the largest; ``note`` counts the runs that are not ok, by status, and says beside how many
    other runs times were measured.
    """
    grouped = arms(runs)
    if not grouped:
        return "no finished run"
    blocks = []
    for title in dict.fromkeys(heading([arm.setting]) for arm in grouped):
        members = [arm for _, group in by_setting(grouped) for arm in group if heading([arm.setting]) == title]
        blocks.append(f"{title}\n{_fitted(members)}")
    return "\n\n".join(blocks)


def _fitted(members: Sequence[Arm]) -> str:
    headers = ["algorithm", "setting", "seeds", *modes(members[0]), "train s", "step ms", "MiB", "note"]
    rows = [
        [
            arm.label,
            arm.place,
            str(len(arm.ok)),
            *(plus_minus(arm.mean(column), arm.ci95(column)) for column in arm.tested.values()),
            number(arm.mean("train_s")),
            number(arm.mean("step_ms_median")),
            number(max(arm.values("peak_mem_mib"), default=None)),
            _note(arm),
        ]
        for arm in members
    ]
    if not any(row[-1] for row in rows):
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    widths = [max(len(cells[i]) for cells in [headers, *rows]) for i in range(len(headers))]
    flexible = [0, 1] + [8] * (len(headers) == 9)  # columns of words, which may be broken into lines
    while sum(widths) + 2 * (len(widths) - 1) > WIDTH and any(widths[i] > len(headers[i]) for i in flexible):
        widths[max(flexible, key=lambda i: widths[i] - len(headers[i]))] -= 1
    limits = [widths[i] if i in flexible else None for i in range(len(widths))]
    align = ["left", "left", "right", "left", "left", "right", "right", "right", "left"][: len(headers)]
    # As rows, because tabulate makes every column two wider than its header.
    lines = [headers, ["-" * width for width in widths], *rows]
    table = tabulate(lines, tablefmt="plain", disable_numparse=True, colalign=align, maxcolwidths=limits)
    return "\n".join(line.rstrip() for line in str(table).splitlines())


def _note(arm: Arm) -> str:
    statuses = [run.row.status for run in arm.runs if not run.ok]
    notes = [f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses)]
    return ", ".join([*notes, *([f"beside {max(others):.0f}"] if any(others := arm.values("beside")) else [])])
