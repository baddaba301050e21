"""Rows whose CSV reads back what was written, to the last bit."""

from __future__ import annotations

import csv
import functools
import io
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import pandas as pd

from bench.system.files import write_atomic
from bench.system.untrusted import read_regular

T = TypeVar("T", bound="Columns")


# A spreadsheet runs cells that begin like this; with more apostrophes in front, so that reading can undo it.
_FORMULA = r"'*[=+\-@\t\r]"


_DTYPES = {str: "string[python]", int: "Int64", float: "float64"}  # Arrow's strings refuse broken characters


class Columns:
    """A row whose dataclass fields, in order, are the columns of a file."""

    __dataclass_fields__: ClassVar[dict[str, Any]]  # what every class derived from this one has

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Return the names of the columns in their order."""
        return tuple(_columns(cls))

    @classmethod
    def parse(cls: type[T], cells: Mapping[str, Any]) -> T:
        """Return the row that ``cells`` holds, as text or as values; further cells are ignored.

        Raises:
            ValueError: a column is missing that was always there, or its cell is not of the column's type.
        """
        values: dict[str, Any] = {}
        later = later_columns(cls)
        for name, (kind, optional) in _columns(cls).items():
            if name not in cells and name in later:
                continue
            if name not in cells:
                raise ValueError(f"column {name!r} is missing")
            try:
                values[name] = None if optional and cells[name] in (None, "") else _converted(kind, cells[name])
            except (TypeError, ValueError, OverflowError):
                raise ValueError(f"{name} is {str(cells[name])[:60]!r}, which is no {kind.__name__}") from None
        return cls(**values)

    @classmethod
    def table(cls, rows: Iterable[Columns]) -> pd.DataFrame:
        """Return ``rows`` as a table: nullable strings and integers, and floats that are NaN where not known."""
        dtypes = {name: _DTYPES[kind] for name, (kind, _) in _columns(cls).items()}
        return pd.DataFrame([vars(row) for row in rows], columns=list(dtypes), dtype=object).astype(dtypes)


def _columns(cls: type[Columns]) -> dict[str, tuple[type, bool]]:
    """Return type and whether it may be empty, by column."""
    row: type = cls  # of ``type[Columns]`` mypy thinks that it has the hash of its instances, which have none
    return _columns_of(row)


@functools.cache
def _columns_of(cls: type) -> dict[str, tuple[type, bool]]:
    hints = typing.get_type_hints(cls)
    found = {}
    for f in fields(cls):
        either = typing.get_args(hints[f.name])  # of "int | None"; nothing for "int"
        found[f.name] = (either[0] if either else hints[f.name], bool(either))
    return found


def later_column() -> Any:
    """Return the field of a column that files of an earlier version may lack; it is None there."""
    return field(default=None, metadata={"later": True})


def later_columns(cls: type[Columns]) -> frozenset[str]:
    """Return the names of the columns that files of an earlier version may lack."""
    return frozenset(f.name for f in fields(cls) if f.metadata.get("later"))


def used_columns(kind: type[Columns], rows: Iterable[Columns]) -> list[str]:
    """Return the columns of ``rows`` but for those of later versions that hold nothing."""
    rows = list(rows)
    unused = {name for name in later_columns(kind) if all(getattr(row, name) is None for row in rows)}
    return [name for name in kind.columns() if name not in unused]


def _converted(kind: type, cell: Any) -> Any:
    if cell is None:
        raise ValueError
    value = kind(cell)
    if kind is int and (abs(value) >= 2**63 or (not isinstance(cell, str) and value != cell)):
        raise ValueError  # 2.5 steps are damage, not 2 steps, and so is what 64 bits cannot hold
    return value


def write_csv(path: Path, rows: Iterable[object], columns: Sequence[str]) -> None:
    """Write ``rows`` as ``csv_text`` returns them, in one step."""
    write_atomic(path, csv_text(rows, columns))


def csv_text(rows: Iterable[object], columns: Sequence[str]) -> str:
    """Return ``rows`` (mappings, or objects with attributes named like ``columns``) as CSV.

    None is an empty cell, floats have all their digits, and text that a spreadsheet would run as a formula gets an
    apostrophe in front.
    """
    cells = [[_cell(row[c] if isinstance(row, Mapping) else getattr(row, c)) for c in columns] for row in rows]
    return table_text(pd.DataFrame(cells, columns=list(columns), dtype=object))


def table_text(table: pd.DataFrame) -> str:
    """Return ``table`` without its index as CSV; every missing value is an empty cell."""
    table = table.replace(rf"\A(?={_FORMULA})", "'", regex=True)
    text = table.to_csv(index=False, lineterminator="\n")
    if "\r" in text:  # which to_csv does not take for a reason to quote a cell before Python 3.13
        text = table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_ALL)
    return text


def _cell(value: object) -> object:
    """Return numbers as Python's own, and NaN, which pandas would take for a missing value, as text."""
    if isinstance(value, bool | np.bool_ | Integral):
        return int(value)
    if isinstance(value, Real):
        return "nan" if math.isnan(value) else float(value)
    return value


def read_rows(path: Path, kind: type[T]) -> list[T]:
    """Return the rows of a CSV file as ``kind``; None for an empty cell where the column allows it.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not UTF-8, is cut short, lacks a column or holds a cell of another type; says where.
    """
    options: Any = {"header": None, "dtype": object, "keep_default_na": False, "skip_blank_lines": False}
    cells = pd.read_csv(_whole(path), engine="python", **options)  # the C engine takes a missing cell for an empty one
    header, *lines = cells.replace(rf"\A'(?={_FORMULA})", "", regex=True).to_numpy().tolist()
    for name in kind.columns():
        if name not in header and name not in later_columns(kind):
            raise ValueError(f"column {name!r} is missing")
    rows = []
    for number, line in enumerate(lines, 2):
        try:
            if not all(isinstance(cell, str) for cell in line):
                raise ValueError(f"fewer than {len(header)} cells")
            rows.append(kind.parse(dict(zip(header, line))))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    return rows


def read_table(path: Path, kind: type[Columns]) -> pd.DataFrame:
    """Return what ``read_rows`` would as a table, for a ``kind`` of numbers only that are all known; much faster.

    Raises:
        OSError, ValueError: as ``read_rows``.
        OverflowError: an integer of more than 64 bits.
    """
    types = {name: number for name, (number, _) in _columns(kind).items()}
    table = pd.read_csv(_whole(path), usecols=types.__contains__, dtype=types, keep_default_na=False, na_values=["nan"])
    if lacking := [name for name in types if name not in table and name not in later_columns(kind)]:
        raise ValueError(f"column {lacking[0]!r} is missing")
    return table.reindex(columns=list(types))


def _whole(path: Path) -> io.BytesIO:
    data = read_regular(path)
    if not data.endswith(b"\n"):
        raise ValueError("cut short: no newline at the end" if data else "empty")
    return io.BytesIO(data)
