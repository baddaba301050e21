"""Finished runs as a pandas frame in which every column has the type that an analysis wants."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from bench.records.columns import SummaryRow
from bench.records.run import load_runs

CATEGORIES = (
    *("algo", "dataset", "protocol", "backbone", "device", "device_name", "inner_optimizer", "meta_optimizer"),
    *("status", "train_rotation", "test_rotation", "data_pipeline", "precision", "step_mode", "kernels", "measure"),
)
"""Columns of few values."""


def load_results(out: Path | str) -> pd.DataFrame:
    """Return the runs under ``out``, a line each: the columns of summary.csv and ``ok``, in the order of starting.

    Types: ``Int64`` for whole numbers, ``float64``, ``category`` for CATEGORIES, ``datetime64`` in UTC for
    ``started_at``, ``bool`` for ``ok`` (only then may the numbers be compared) and ``string`` for all others. What is
    not known is NA, NaN or NaT; columns that older runs lack are there. Records that are damaged or were altered are
    left out, with a warning in the log ``bench``.

    Raises:
        NotADirectoryError: ``out`` is no folder. Of one without runs the table is empty.
    """
    if not Path(out).is_dir():
        raise NotADirectoryError(f"{str(out)!r} is no folder; accepted: what --out was given")
    return frame_of(run.row for run in load_runs(Path(out)))


def frame_of(rows: Iterable[SummaryRow]) -> pd.DataFrame:
    """Return rows as ``load_results`` does."""
    table = SummaryRow.table(rows)
    started = pd.to_datetime(table["started_at"], format="ISO8601", utc=True, errors="coerce")
    table["started_at"] = started.astype("datetime64[us, UTC]")
    for name in CATEGORIES:
        table[name] = table[name].astype(object).astype("category")
    table["ok"] = (table["status"] == "ok").astype(bool)
    return table
