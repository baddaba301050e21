"""Files written whole or not at all, what killed processes left of them, and values as JSON can hold them."""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")  # as write_atomic names them


def write_atomic(path: Path, content: str | bytes | Callable[[BinaryIO], object]) -> None:
    """Put ``content`` at ``path`` in one step: readers see the old file or the whole new one, never a part.

    The folder is made if need be. Any number of processes may write the same path at once; the last one wins.
    What is large is written by a function, which is handed the open file.

    Raises:
        OSError: the file cannot be written; what was there before stays and no temporary file is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:  # not tempfile: its files are unreadable for the rest of the group
            if callable(content):
                content(file)
            else:
                file.write(utf8(content) if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # as when the folder has become read-only
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = str(path)  # a full disk names no file, and nobody knows the temporary one
        raise
    with contextlib.suppress(OSError):  # where folders cannot be synced, the new name may be lost with the power
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def utf8(text: str) -> bytes:
    """Return text as a file holds it.

    Broken file names reach us as lone surrogates, which UTF-8 cannot hold; they must not cost a run its record.
    """
    return text.encode("utf-8", "backslashreplace")


def remove_leftovers(out: Path) -> None:
    """Delete what killed processes left of ``write_atomic`` under ``out``, in the folders that runs and tables have.

    Only files that have not been touched for an hour: others may be in the making, on another machine too.
    """
    for folder in (out, out / "cache", out / "plots", out / "plots" / "slides", *out.glob("runs/*/")):
        if folder.is_symlink():
            continue
        with contextlib.suppress(OSError):  # not there, or not ours: nothing depends on it
            for path in folder.iterdir():
                if _TEMPORARY.fullmatch(path.name) and time.time() - path.lstat().st_mtime > 3600:
                    path.unlink()


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
