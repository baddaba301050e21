"""The comparison as a table for the terminal, as wide as that is, with what is best in colour."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Collection, Mapping, Sequence

from bench.analysis.arms import Arm, by_setting
from bench.analysis.naming import heading
from bench.analysis.outcomes import published_sentences
from bench.analysis.results import Results
from bench.report.outputs import Files, output
from bench.report.words.parts import modes
from bench.report.words.settings import cautions
from bench.system.console import folded, in_colour, styled, width
from bench.system.files import utf8
from bench.system.start import as_shown
from bench.system.text import number, plus_minus

_RIGHT = (1, 4, 5, 6)  # columns of numbers


@output("terminal", "the comparison as a table, and its verdicts, where the command was given", when="shown")
def terminal(results: Results) -> Files:
    """Return what is printed at the end of a command, in colour where stdout shows it."""
    return {"terminal": utf8(comparison_table(results, in_colour(sys.stdout)))}


def comparison_table(results: Results, colour: bool = False) -> str:
    """Return the table for the terminal, as wide as that is and at most 100 columns: a line per algorithm and setting.

    Accuracies are means over seeds ± the half-width of the 95% interval over tasks; train and step times are means
    over seeds and memory the largest; ``note`` counts the runs that are not ok, by status, and says beside how many
    other runs and what other work times were measured. In colour, the winner of a setting stands out
    (``Outcome.winner``). The verdicts follow in words.
    """
    grouped = results.arms
    if not grouped:
        return "no finished run"
    blocks = [folded(text) for text in cautions(grouped)]
    for title in dict.fromkeys(heading([arm.setting]) for arm in grouped):
        members = [arm for _, group in by_setting(grouped) for arm in group if heading([arm.setting]) == title]
        best = _best(members, results) if colour else {}
        blocks.append(f"{title}\n{_fitted(members, best)}")
    if any(arm.beside for arm in grouped):
        blocks.append("beside N: timed while up to N other runs were under way on this machine")
    if any(arm.load for arm in grouped):
        blocks.append("load N: timed while others used up to N cores of this machine on average")
    told = [f"{outcome.place}, {outcome.mode}: {' '.join(outcome.sentences)}" for outcome in results.outcomes]
    told += published_sentences(results.published)
    blocks += [folded(sentence) for sentence in told]
    return "\n\n".join(blocks)


def _best(members: Sequence[Arm], results: Results) -> dict[str, set[int]]:
    """Return which lines stand out, by test mode."""
    found: dict[str, set[int]] = {}
    for i, arm in enumerate(members):
        for mode in arm.tested:
            outcome = results.outcome(arm, mode)
            if outcome is not None and outcome.winner == arm.label:
                found.setdefault(mode, set()).add(i)
    return found


def _fitted(members: Sequence[Arm], best: Mapping[str, set[int]]) -> str:
    headers = ["algorithm", "seeds", *modes(members[0]), "train s", "step ms", "MiB", "note"]
    rows = [
        [
            arm.label,
            str(len(arm.ok)),
            *(as_shown(plus_minus(arm.mean(column), arm.ci95(column))) for column in arm.tested.values()),
            number(arm.mean("train_s")),
            number(arm.mean("step_ms_median")),
            number(max(arm.values("peak_mem_mib"), default=None)),
            _note(arm),
        ]
        for arm in members
    ]
    if not any(row[-1] for row in rows):
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    widths = _widths([headers, *rows])
    lines = [*_lines(headers, widths), "  ".join("-" * w for w in widths)]
    for i, (arm, row) in enumerate(zip(members, rows)):
        if i == 0 or arm.setting != members[i - 1].setting:
            lines.append(folded(f"{arm.place}:", ""))
        if max(map(len, row[0].split())) > widths[0]:  # a name is never broken within a word
            lines.append(folded(row[0]))
            row = ["", *row[1:]]
        lines += _lines(row, widths, {2 + k for k, mode in enumerate(arm.tested) if i in best.get(mode, ())})
    return "\n".join(lines)


def _lines(cells: Sequence[str], widths: Sequence[int], best: Collection[int] = ()) -> list[str]:
    """Return a row as the lines that it takes, words to the left and numbers to the right."""
    lines = []
    broken = (textwrap.wrap(cell, w, break_long_words=False, break_on_hyphens=False) for cell, w in zip(cells, widths))
    wrapped = [pieces or [""] for pieces in broken]
    for pieces in itertools.zip_longest(*wrapped, fillvalue=""):
        line = ""
        for i, (piece, w) in enumerate(zip(pieces, widths)):
            pad, text = " " * (w - len(piece)), styled(piece, "best") if i in best and piece else piece
            line += ("  " if i else "") + (pad + text if i in _RIGHT else text + pad)
        lines.append(line.rstrip())
    return lines


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the widths of the columns: where a line would be too long, first words, then numbers are broken."""
    columns = list(zip(*rows))
    widths = [max(map(len, column)) for column in columns]
    words = [max(len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    note = {7: max(8, words[7])} if len(widths) == 8 else {}
    stages = (
        {0: 20, **note},
        {4: words[4], 5: words[5]},
        {0: 9, **note},
        {2: words[2] + 2, 3: words[3]},
        {6: words[6]},
    )
    for least in stages:
        while sum(widths) + 2 * (len(widths) - 1) > width() and any(widths[i] > least[i] for i in least):
            widths[max(least, key=lambda i: widths[i] - least[i])] -= 1
    return widths


def _note(arm: Arm) -> str:
    statuses = [run.row.status for run in arm.runs if not run.ok]
    notes = [f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses)]
    notes += [f"beside {arm.beside}"] * bool(arm.beside) + [f"load {arm.load:.1f}"] * bool(arm.load)
    return ", ".join(notes)
