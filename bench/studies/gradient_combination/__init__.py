"""Gradient combinations: which inner-loop gradients make a good meta-gradient (Nichol et al. 2018, section 6.2)."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

from bench.analysis.comparison import Comparison
from bench.records.columns import CurvePoint
from bench.records.run import Run
from bench.report.drawing.pictures import write_pictures
from bench.report.encoding import write_both
from bench.studies.arms.cells import ArmStudy, arm_of
from bench.studies.arms.tables import CellRow, cell_rows, differences, missing
from bench.studies.gradient_combination.combinations import NAME, wanted_cells
from bench.studies.gradient_combination.figure import draw
from bench.studies.gradient_combination.page import markdown, result_table
from bench.studies.study import Request, register_study
from bench.system.files import write_atomic


@register_study(NAME)
class GradientCombination(ArmStudy):
    """Steps along the first, the last or the mean of k inner gradients."""

    summary = "joint training, Reptile and first-order MAML as combinations of inner gradients (Reptile, section 6.2)"
    cells = staticmethod(wanted_cells)

    def report(self, request: Request, runs: Mapping[str, Run], out: Path) -> str:
        """Write tables, curves and the figure, and return the table of results and where all of it is."""
        wanted = self.cells(request)
        rows, (pairs,) = cell_rows(wanted, runs), differences([wanted], runs)
        arms = [arm for cell in wanted if (arm := arm_of(cell, runs)) is not None]
        write_both(out / f"{NAME}.csv", rows, CellRow.columns())
        curves = [
            {"arm": arm.label, "seed": seed, **asdict(point)}
            for arm in arms
            for seed, run in arm.ok.items()
            for point in run.curve
        ]
        write_both(out / "curves.csv", curves, ("arm", "seed", *CurvePoint.columns()))
        write_both(out / "differences.csv", pairs, Comparison.COLUMNS)
        write_pictures(out / "plots", NAME, partial(draw, arms))
        write_atomic(out / f"{NAME}.md", markdown(wanted, rows, pairs, runs))
        where = f"In {out}: {NAME}.md, {NAME}.csv, curves.csv, differences.csv, plots/, runs/"
        return "\n\n".join(filter(None, (result_table(rows), missing(rows), where)))
