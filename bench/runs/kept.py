"""Which runs that lie there are kept, and what becomes of those that are not."""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path

from bench.records.run import RUN_FILE, Run, load_run, log, unusable
from bench.system.files import write_atomic
from bench.system.untrusted import read_regular
from bench.training.checkpoint import CHECKPOINT_FILE

FINISHED = ("ok", "leaking")
"""Statuses after which nothing is left to do."""


def recorded(folder: Path) -> Run | None:
    """Return the run in ``folder``, however it ended; None if there is no record that can be read."""
    try:
        return load_run(folder)
    except (OSError, ValueError, RecursionError):
        return None


def finished(folder: Path, data_sha256: str = "") -> Run | None:
    """Return the run in ``folder`` if there is nothing left to do: it ended well, or what it measured is a leak.

    A run that says that it was made on other data than ``data_sha256`` is not the one.
    """
    run = recorded(folder)
    return run if run and run.row.status in FINISHED and not on_other_data(run, data_sha256) else None


def usable(folder: Path, data_sha256: str, began: str, fresh: bool, before: str | None) -> Run | None:
    """Return the run in ``folder``, which nobody is at work on, if a command need not run it.

    That is one that finished, for ``fresh`` only if it was begun since the command was; and one that another process
    has begun meanwhile and that failed, which would only fail again.

    Args:
        folder: of the run.
        data_sha256: of the data that the command reads.
        began: when the command did.
        fresh: whether the command runs again what was begun before it.
        before: ``started_at`` of what lay there when another process was found at work on it; None if none was.
    """
    run = recorded(folder)
    if run is None or on_other_data(run, data_sha256):
        return None
    since = run.row.started_at >= began
    if run.row.status in FINISHED:
        return run if not fresh or (since and not run.row.resumed) else None
    others = since or (before is not None and run.row.started_at != before)
    return run if others and run.row.status != "interrupted" else None


def on_other_data(run: Run, data_sha256: str) -> bool:
    """Say whether a run was made on data that is not that of the hash; not where one of both is unknown."""
    return bool(data_sha256 and run.row.data_sha256) and run.row.data_sha256 != data_sha256


def set_aside(folder: Path, where: Path) -> Path:
    """Move a run's folder out of the way under a name that was not taken, and return where it is now."""
    where.mkdir(parents=True, exist_ok=True)
    stamp = datetime.datetime.now().strftime("%Y%m%dT%H%M%S")
    for suffix in ("", *(f"-{i}" for i in range(1, 1000))):
        target = where / f"{folder.name}-{stamp}{suffix}"
        if not target.exists():
            return folder.rename(target)
    raise FileExistsError(f"{where} holds a thousand runs of this second")


def clear(folder: Path, where: Path, fresh: bool, data_sha256: str) -> None:
    """Move to ``where`` what is not to be written over: if ``fresh`` all, else a record that cannot be used.

    Of the latter's folder the checkpoint stays usable, which has a seal of its own.
    """
    why = "" if fresh else unusable(folder)
    if not fresh and not why and (run := recorded(folder)) and on_other_data(run, data_sha256):
        why = "it was made on other data of that name"
    if not (fresh or why):
        return
    aside = set_aside(folder, where)
    if why:
        log.warning("%s: cannot be used (%s); its folder is now %s", folder / RUN_FILE, why, aside)
        with contextlib.suppress(OSError):  # there is none, or it is no file
            write_atomic(folder / CHECKPOINT_FILE, read_regular(aside / CHECKPOINT_FILE, None))
