"""Files written whole or not at all, and rows whose CSV reads back what was written, to the last bit."""

from __future__ import annotations

import csv
import functools
import io
import math
import os
import re
import secrets
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T", bound="Columns")

# A spreadsheet runs cells that begin like this; with more apostrophes in front, so that reading can undo it.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


class Columns:
    """A row whose dataclass fields, in order, are the columns of a file."""

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Return the names of the columns in their order."""
        return tuple(_columns(cls))  # type: ignore[arg-type]  # mypy takes the cached class for its instances

    @classmethod
    def parse(cls: type[T], cells: Mapping[str, Any]) -> T:
        """Return the row that ``cells`` holds, as text or as values; further cells are ignored.

        Raises:
            ValueError: a column is missing, or its cell is not of the column's type.
        """
        values: dict[str, Any] = {}
        for name, (kind, optional) in _columns(cls).items():  # type: ignore[arg-type]
            if name not in cells:
                raise ValueError(f"column {name!r} is missing")
            try:
                values[name] = None if optional and cells[name] in (None, "") else _converted(kind, cells[name])
            except (TypeError, ValueError, OverflowError):
                raise ValueError(f"{name} is {str(cells[name])[:60]!r}, which is no {kind.__name__}") from None
        return cls(**values)


@functools.cache
def _columns(cls: type[Columns]) -> dict[str, tuple[type, bool]]:
    """Return type and whether it may be empty, by column."""
    hints = typing.get_type_hints(cls)
    found = {}
    for field in fields(cls):  # type: ignore[arg-type]  # only dataclasses derive from Columns
        either = typing.get_args(hints[field.name])  # of "int | None"; nothing for "int"
        found[field.name] = (either[0] if either else hints[field.name], bool(either))
    return found


def _converted(kind: type, cell: Any) -> Any:
    if cell is None:
        raise ValueError
    value = kind(cell)
    if kind is int and not isinstance(cell, str) and value != cell:
        raise ValueError  # 2.5 steps are damage, not 2 steps
    return value


def write_atomic(path: Path, content: str | bytes) -> None:
    """Put ``content`` at ``path`` in one step: readers see the old file or the whole new one, never a part.

    The folder is made if need be. Any number of processes may write the same path at once; the last one wins.

    Raises:
        OSError: the file cannot be written; what was there before stays and no temporary file is left.
    """
    # Broken file names reach us as lone surrogates, which UTF-8 cannot hold; they must not cost a run its record.
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:  # not tempfile: its files are unreadable for the rest of the group
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_csv(path: Path, rows: Iterable[object], columns: Sequence[str]) -> None:
    """Write ``rows`` (mappings, or objects with attributes named like ``columns``) in one step.

    None is an empty cell, floats have all their digits, and text that a spreadsheet would run as a formula gets an
    apostrophe in front.
    """
    lines = [",".join(columns)]
    for row in rows:
        values = (row[name] if isinstance(row, Mapping) else getattr(row, name) for name in columns)
        lines.append(",".join(map(_cell, values)))
    write_atomic(path, "\n".join(lines) + "\n")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_ | Integral):
        return str(int(value))
    if isinstance(value, Real):
        return repr(float(value))
    text = str(value)
    text = "'" + text if _FORMULA.match(text) else text
    # Not csv.writer, which before Python 3.13 leaves a lone carriage return unquoted, and cannot read that back.
    return '"' + text.replace('"', '""') + '"' if re.search('[",\r\n]', text) else text


def read_rows(path: Path, kind: type[T]) -> list[T]:
    """Return the rows of a CSV file as ``kind``; None for an empty cell where the column allows it.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not UTF-8, is cut short, lacks a column or holds a cell of another type; says where.
    """
    header, body = csv_lines(path, kind.columns())
    reader = csv.reader(io.StringIO(body, newline=""), strict=True)
    rows = []
    try:
        for cells in reader:
            if len(cells) != len(header):
                raise ValueError(f"{len(cells)} cells under {len(header)} columns")
            restored = (cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell for cell in cells)
            rows.append(kind.parse(dict(zip(header, restored))))
    except (csv.Error, ValueError) as error:
        raise ValueError(f"line {reader.line_num + 1}: {error}") from None
    return rows


def csv_lines(path: Path, columns: Sequence[str]) -> tuple[list[str], str]:
    """Return the header's cells and the text below it.

    Raises:
        OSError, ValueError: as ``read_rows``.
    """
    text = to_text(path.read_bytes())
    if not text.endswith("\n"):
        raise ValueError("empty" if not text else "cut short: no newline at the end")
    first, _, body = text.partition("\n")
    header = first.split(",")
    missing = [name for name in columns if name not in header]
    if missing:
        raise ValueError(f"column {missing[0]!r} is missing")
    return header, body


def to_text(data: bytes) -> str:
    """Decode UTF-8; a ValueError otherwise, without the data in its message."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None


def plain(value: Any) -> Any:
    """Return ``value`` made of what JSON can hold; NaN and infinities, which it cannot, become text like 'nan'."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else str(float(value))
    return str(value)
