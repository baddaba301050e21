"""What a meta-step costs: its time and peak memory against inner steps, ways, shots, meta-batch and width."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bench.records.run import Run
from bench.registry import create_algorithm
from bench.report.drawing.pictures import write_pictures
from bench.report.encoding import write_both
from bench.settings.config import RunConfig
from bench.studies.cost.figure import draw
from bench.studies.cost.points import MEMORY_STEPS, choices_of, wanted_points
from bench.studies.cost.tables import CostRow, Slope, beside, cost_rows, markdown, slope_rows, slope_table
from bench.studies.study import Request, Study, register_study
from bench.system.files import write_atomic


@register_study("cost")
class Cost(Study):
    """Varies one setting at a time around a base that is the same for all algorithms.

    ``--vary`` of a choice that an algorithm offers, ``unroll=higher,mixed,recompute`` say, measures each as a line.
    """

    measures_time = True
    summary = "step time and peak memory against inner steps, ways, shots, meta-batch and network width"

    def configs(self, request: Request) -> list[RunConfig]:
        """Return the runs round by round, and in a round all algorithms of a point before the next point."""
        configs = (config for point in wanted_points(request) for config in (point.timed, point.whole))
        return list({config.run_id: config for config in configs}.values())

    def line(self, run: Run) -> str:
        """Return one line on a run that has just ended, which says what it measured, and of which form."""
        config, row = run.details.get("config", {}), run.row
        whole = (row.meta_steps or 0) <= MEMORY_STEPS and config.get("task_chunk") == row.meta_batch
        what = "memory of the whole meta-batch" if whole else "time, in chunks as a run takes them"
        chosen, defaults = config.get("hyperparameters", {}), vars(create_algorithm(row.algo))
        form = [f"{n}={v}" for n, v in chosen.items() if n in choices_of(row.algo) and v != defaults[n]]
        return f"{super().line(run)} ({', '.join([*form, what])})"

    def report(self, request: Request, runs: Mapping[str, Run], out: Path) -> str:
        """Write cost.csv, slopes.csv, cost.md and a figure per axis, and return the slopes and where all of it is."""
        wanted = list(wanted_points(request))
        rows = cost_rows(wanted, runs)
        slopes, axes = slope_rows(rows), list(dict.fromkeys(point.axis for point in wanted))
        write_both(out / "cost.csv", rows, CostRow.columns())
        write_both(out / "slopes.csv", slopes, Slope.columns())
        for axis in axes:
            write_pictures(out / "plots", axis.name, partial(draw, axis, rows, slopes, beside(axis, wanted, runs)))
        write_atomic(out / "cost.md", markdown(wanted, axes, rows, slopes))
        missing = sum(row.rounds == 0 for row in rows)
        note = f"\n{missing} of {len(rows)} points were not measured; cost.csv says why." if missing else ""
        return f"{slope_table(slopes)}{note}\n\nIn {out}: cost.md, cost.csv, slopes.csv, plots/, runs/"
