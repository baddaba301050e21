"""Tables for programs: CSV with JSON beside it, from the same rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path

from bench.system.csvfile import csv_text
from bench.system.files import utf8, write_atomic


def both(name: str, rows: Iterable[object], columns: Sequence[str]) -> dict[str, bytes]:
    """Return ``name.csv`` and ``name.json`` of rows: mappings, or objects with attributes named like ``columns``."""
    kept = list(rows)
    return {f"{name}.csv": utf8(csv_text(kept, columns)), f"{name}.json": utf8(as_json(kept, columns))}


def write_both(path: Path, rows: Iterable[object], columns: Sequence[str]) -> None:
    """Write rows to the CSV file ``path``, and to a JSON file beside it, each in one step.

    Raises:
        OSError: a file cannot be written.
    """
    for name, content in both(path.stem, rows, columns).items():
        write_atomic(path.with_name(name), content)


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
