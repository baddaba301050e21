"""curves.csv: validation accuracy along each run."""

from __future__ import annotations

from bench.analysis.results import Results
from bench.report.encoding import both
from bench.report.outputs import Files, output


@output("curves.csv", "validation accuracy along each run", rank=2)
def curves_csv(results: Results) -> Files:
    """Return a row per validation of every run."""
    return both("curves", results.curve_points, results.curve_columns)
