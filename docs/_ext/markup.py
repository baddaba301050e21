"""Pieces of Markdown that generated pages are made of."""

import math
import re
from collections.abc import Iterable, Sequence


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; a cell that is None or no number is a dash."""
    lines = [list(headers), ["---"] * len(headers), *([cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def cell(value: object) -> str:
    """Return a value as the text of a cell."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return str(value).replace("|", "\\|").replace("\n", " ").replace(" ± ", "\u00a0±\u00a0")


def stacked(markdown: str) -> str:
    """Return a table whose cells stand one below the other where the screen is narrow."""
    return f":::{{container}} stacked\n{markdown}:::\n"


def code(text: object) -> str:
    """Return text as inline code."""
    return f"`{text}`"


def prose(docstring: str) -> str:
    """Return a docstring's words as Markdown: its double backticks are single ones."""
    return docstring.replace("``", "`")


def linked(reference: str) -> str:
    """Return a reference with its arXiv numbers and DOIs as links."""
    text = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", reference)
    return re.sub(r"doi:(10\.\S+?)(?=[;,]?(?:\s|$))", r"[doi:\1](https://doi.org/\1)", text)


def below(depth: int, markdown: str) -> str:
    """Return Markdown with every heading ``depth`` levels lower."""
    fenced, lines = False, []
    for line in markdown.splitlines():
        fenced ^= line.lstrip().startswith("```")
        lines.append("#" * depth + line if re.match(r"#+ ", line) and not fenced else line)
    return "\n".join(lines) + "\n"
