"""Folders that somebody else may have filled: only regular files are opened, and nothing is written outside them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

FOLDERS = ("cache", "locks", "plots", "plots/slides", "runs", "set-aside", "tensorboard")  # in --out, runs' own apart
MIB = 2**20
LARGEST_TABLE = 1024 * MIB  # of a record or a table; a million test tasks have 50 MiB


def check_inside(out: Path, folders: Iterable[Path | str] = FOLDERS) -> None:
    """Refuse folders under ``out`` that are links, or in one: what is written there would land elsewhere.

    ``out`` itself may be a link, and folders need not be there.

    Raises:
        OSError: names the first.
    """
    home = Path(os.path.realpath(out))  # which Path.resolve() would be, but for links that go round in a circle
    for folder in folders:
        if Path(os.path.realpath(out / folder)) != home / folder:
            raise OSError(errno.ELOOP, "A folder of results may not be a symbolic link", str(out / folder))


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Return the descriptor of a regular file: a pipe would be waited for and a device might never end.

    Raises:
        OSError: there is none, it cannot be opened, or it is something else.
    """
    file = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    mode = os.fstat(file).st_mode
    if stat.S_ISREG(mode):
        return file
    os.close(file)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "Not a regular file", str(path))


def read_regular(path: Path, most: int | None = LARGEST_TABLE) -> bytes:
    """Return the bytes of a regular file of at most ``most`` bytes, None for any number.

    Raises:
        OSError: as ``open_regular``; it is larger.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise OSError(errno.EFBIG, f"{size:,} bytes are more than such a file has", str(path))
        return file.read()
