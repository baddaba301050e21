"""time_to_accuracy.csv: when each run first reached 0.90, 0.95, 0.97 and 0.98 in validation, or that it did not."""

from __future__ import annotations

from bench.analysis.results import Results
from bench.analysis.time_to_accuracy import Reached
from bench.report.encoding import both
from bench.report.outputs import Files, output


@output(
    "time_to_accuracy.csv",
    "when each run first reached 0.90, 0.95, 0.97 and 0.98 in validation, or that it did not",
    rank=4,
)
def time_to_accuracy_csv(results: Results) -> Files:
    """Return a row per run and accuracy."""
    return both("time_to_accuracy", results.reached, Reached.columns())
