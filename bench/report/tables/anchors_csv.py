"""anchors.csv: published values beside ours with verdicts, for runs of `paper` on Omniglot."""

from __future__ import annotations

from bench.analysis.published import ANCHOR_COLUMNS
from bench.analysis.results import Results
from bench.report.encoding import both
from bench.report.outputs import Files, output


@output("anchors.csv", "published values beside ours with verdicts, for runs of `paper` on Omniglot", rank=5)
def anchors_csv(results: Results) -> Files:
    """Return a row per published value and arm of ours."""
    return both("anchors", (line.cells for line in results.published), ANCHOR_COLUMNS)
