"""A report under ``--out``: the runs are read once, Results are made of them once, and every output is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

from bench.analysis.results import Results, load
from bench.api import BenchError
from bench.records.run import Run
from bench.report.drawing.pictures import FOLDER as PLOTS
from bench.report.drawing.pictures import remove_further_pages
from bench.report.outputs import Output, outputs
from bench.report.page.study import study_page
from bench.system.files import write_atomic
from bench.system.locks import tables_turn
from bench.system.untrusted import check_inside


def write_report(out: Path, needs_runs: bool = False) -> Results:
    """Rebuild every output under ``out`` from ``out/runs``, each file in one step, and return what they were made of.

    Works with any number of finished runs, none included. Damaged files are left out, with one line each in the log,
    in summary.md and in ``problems``. Processes that want this take turns, so that what is there in the end holds all
    runs.

    Raises:
        BenchError: there is no finished run, where ``needs_runs``.
        OSError: a file cannot be written, or its folder is a link.
    """
    check_inside(out, ["locks", *dict.fromkeys(one.folder for one in outputs() if one.folder)])
    with tables_turn(out):
        results = load(out)
        if needs_runs and not results.runs:
            raise BenchError(f"--report: no finished run under {str(out)!r}; --out takes the folder of earlier runs")
        for one in outputs():
            if one.when == "always":
                put(out, one, results)
        return results


def put(out: Path, one: Output, results: Results) -> None:
    """Write the files of one output."""
    files = one.files(results)
    check_inside(out, sorted({str(folder) for path in files for folder in PurePath(path).parents} - {"."}))
    for path, content in files.items():
        write_atomic(out / path, content)
    if one.folder == PLOTS:
        remove_further_pages(out / PLOTS, one.name.rpartition("/")[2], [p.removeprefix(f"{PLOTS}/") for p in files])


def shown(results: Results) -> list[str]:
    """Return what a command prints at its end."""
    return [text.decode() for one in outputs() if one.when == "shown" for text in one.files(results).values()]


def write_study_page(out: Path, name: str, runs: Sequence[Run]) -> bool:
    """Write report.html beside the tables of a study, from its ``NAME.md`` and ``plots/``; False if there is no such.

    Raises:
        OSError: a file cannot be read or written, or the folder of plots is a link.
    """
    check_inside(out, (PLOTS,))
    source = out / f"{name}.md"
    if not source.is_file():
        return False
    pictures = {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.glob(f"{PLOTS}/*.png"))}
    write_atomic(out / "report.html", study_page(source.read_text(encoding="utf-8"), source.name, pictures, runs))
    return True
