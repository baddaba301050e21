"""What a run leaves behind: the files of its folder, read and written (``columns`` holds the row)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from bench.records.columns import AdaptationPoint, CurvePoint, SummaryRow, TestTask
from bench.system.csvfile import Columns, read_rows, read_table, used_columns, write_csv
from bench.system.files import plain, write_atomic
from bench.system.untrusted import read_regular

T = TypeVar("T", bound=Columns)
Warn = Callable[[str], None]

UNSEALED, SCHEMA = 1, 2  # of run.json; the first had no seal

RUN_FILE = "run.json"
CURVE_FILE = "curve.csv"
TEST_TASKS_FILE = "test_tasks.csv"
ADAPTATION_FILE = "adaptation.csv"
EXAMPLES_FILE = "examples.npz"

log = logging.getLogger("bench")


@dataclass(frozen=True)
class Run:
    """A finished run, whatever its status; ``details`` is all of run.json but the row.

    The tables are read when first asked for. A damaged one warns once and counts as empty: the row, which run.json
    holds whole, stays in the summary.
    """

    row: SummaryRow
    details: Mapping[str, Any]
    folder: Path
    warn: Warn = log.warning

    @property
    def ok(self) -> bool:
        """Say whether the run's numbers may be compared."""
        return self.row.status == "ok"

    @property
    def sealed(self) -> bool:
        """Say whether the record would show that it was altered; those of the first schema do not."""
        return self.details.get("schema") != UNSEALED

    @cached_property
    def curve(self) -> tuple[CurvePoint, ...]:
        """Validation along the run, by meta-step."""
        return self.table(CURVE_FILE, CurvePoint)

    @cached_property
    def adaptation(self) -> tuple[AdaptationPoint, ...]:
        """Test accuracy after each inner step."""
        return self.table(ADAPTATION_FILE, AdaptationPoint)

    @cached_property
    def test_tasks(self) -> pd.DataFrame:
        """Every test task, a line each, with the columns of TestTask."""
        path = self.folder / TEST_TASKS_FILE
        try:
            self._check_unaltered(path)
            tasks = read_table(path, TestTask)
            if self.ok and self.row.test_tasks is not None and len(tasks) != self.row.test_tasks:
                raise ValueError(f"{len(tasks)} tasks, but {RUN_FILE} counts {self.row.test_tasks}")
        except (OSError, ValueError, OverflowError) as error:
            self.warn(f"{path}: ignored ({_one_line(error)})")
            return TestTask.table(())
        return tasks

    @cached_property
    def examples(self) -> bytes | None:
        """What ``bench.training.examples`` keeps of the first test tasks; None where there is nothing."""
        path = self.folder / EXAMPLES_FILE
        try:
            data = read_regular(path)
            self._check_unaltered(path)
        except FileNotFoundError:  # not damage: images that must not be copied are left out of copies
            return None
        except (OSError, ValueError) as error:
            self.warn(f"{path}: ignored ({_one_line(error)})")
            return None
        return data

    def table(self, name: str, kind: type[T]) -> tuple[T, ...]:
        """Return the lines of a table of this run; one that is damaged or was altered is empty, with a warning."""
        path = self.folder / name
        try:
            self._check_unaltered(path)
            return tuple(read_rows(path, kind))
        except (OSError, ValueError) as error:
            self.warn(f"{path}: ignored ({_one_line(error)})")
            return ()

    def _check_unaltered(self, path: Path) -> None:
        """Refuse a table that is not what was written with the record; runs of schema 1 do not know."""
        files = self.details.get("files")
        if isinstance(files, Mapping) and files.get(path.name) != _sha256(read_regular(path)):
            raise ValueError(f"not what was written: its sha256 is not the one in {RUN_FILE}")


