"""Families: the rank of each algorithm in every family of tasks, from images to control."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

from bench.records.run import Run
from bench.report.drawing.pictures import write_pictures
from bench.report.encoding import write_both
from bench.settings.config import RunConfig
from bench.studies.families.figure import draw
from bench.studies.families.members import NAME, algorithms, config, families, wanted
from bench.studies.families.tables import MeanRow, RankRow, lost, markdown, mean_rows, rank_table, ranked
from bench.studies.study import Request, Study, register_study
from bench.system.files import write_atomic
from bench.system.text import number


@register_study(NAME)
class Families(Study):
    """Trains every algorithm in every family and ranks them there."""

    summary = "the rank of each algorithm on images, sine waves and navigation, and its mean rank"
    leaves_out = True

    def datasets(self, request: Request) -> tuple[str, ...]:
        """Return the data set of every family."""
        return tuple(family.dataset for family in families(request))

    def configs(self, request: Request) -> list[RunConfig]:
        """Return the runs, all families and algorithms of a seed before the next seed."""
        return wanted(request)

    def report(self, request: Request, runs: Mapping[str, Run], out: Path) -> str:
        """Write tables and the figure, and return the ranks and where all of it is."""
        found = []
        for family in families(request):
            of = {algo: [config(request, family, algo, seed) for seed in request.seeds] for algo in algorithms(request)}
            found.append(ranked(family, of, runs))
        rows, means = [row for one in found for row in one.rows], mean_rows(found)
        write_both(out / f"{NAME}.csv", rows, RankRow.columns())
        write_both(out / "mean_ranks.csv", means, MeanRow.columns())
        pairs = [
            {"family": one.family.name, "algo_a": a, "algo_b": b, **asdict(d), "p_value_holm": p}
            for one in found
            for a, b, d, p in (one.ranking.compared if one.ranking else ())
        ]
        facts = ("diff", "ci95_low", "ci95_high", "p_value", "p_value_holm", "test_tasks", "seeds")
        write_both(out / "differences.csv", pairs, ("family", "algo_a", "algo_b", *facts))
        write_pictures(out / "plots", NAME, partial(draw, found, means))
        write_atomic(out / f"{NAME}.md", markdown(found, wanted(request), runs))
        where = f"In {out}: {NAME}.md, {NAME}.csv, mean_ranks.csv, differences.csv, plots/, runs/"
        return "\n\n".join(filter(None, (rank_table(found), lost(found), where)))

    def line(self, run: Run) -> str:
        """Return one line on a run that has just ended."""
        row = run.row
        what = f"{row.algo} on {row.dataset}, seed {row.seed}"
        if not run.ok:
            return f"{what}: {row.status}: {row.error}"
        measured = row.test_acc if row.test_error is None else row.test_error
        return f"{what}: {row.measure or 'accuracy'} {number(measured, 4)}; {number(row.train_s)} s training"
