"""Sine waves before and after adaptation: the regression of the MAML and Reptile papers, beside joint training."""

import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bench.api import BenchError
from bench.records.run import Run
from bench.report.drawing.pictures import write_pictures
from bench.report.encoding import write_both
from bench.settings.config import RunConfig
from bench.settings.protocols import read_presets
from bench.studies.sine.figures import error_figure, functions_figure
from bench.studies.sine.follow import gather
from bench.studies.sine.tables import SineRow, error_table, markdown, sine_rows
from bench.studies.study import Request, Study, register_study
from bench.system.files import write_atomic
from bench.system.text import number

SETTINGS = tomllib.loads(Path(__file__).with_name("settings.toml").read_text(encoding="utf-8"))
"""The study's algorithms, the settings of their runs, and notes on where these differ from the papers."""


@register_study("sine")
class Sine(Study):
    """Trains every algorithm on the same waves and follows it through 32 steps on some points of new ones."""

    summary = "sine waves before and after adaptation, by Reptile, first-order and full MAML and joint training"
    dataset = "sine"

    def configs(self, request: Request) -> list[RunConfig]:
        """Return the runs, all algorithms of a seed before the next seed.

        Raises:
            BenchError: something to vary, or a list where one value fits.
        """
        if request.vary:
            raise BenchError(f"--vary {next(iter(request.vary))}: study sine varies nothing but --seeds")
        request.check_single("sine", ", and several --seeds")
        base, presets = {"n_way": 1, "k_shot": 10}, read_presets(SETTINGS)
        return [
            request.config("sine", algo, seed, base, presets=presets)
            for seed in request.seeds
            for algo in request.algos or SETTINGS["algos"]
        ]

    def report(self, request: Request, runs: Mapping[str, Run], out: Path) -> str:
        """Write sine.csv, sine.md and two figures, and return the errors and where all of it is."""
        wanted = self.configs(request)
        found, missing = gather(wanted, runs)
        rows = sine_rows(found)
        write_both(out / "sine.csv", rows, SineRow.columns())
        write_pictures(out / "plots", "curves", partial(functions_figure, found))
        write_pictures(out / "plots", "mse", partial(error_figure, rows))
        write_atomic(out / "sine.md", markdown(found, rows, missing, SETTINGS["notes"]))
        note = f"\n{len(missing)} of {len(wanted)} runs are missing: {', '.join(missing)}." if missing else ""
        return f"{error_table(rows)}{note}\n\nIn {out}: sine.md, sine.csv, plots/, runs/"

    def line(self, run: Run) -> str:
        """Return one line on a run that has just ended."""
        row = run.row
        if not run.ok:
            return f"{row.algo} seed {row.seed}: {row.status}: {row.error}"
        error = f"mse {number(row.error_before_adaptation)} before, {number(row.test_error)} after adaptation"
        return f"{row.algo} seed {row.seed}: {error}; {number(row.train_s)} s training"
