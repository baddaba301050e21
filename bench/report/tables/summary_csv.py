"""summary.csv: one row per run: setting, accuracies, times, memory, hashes, versions."""

from __future__ import annotations

from bench.analysis.results import Results
from bench.records.columns import SummaryRow
from bench.report.encoding import both
from bench.report.outputs import Files, output


@output("summary.csv", "one row per run: setting, accuracies, times, memory, hashes, versions", rank=1)
def summary_csv(results: Results) -> Files:
    """Return a row per run."""
    return both("summary", (run.row for run in results.runs), SummaryRow.columns())
