"""Shift: what each algorithm loses where test tasks are not like those of training."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bench.records.run import Run
from bench.report.drawing.pictures import write_pictures
from bench.report.encoding import write_both
from bench.runs.runner import FollowUp
from bench.settings.config import RunConfig
from bench.studies.shift.figure import draw
from bench.studies.shift.losses import LossDifference, LossRow, losses
from bench.studies.shift.page import markdown, strongest_table
from bench.studies.shift.retest import follow_up
from bench.studies.shift.shifts import NAME, families, wanted_runs, wanted_shifts
from bench.studies.study import Request, Study, register_study
from bench.system.files import write_atomic


@register_study(NAME)
class DistributionShift(Study):
    """Trains every algorithm once for each seed, and tests its weights under every shift."""

    summary = (
        "accuracy lost on corrupted images, other ways and shots, another data set; trained once, tested under all"
    )

    def configs(self, request: Request) -> list[RunConfig]:
        """Return the runs to be trained, all algorithms of a seed before the next seed."""
        configs = wanted_runs(request)
        wanted_shifts(request, configs[0])  # what is wrong with them comes before the data
        return configs

    def follow_up(self, request: Request) -> FollowUp:
        """Return the tests under every shift."""
        shifts = wanted_shifts(request, wanted_runs(request)[0])
        return follow_up([shift.fields for shift in shifts])

    def report(self, request: Request, runs: Mapping[str, Run], out: Path) -> str:
        """Write tables, shift.md and a figure per family, and return what is lost at the end of each."""
        configs = wanted_runs(request)
        shifts = wanted_shifts(request, configs[0])
        known = families(configs[0])
        found = losses(configs, shifts, {name: family.unshifted for name, family in known.items()}, runs)
        by_family = {
            name: (known[name], [row for row in found.rows if row.family == name and row.mode == "plain"])
            for name in dict.fromkeys(shift.family for shift in shifts)
        }
        write_both(out / f"{NAME}.csv", found.rows, LossRow.columns())
        write_both(out / "differences.csv", found.differences, LossDifference.columns())
        for name, (family, rows) in by_family.items():
            write_pictures(out / "plots", name, partial(draw, family, rows))
        write_atomic(out / f"{NAME}.md", markdown(configs, by_family, found, runs))
        lost = len(found.missing)
        note = f"\n{lost} results are missing; {NAME}.md names them." if lost else ""
        where = f"In {out}: {NAME}.md, {NAME}.csv, differences.csv, plots/, runs/"
        return f"{strongest_table(by_family)}{note}\n\n{where}"

    def line(self, run: Run) -> str:
        """Return one line on a run that has just ended."""
        row = run.row
        if not run.ok or row.test_acc is None:
            return f"{row.algo} seed {row.seed}: {row.status}: {row.error}"
        return f"{row.algo} {row.setting} seed {row.seed}: {row.test_acc:.4f} plain without a shift"
