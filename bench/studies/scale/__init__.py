"""Scale: accuracy and cost against training classes, width and network, at equal training seconds."""

from collections.abc import Mapping
from functools import partial
from itertools import groupby
from pathlib import Path

from bench.analysis.comparison import Comparison
from bench.records.run import Run
from bench.report.drawing.pictures import write_pictures
from bench.report.encoding import write_both
from bench.settings.config import RunConfig
from bench.studies.arms.tables import differences
from bench.studies.scale.cells import AXES, NAME, TIMED_STEPS, seconds_of, sized, wanted_points
from bench.studies.scale.figure import draw
from bench.studies.scale.tables import ScaleRow, axis_table, lost, markdown, scale_rows
from bench.studies.study import Request, Study, register_study
from bench.system.files import write_atomic
from bench.system.text import number


@register_study(NAME)
class Scale(Study):
    """Times a step of every point, and trains for as many steps as fit into the same seconds."""

    measures_time = True
    summary = "accuracy and cost against training classes, network width and network, at equal training seconds"

    def configs(self, request: Request) -> list[RunConfig]:
        """Return the runs that time a meta-step of every point."""
        configs = (config for point in wanted_points(request) for config in point.cell.configs[:1])
        return list({config.run_id: config for config in configs}.values())

    def further(self, request: Request, runs: Mapping[str, Run]) -> list[RunConfig]:
        """Return the runs that train, seed by seed."""
        cells = [cell for point in wanted_points(request) if (cell := sized(request, point, runs)) is not None]
        by_seed = zip(*(cell.configs for cell in cells))
        return list({config.run_id: config for group in by_seed for config in group}.values())

    def report(self, request: Request, runs: Mapping[str, Run], out: Path) -> str:
        """Write tables and a figure per axis, and return the accuracies and where all of it is."""
        points = wanted_points(request)
        cells = [sized(request, point, runs) for point in points]
        rows = scale_rows(points, cells, seconds_of(request), request.classes.get(request.dataset), runs)
        write_both(out / f"{NAME}.csv", rows, ScaleRow.columns())
        there = [cell for cell in cells if cell is not None]
        groups = {point: list(of) for point, of in groupby(there, lambda cell: (cell.axis, str(cell.value)))}
        pairs = dict(zip(groups, differences(groups.values(), runs)))
        compared = [
            {"axis": axis, "value": value, **{name: getattr(c, name) for name in Comparison.COLUMNS}}
            for (axis, value), comparisons in pairs.items()
            for c in comparisons
        ]
        write_both(out / "differences.csv", compared, ("axis", "value", *Comparison.COLUMNS))
        axes = [axis for axis in AXES if any(row.axis == axis.name for row in rows)]
        for axis in axes:
            write_pictures(out / "plots", axis.name, partial(draw, axis, rows))
        write_atomic(out / f"{NAME}.md", markdown(points, rows, pairs, runs))
        where = f"In {out}: {NAME}.md, {NAME}.csv, differences.csv, plots/, runs/"
        return "\n\n".join(filter(None, (*(axis_table(axis, rows) for axis in axes), lost(rows), where)))

    def line(self, run: Run) -> str:
        """Return one line on a run that has just ended."""
        row = run.row
        classes = run.details.get("config", {}).get("train_classes") or "all"
        what = f"{row.algo}, {row.backbone}, {classes} training classes, seed {row.seed}"
        if not run.ok:
            return f"{what}: {row.status}: {row.error}"
        step = f"{number(row.step_ms_median)} ms a step"
        if row.meta_steps == TIMED_STEPS:
            return f"{what}: {step}"
        return f"{what}: {number(row.test_acc, 4)} plain, {row.meta_steps:,} steps in {number(row.train_s)} s, {step}"
