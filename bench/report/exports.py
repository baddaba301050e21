"""Tables for other tools: JSON beside a CSV file, and the comparison as a table for LaTeX."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path

from bench.analysis.comparison import Arm, Comparison, by_setting
from bench.system.files import write_atomic, write_csv
from bench.system.text import number

LATEX_FILE = "summary.tex"


def write_both(path: Path, rows: Iterable[object], columns: Sequence[str]) -> None:
    """Write rows to the CSV file ``path``, and to a JSON file beside it, each in one step.

    Raises:
        OSError: a file cannot be written.
    """
    kept = list(rows)
    write_csv(path, kept, columns)
    write_atomic(path.with_suffix(".json"), as_json(kept, columns))


def as_json(rows: Iterable[object], columns: Sequence[str]) -> str:
    """Return a list of objects, one a line, in strict JSON: what is not known or not finite is null."""
    cells = [{c: _cell(row[c] if isinstance(row, Mapping) else getattr(row, c)) for c in columns} for row in rows]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in cells)
    return f"[\n{lines}\n]\n" if lines else "[]\n"


def _cell(value: object) -> object:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    return str(value)


def leader(
    arms: Sequence[Arm], comparisons: Sequence[Comparison], mode: str, test: Callable[[Comparison], bool]
) -> str:
    """Return the label of the arm of one setting that is better than each of the others, empty if there is none.

    Args:
        test: says whether a comparison shows a difference.
    """
    setting, labels = arms[0].setting, {arm.label for arm in arms if arm.ok}
    beaten: dict[str, set[str]] = {label: set() for label in labels}
    for c in comparisons:
        if c.setting == setting and c.mode == mode and test(c):
            better, worse = (c.algo_a, c.algo_b) if c.diff > 0 else (c.algo_b, c.algo_a)
            beaten.setdefault(better, set()).add(worse)
    return next((label for label in labels if len(labels) > 1 and labels - {label} <= beaten[label]), "")


_TITLE = 80
"""Characters of a setting's name in one line of the table, which is no wider without it."""

_LATEX_HEAD = """\
% Test accuracy, mean over seeds, \\pm half-width of its 95% interval over test tasks; times are means over seeds,
% memory is the largest. Bold: better than every other line of its setting, by the test over tasks and the test over
% seeds, both corrected (Holm), and with all seeds agreeing; with one seed nothing is bold. Details: summary.md.
% In the preamble: \\usepackage{booktabs}
"""


def latex(arms: Sequence[Arm], comparisons: Sequence[Comparison]) -> str:
    """Return the comparison as a ``tabular`` in the manner of booktabs, a group of lines per setting."""
    lines = [_LATEX_HEAD + r"\begin{tabular}{lrllrrr}", r"\toprule"]
    headers = ("Algorithm", "Seeds", "Plain", "Transductive", "Training (s)", "Step (ms)", "Memory (MiB)")
    lines.append(_line(headers))
    compared = [arm for arm in arms if arm.ok]
    for _, members in by_setting(compared):
        measure = "" if members[0].measure == "accuracy" else f", {members[0].measure}"
        title = f"{members[0].setting.dataset}, {members[0].setting.protocol}: {members[0].place}{measure}"
        lines.append(r"\midrule")
        lines += [rf"\multicolumn{{7}}{{l}}{{{escape(part)}}} \\" for part in textwrap.wrap(title, _TITLE)]
        best = {mode: leader(members, comparisons, mode, lambda c: c.settled) for mode in members[0].tested}
        for arm in members:
            scores = [_score(arm, column, arm.label == best[mode]) for mode, column in arm.tested.items()]
            costs = [number(arm.mean("train_s")), number(arm.mean("step_ms_median"))]
            costs.append(number(max(arm.values("peak_mem_mib"), default=None)))
            lines.append(_line([escape(arm.label), str(len(arm.ok)), *scores, *costs]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


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
