"""Which pictures of characters an archive or a folder holds, however its folders and files are spelt."""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

from bench.api import DataError
from bench.system.untrusted import open_regular
from datasets.omniglot_files import ALPHABETS, LARGEST, Pictures, claimed_size, opened_archive, reason

File = TypeVar("File")


def in_archive(source: Path) -> list[Pictures]:
    """Return the pictures of a zip file, those of each folder that holds alphabets by themselves.

    Raises:
        DataError: it is no whole zip archive, a picture is there twice or is too large.
    """
    with opened_archive(source) as archive:
        pairs = [(member.filename, member) for member in archive.infolist() if _parsed(member.filename)]
        for name, member in pairs:
            if member.file_size > LARGEST:
                raise DataError(f"{source}: member {name!r} has {member.file_size} bytes; {_LIMIT}")
        groups = _grouped(source, "member ", pairs).items()
        return [Pictures(source, top, files, _size(partial(archive.open, files[min(files)]))) for top, files in groups]


def in_folder(source: Path, home: Path, any_alphabet: bool) -> list[Pictures]:
    """Return the pictures in the alphabets of a folder; links may lead within ``source`` and ``home`` only.

    A Windows archive unpacked without regard for its backslashes is one folder of files with long names: they count
    as the paths that they are meant to be.

    Args:
        any_alphabet: whether folders count that do not have the name of one of the 50 alphabets.
    Raises:
        DataError: ``source`` cannot be read; a picture is reached by a link that leads out, is too large or
            there twice.
    """
    homes = [Path(os.path.realpath(folder)) for folder in (source, home)]
    pairs: list[tuple[str, Path]] = []
    try:
        for path, linked in _leaves(source, any_alphabet):
            if linked and not leads_within(path, homes):
                raise DataError(f"{path}: a symbolic link that leaves {source}")
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                continue
            if status.st_size > LARGEST:
                raise DataError(f"{path}: has {status.st_size} bytes; {_LIMIT}")
            pairs.append((path.relative_to(source).as_posix(), path))
    except OSError as error:
        raise DataError(f"{source}: {reason(error)}") from error
    groups = _grouped(source, "", pairs).items()
    return [Pictures(source, top, files, _size(partial(_read, files[min(files)]))) for top, files in groups]


def _read(path: Path) -> IO[bytes]:
    return os.fdopen(open_regular(path), "rb")


def leads_within(path: Path, homes: Iterable[Path]) -> bool:
    """Whether a path, its links followed, ends in one of some folders whose own links are followed already."""
    try:
        target = Path(os.path.realpath(path))  # Path.resolve raises for links in a circle
    except OSError:  # gone since
        return False
    return any(target.is_relative_to(home) for home in homes)


_LIMIT = f"no image of Omniglot has more than {LARGEST}"

_FLAGS = re.IGNORECASE | re.ASCII
_CHARACTER = re.compile(r"character\d\d", _FLAGS)
_FILE = re.compile(r"\d{4}_\d\d\.png", _FLAGS)  # NNNN_DD.png
_IMAGE = re.compile(rf"((?:[^/]+/)*)([^/]+)/({_CHARACTER.pattern})/({_FILE.pattern})", _FLAGS)


def is_picture(name: str) -> bool:
    """Whether a name is a path with backslashes, of a picture."""
    return "\\" in name and _parsed(name) is not None


def _parsed(name: str) -> tuple[str, str] | None:
    """Return the folder and 'ALPHABET/characterNN/NNNN_DD.png' of a path, None if it is no such path or climbs out."""
    parts = [part for part in name.replace("\\", "/").split("/") if part != "."]
    match = _IMAGE.fullmatch("/".join(parts))
    if match is None or ".." in parts or parts[0].endswith(":"):
        return None
    top, alphabet, character, file = match.groups()
    return top.rstrip("/"), "/".join([ALPHABETS.get(alphabet.casefold(), alphabet), character.lower(), file.lower()])


def _grouped(source: Path, kind: str, pairs: Iterable[tuple[str, File]]) -> dict[str, dict[str, File]]:
    """Return the files by the folder that holds their alphabets, and within by 'ALPHABET/characterNN/NNNN_DD.png'."""
    groups: dict[str, dict[str, File]] = defaultdict(dict)
    for name, file in pairs:
        parsed = _parsed(name)
        if parsed is None:
            continue
        top, path = parsed
        if path in groups[top]:
            raise DataError(f"{source}: {kind}{name!r} is there twice")
        groups[top][path] = file
    return groups


def _leaves(source: Path, any_alphabet: bool) -> Iterator[tuple[Path, bool]]:
    """Give what may be a picture in ``source``, and whether a link leads there."""
    for alphabet in _entries(source):
        if is_picture(alphabet.name):
            yield Path(alphabet.path), alphabet.is_symlink()
        elif (any_alphabet or alphabet.name.casefold() in ALPHABETS) and alphabet.is_dir():
            for character in _entries(alphabet):
                if _CHARACTER.fullmatch(character.name) and character.is_dir():
                    for file in _entries(character):
                        if _FILE.fullmatch(file.name):
                            yield Path(file.path), any(e.is_symlink() for e in (alphabet, character, file))


def _entries(folder: os.PathLike[str]) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _size(first: Callable[[], IO[bytes]]) -> tuple[int, int] | None:
    """Return the width and height that the header of a PNG claims."""
    with suppress(Exception), first() as file:  # whatever is wrong with it, reading it will tell
        return claimed_size(file.read(24))
    return None
