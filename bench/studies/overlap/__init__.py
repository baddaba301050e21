"""Minibatch overlap: what becomes of first-order MAML when its last minibatch is one it has learnt from already."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bench.analysis.comparison import Comparison
from bench.records.run import Run
from bench.report.drawing.pictures import write_pictures
from bench.report.encoding import write_both
from bench.studies.arms.cells import ArmStudy
from bench.studies.arms.tables import CellRow, cell_rows, differences, missing
from bench.studies.overlap.cells import AXES, NAME, by_point, wanted_cells
from bench.studies.overlap.figure import draw
from bench.studies.overlap.page import axis_table, markdown
from bench.studies.study import Request, register_study
from bench.system.files import write_atomic


@register_study(NAME)
class Overlap(ArmStudy):
    """Reptile and first-order MAML with a last minibatch that overlaps the others or does not."""

    summary = "first-order MAML with a separate or shared last minibatch, beside Reptile (Reptile paper, section 6.3)"
    cells = staticmethod(wanted_cells)

    def report(self, request: Request, runs: Mapping[str, Run], out: Path) -> str:
        """Write tables and the figure, and return the tables and where all of it is."""
        wanted = self.cells(request)
        rows, points = cell_rows(wanted, runs), by_point(wanted)
        axes = [axis for axis in AXES if any(row.axis == axis.name for row in rows)]
        pairs = dict(zip(points, differences(points.values(), runs)))
        write_both(out / f"{NAME}.csv", rows, CellRow.columns())
        compared = [
            {"axis": axis, "value": value, **{name: getattr(c, name) for name in Comparison.COLUMNS}}
            for (axis, value), comparisons in pairs.items()
            for c in comparisons
        ]
        write_both(out / "differences.csv", compared, ("axis", "value", *Comparison.COLUMNS))
        write_pictures(out / "plots", NAME, partial(draw, axes, wanted, rows))
        write_atomic(out / f"{NAME}.md", markdown(axes, wanted, rows, pairs, runs))
        where = f"In {out}: {NAME}.md, {NAME}.csv, differences.csv, plots/, runs/"
        tables = (axis_table(axis, rows) for axis in axes)
        return "\n\n".join(filter(None, (*tables, missing(rows), where)))
