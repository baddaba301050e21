"""Everything under ``--out`` that is derived from the runs: tables, plots, summary; and the table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.analysis.anchors import ANCHOR_COLUMNS, beside, load_anchors
from bench.analysis.comparison import Comparison, arms, by_setting, compare
from bench.analysis.time_to_accuracy import Reached, time_to_accuracy
from bench.records.run import CurvePoint, Run, SummaryRow, load_runs, log
from bench.report.drawing.pictures import write_pictures
from bench.report.exports import LATEX_FILE, as_json, latex, write_both
from bench.report.page.html import page, study_page
from bench.report.plots import FIGURES, shown_in
from bench.report.summary import summary
from bench.system.files import used_columns, write_atomic, write_table
from bench.system.locks import tables_turn
from bench.system.untrusted import check_inside


@dataclass(frozen=True)
class ReportFiles:
    """Where a report was written, and the warnings about what had to be left out of it."""

    summary_csv: Path
    curves_csv: Path
    comparisons_csv: Path
    time_to_accuracy_csv: Path
    anchors_csv: Path
    summary_md: Path
    report_html: Path
    plots: tuple[Path, ...]
    warnings: tuple[str, ...]


def write_report(out: Path) -> ReportFiles:
    """Rebuild the tables, plots, summary.md and report.html under ``out`` from ``out/runs``, each file in one step.

    Works with any number of finished runs, none included. Damaged files are left out, with one line each in the log,
    in summary.md and in what is returned. Processes that want this take turns, so that what is there in the end holds
    all runs.

    Raises:
        OSError: a file cannot be written, or its folder is a link.
    """
    check_inside(out, ("locks", "plots", "plots/slides"))
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
    write_atomic(out / "summary.json", as_json((run.row for run in runs), SummaryRow.columns()))
    points = used_columns(CurvePoint, (point for run in runs for point in run.curve))
    write_both(files["curves_csv"], named, ("run_id", "algo", "seed", *points))
    write_both(files["comparisons_csv"], comparisons, Comparison.COLUMNS)
    write_both(files["time_to_accuracy_csv"], time_to_accuracy(runs), Reached.columns())
    write_both(files["anchors_csv"], (line.cells for line in lines), ANCHOR_COLUMNS)
    write_atomic(out / LATEX_FILE, latex(grouped, comparisons))
    plots = tuple(
        path
        for name, draw in FIGURES.items()
        if (shown := shown_in(name, grouped)) or not grouped
        for path in write_pictures(out / "plots", name, partial(draw, shown), len(by_setting(a for a in shown if a.ok)))
    )
    text = summary(runs, grouped, comparisons, lines, [path.relative_to(out).as_posix() for path in plots], problems)
    write_atomic(out / "summary.md", text)
    # last: tables come first
    write_atomic(out / "report.html", page(runs, grouped, comparisons, lines, problems, warn))
    written = {"summary_md": out / "summary.md", "report_html": out / "report.html"}
    return ReportFiles(**files, **written, plots=plots, warnings=tuple(problems))


def write_study_page(out: Path, name: str, runs: Sequence[Run]) -> bool:
    """Write report.html beside the tables of a study, from its ``NAME.md`` and ``plots/``; False if there is no such.

    Raises:
        OSError: a file cannot be read or written, or the folder of plots is a link.
    """
    check_inside(out, ("plots",))
    source = out / f"{name}.md"
    if not source.is_file():
        return False
    pictures = {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.glob("plots/*.png"))}
    write_atomic(out / "report.html", study_page(source.read_text(encoding="utf-8"), source.name, pictures, runs))
    return True
