"""tuning.csv: every trial of every search."""

from __future__ import annotations

from bench.analysis.results import Results
from bench.analysis.tuning import TrialRow, trial_rows
from bench.report.encoding import both
from bench.report.outputs import Files, output


@output("tuning.csv", "every trial of every search of `--tune`; only where there is one", rank=6)
def tuning_csv(results: Results) -> Files:
    """Return a row per trial, nothing where nobody searched."""
    return both("tuning", trial_rows(results.searches), TrialRow.columns()) if results.searches else {}
