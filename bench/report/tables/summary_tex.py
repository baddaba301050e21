"""summary.tex: the comparison as a table for LaTeX, in the manner of booktabs."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable

from bench.analysis.arms import Arm, by_setting
from bench.analysis.results import Results
from bench.report.outputs import Files, output
from bench.system.text import number

_TITLE = 80
"""Characters of a setting's name in one line of the table, which is no wider without it."""


_LATEX_HEAD = """\
% Test accuracy, mean over seeds, \\pm half-width of its 95% interval over test tasks; times are means over seeds,
% memory is the largest. Bold: better than every other line of its setting, by the test over tasks and the test over
% seeds, both corrected (Holm), and with all seeds agreeing; with one seed nothing is bold. Details: summary.md.
% In the preamble: \\usepackage{booktabs}
"""


@output(
    "summary.tex", 'the comparison for LaTeX (booktabs); bold only where a verdict says "better" without a word more'
)
def summary_tex(results: Results) -> Files:
    """Return a ``tabular`` with a group of lines per setting."""
    lines = [_LATEX_HEAD + r"\begin{tabular}{lrllrrr}", r"\toprule"]
    headers = ("Algorithm", "Seeds", "Plain", "Transductive", "Training (s)", "Step (ms)", "Memory (MiB)")
    lines.append(_line(headers))
    for _, members in by_setting(results.compared):
        measure = "" if members[0].measure == "accuracy" else f", {members[0].measure}"
        title = f"{members[0].setting.data}, {members[0].setting.protocol}: {members[0].place}{measure}"
        lines.append(r"\midrule")
        lines += [rf"\multicolumn{{7}}{{l}}{{{escape(part)}}} \\" for part in textwrap.wrap(title, _TITLE)]
        outcomes = {mode: results.outcome(members[0], mode) for mode in members[0].tested}
        best = {mode: o.winner for mode, o in outcomes.items() if o is not None and o.settled}
        for arm in members:
            scores = [_score(arm, column, arm.label == best.get(mode)) for mode, column in arm.tested.items()]
            costs = [number(arm.mean("train_s")), number(arm.mean("step_ms_median"))]
            costs.append(number(max(arm.values("peak_mem_mib"), default=None)))
            lines.append(_line([escape(arm.label), str(len(arm.ok)), *scores, *costs]))
    return {"summary.tex": "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""]).encode()}


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _score(arm: Arm, column: str, bold: bool) -> str:
    mean, half = arm.mean(column), arm.ci95(column)
    if not math.isfinite(mean):
        return "--"
    text = rf"\mathbf{{{mean:.4f}}}" if bold else f"{mean:.4f}"
    return rf"${text} \pm {half:.4f}$" if math.isfinite(half) else f"${text}$"


_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
}


def escape(text: str) -> str:
    """Return text that LaTeX prints as it is, on one line; what is no printable ASCII becomes a question mark."""
    line = " ".join(text.split())
    return "".join(_LATEX.get(c, c if " " <= c <= "~" else "?") for c in line)
