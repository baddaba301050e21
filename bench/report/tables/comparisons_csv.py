"""comparisons.csv: paired differences between algorithms, with intervals and p-values over tasks and over seeds."""

from __future__ import annotations

from bench.analysis.results import Results
from bench.report.encoding import both
from bench.report.outputs import Files, output


@output(
    "comparisons.csv",
    "paired differences between algorithms, with intervals and p-values over tasks and over seeds",
    rank=3,
)
def comparisons_csv(results: Results) -> Files:
    """Return a row per pair of arms and test mode."""
    return both("comparisons", results.comparisons, results.comparison_columns)