def write_run(
    folder: Path,
    row: SummaryRow,
    details: Mapping[str, Any],
    curve: Iterable[CurvePoint],
    test_tasks: Iterable[TestTask],
    adaptation: Iterable[AdaptationPoint],
    examples: bytes | None = None,
) -> bool:
    """Record a finished run; run.json comes last, so that its presence says that all is there.

    Args:
        folder: ``OUT/runs/RUN_ID``, made if need be.
        details: what run.json holds beside the row: config, hyperparameters, environment, data, command.
        examples: the contents of examples.npz, which is written if there are any.
    Returns:
        False, with nothing written, if the folder already holds a run with status ok: nothing finished is overwritten.
    """
    if why := unusable(folder):  # of a newer version, perhaps
        aside = folder / f"{RUN_FILE}.unusable-{secrets.token_hex(4)}"
        (folder / RUN_FILE).rename(aside)
        log.warning("%s: cannot be used (%s); it is now %s", folder / RUN_FILE, why, aside)
    elif (folder / RUN_FILE).exists() and load_run(folder).ok:
        return False
    tables: dict[str, tuple[type[Columns], list[Any]]] = {
        CURVE_FILE: (CurvePoint, list(curve)),
        TEST_TASKS_FILE: (TestTask, list(test_tasks)),
        ADAPTATION_FILE: (AdaptationPoint, list(adaptation)),
    }
    for name, (kind, rows) in tables.items():
        write_csv(folder / name, rows, used_columns(kind, rows))
    if examples is not None:
        write_atomic(folder / EXAMPLES_FILE, examples)
    written = [*tables, *([EXAMPLES_FILE] if examples is not None else [])]
    files = {name: _sha256((folder / name).read_bytes()) for name in written}
    _write_record(folder, row, {**details, "files": files})
    return True


def add_tables(run: Run, tables: Mapping[str, tuple[type[Columns], Sequence[Any]]]) -> Run:
    """Write further tables of a finished run, record their hashes, and return the run as it is now.

    The record of a run of schema 1 holds no hashes and stays as it is.
    """
    for name, (kind, rows) in tables.items():
        write_csv(run.folder / name, rows, kind.columns())
    recorded = run.details.get("files")
    if not isinstance(recorded, Mapping):
        return run
    files = {name: _sha256((run.folder / name).read_bytes()) for name in tables}
    details = {**run.details, "files": {**recorded, **files}}
    _write_record(run.folder, run.row, details)
    return dataclasses.replace(run, details=details)


def rewrite_status(run: Run, status: str, error: str) -> Run:
    """Give a run that did not end well another status and error, and return it as it is now; all else stays."""
    row = dataclasses.replace(run.row, status=status, error=error)
    _write_record(run.folder, row, run.details)
    return dataclasses.replace(run, row=row)


def _write_record(folder: Path, row: SummaryRow, details: Mapping[str, Any]) -> None:
    cells = {name: getattr(row, name) for name in SummaryRow.columns()}
    record = plain({"schema": SCHEMA, "row": cells, **details})
    record["seal"] = _seal(record)
    write_atomic(folder / RUN_FILE, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def load_run(folder: Path, warn: Warn = log.warning) -> Run:
    """Return the finished run in ``folder``.

    Raises:
        OSError: no run.json that can be read.
        ValueError, RecursionError: run.json is damaged, altered, another run's, lacks a column or is of a newer schema.
    """
    record = json.loads(read_regular(folder / RUN_FILE))
    if not isinstance(record, dict) or not isinstance(record.get("row"), dict):
        raise ValueError("holds no row")
    if record.get("schema") not in (UNSEALED, SCHEMA):
        raise ValueError(f"schema is {record.get('schema')!r}; this version reads {UNSEALED} and {SCHEMA}")
    if record.pop("seal", None) != _seal(record) and record["schema"] == SCHEMA:
        raise ValueError("altered after it was written: its seal is not that of its contents")
    row = SummaryRow.parse(record.pop("row"))
    if row.run_id != folder.absolute().name:  # a copy under another name would count as that other run
        raise ValueError(f"is the record of run {row.run_id[:120]!r}, which its folder is not named after")
    return Run(row, record, folder, warn)


def unusable(folder: Path) -> str:
    """Return why the record in ``folder`` cannot be used, in one line; empty if it can, or if there is none."""
    try:
        load_run(folder)
    except FileNotFoundError:
        return f"{RUN_FILE} leads nowhere" if (folder / RUN_FILE).is_symlink() else ""
    except (OSError, ValueError, RecursionError) as error:
        return _one_line(error)
    return ""


def load_runs(out: Path, warn: Warn = log.warning) -> list[Run]:
    """Return the finished runs under ``out`` by start time, then run_id; ``warn`` gets one line per damaged file.

    Folders without run.json are runs that have not finished, and are passed over.
    """
    runs = []
    for path in sorted(out.glob(f"runs/*/{RUN_FILE}")):
        try:
            runs.append(load_run(path.parent, warn))
        except (OSError, ValueError, RecursionError) as error:
            warn(f"{path}: ignored ({_one_line(error)})")
    return sorted(runs, key=lambda run: (run.row.started_at, run.row.run_id))


def _seal(record: Mapping[str, Any]) -> str:
    return _sha256(json.dumps(record, sort_keys=True).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
