"""Numbers and tables as people read them, in the terminal and in Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from tabulate import tabulate


def number(value: float | None, digits: int = 3) -> str:
    """Return ``value`` with about ``digits`` significant digits and no exponent; a dash if not known."""
    if value is None or not math.isfinite(value):
        return "-"
    before = math.floor(math.log10(abs(value))) + 1 if value else 1
    return f"{value:,.{min(6, max(0, digits - before))}f}"


def counted(count: int | None, noun: str) -> str:
    """Return a number with its noun, as in ``1 inner step`` or ``no inner steps``."""
    return f"{'no' if count is None else f'{count:,}'} {noun}{'s' * (count != 1)}"


def pace(rate: float | None, noun: str) -> str:
    """Return how fast something goes, so many a second, as in ``12 steps/s``, or ``5.6 s/step`` if it is slow."""
    if not rate:
        return f"? {noun}s/s"
    return f"{number(rate, 2)} {noun}s/s" if rate >= 1 else f"{number(1 / rate, 2)} s/{noun}"


def shortened(name: str, room: int) -> str:
    """Return a name in at most ``room`` letters, cut between its words where it has some."""
    if len(name) <= room:
        return name
    cut = name[: max(1, room - 2)]
    ends = [i for i in range(1, len(cut) + 1) if name[i] in "_-. "]
    return cut[: ends[-1] if ends else len(cut)] + ".."


def fraction(value: float | None) -> str:
    """Return an accuracy, or a difference or spread of accuracies; a dash if not known."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"


def plus_minus(mean: float, half: float) -> str:
    """Return an accuracy with its interval, as in ``0.9412 ± 0.0042``."""
    if not math.isfinite(mean):
        return "-"
    return f"{mean:.4f} ± {half:.4f}" if math.isfinite(half) else f"{mean:.4f}"


def escape(text: object) -> str:
    """Return text that Markdown shows as it is, on one line, in a table cell too."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*|\[\]~#]|\b_|_\b)", r"\\\1", line)


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table, its cells escaped, columns of numbers to the right."""
    cells = [[escape(cell) for cell in row] for row in rows]
    numbers = [all(re.fullmatch(r"-|[-+]?[\d.,]+(e-\d+)?( .*)?", row[i]) for row in cells) for i in range(len(headers))]
    align = ["right" if number else "left" for number in numbers]
    return str(tabulate(cells, headers, tablefmt="pipe", disable_numparse=True, colalign=align))
