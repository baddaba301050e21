"""The pixels of one half of Omniglot, from its archive or its folder, verified; nothing is unpacked to disk."""

from __future__ import annotations

import hashlib
import io
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bench.api import DataError
from bench.system.untrusted import open_regular, read_regular

DRAWERS = 20
SIZE = 105
_LARGEST = 64 * 1024  # bytes of a file or member; the largest real one has 522

Picture = Callable[[], bytes]
"""Returns the bytes of one PNG, at most ``_LARGEST`` of them."""


@dataclass(frozen=True)
class Half:
    """One of the two archives: its name, how many characters it holds, and the sha256 over their pixels.

    The hash goes over one byte per pixel (paper 1, ink 0), files in sorted order.
    """

    name: str
    characters: int
    sha256: str


HALVES = (
    Half("images_background", 964, "5136181e46a5c4481987a003a75de2f4cf3f818021561dc11172103e93786500"),
    Half("images_evaluation", 659, "7d185baeb97389a40b707202ec2d5748c285d5bc14f99203039b1f1532988399"),
)


def find(root: Path, half: Half) -> Path | None:
    """Return where ``half`` lies under ``root``, archives before folders, or None.

    Raises:
        DataError: ``root`` cannot be looked into.
    """
    try:
        return next((path for path in places(root, half) if path.exists()), None)
    except OSError as error:
        raise DataError(f"{root}: {_reason(error)}") from error


def places(root: Path, half: Half) -> list[Path]:
    """Return where ``half`` is looked for, in order."""
    bases = (root, root / "omniglot-py")
    return [base / f"{half.name}.zip" for base in bases] + [base / half.name for base in bases]


def read(
    source: Path, half: Half, keep: Callable[[NDArray[np.bool_]], NDArray[np.uint8]]
) -> tuple[NDArray[np.uint8], list[str]]:
    """Return the images of ``half`` as ``keep`` makes them, ``[characters, 20, ...]``, and the characters' names.

    Both are sorted by 'ALPHABET/characterNN', and the images of a character by the number of their drawer.

    Args:
        source: the archive or the folder.
        keep: maps one picture, bool ``[105, 105]`` and True where the paper is blank, to what is wanted of it.
    Raises:
        DataError: a picture cannot be read or is no 1-bit 105 x 105 PNG, images or characters are missing or too
            many, or the pixels are not Omniglot's; names ``source`` and what in it is wrong.
    """
    opened = _folder if source.is_dir() else _archive
    with opened(source, half) as pictures:
        names = _characters(source, half, pictures)
        digest = hashlib.sha256()
        images = []
        for path in sorted(pictures):
            pixels = _decoded(source, path, pictures[path])
            digest.update(pixels.tobytes())
            images.append(keep(pixels))
        if digest.hexdigest() != half.sha256:
            for path in sorted(pictures):
                _check_sums(source, path, pictures[path])
            raise DataError(
                f"{source}: these are not the pixels of Omniglot's {half.name} "
                f"(their sha256 is {digest.hexdigest()}, right would be {half.sha256})"
            )
    return np.stack(images).reshape(len(names), DRAWERS, *images[0].shape), names


def _characters(source: Path, half: Half, pictures: dict[str, Picture]) -> list[str]:
    """Return the sorted names of the characters, having counted them and their images."""
    counts = Counter(path.rpartition("/")[0] for path in pictures)
    for name, count in sorted(counts.items()):
        if count != DRAWERS:
            raise DataError(f"{source}: {name!r} has {count} images; every character of Omniglot has {DRAWERS}")
    if len(counts) != half.characters:
        raise DataError(f"{source}: holds {len(counts)} characters; Omniglot's {half.name} has {half.characters}")
    return sorted(counts)


_IMAGE = re.compile(r"(?!\.\.?/)[^/\\]+/character\d\d/\d{4}_\d\d\.png")  # ALPHABET/characterNN/NNNN_DD.png


@contextmanager
def _archive(source: Path, half: Half) -> Iterator[dict[str, Picture]]:
    """Give the pictures of a zip file by 'ALPHABET/characterNN/NNNN_DD.png'; other members do not count."""
    with ExitStack() as held:
        try:
            file = held.enter_context(os.fdopen(open_regular(source), "rb"))
            archive = held.enter_context(zipfile.ZipFile(file))
        except Exception as error:  # besides BadZipFile, damaged directories raise ValueError, struct.error and others
            raise DataError(f"{source}: not a whole zip archive ({_reason(error)})") from error
        pictures: dict[str, Picture] = {}
        for member in archive.infolist():
            prefix, _, path = member.filename.partition("/")
            if prefix != half.name or not _IMAGE.fullmatch(path):
                continue
            if member.file_size > _LARGEST:
                raise DataError(f"{source}: member {member.filename!r} has {member.file_size} bytes; {_LIMIT}")
            if path in pictures:
                raise DataError(f"{source}: member {member.filename!r} is there twice")
            pictures[path] = lambda member=member: archive.read(member)  # type: ignore[misc]  # default argument
        yield pictures


@contextmanager
def _folder(source: Path, half: Half) -> Iterator[dict[str, Picture]]:
    """Give the pictures of an unpacked archive by 'ALPHABET/characterNN/NNNN_DD.png'; other files do not count."""
    home = source.resolve()
    pictures: dict[str, Picture] = {}
    try:
        for path in (
            path for alphabet in _entries(source) for character in _entries(alphabet) for path in _entries(character)
        ):
            name = path.relative_to(source).as_posix()
            if not _IMAGE.fullmatch(name):
                continue
            if any(
                p.is_symlink() for p in (path, path.parent, path.parent.parent)
            ) and not path.resolve().is_relative_to(home):
                raise DataError(f"{path}: a symbolic link that leaves {source}")
            if not path.is_file():
                continue
            if path.stat().st_size > _LARGEST:
                raise DataError(f"{path}: has {path.stat().st_size} bytes; {_LIMIT}")
            pictures[name] = partial(read_regular, path, _LARGEST)
    except OSError as error:
        raise DataError(f"{source}: {_reason(error)}") from error
    yield pictures


_LIMIT = f"no image of Omniglot has more than {_LARGEST}"


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _decoded(source: Path, path: str, picture: Picture) -> NDArray[np.bool_]:
    """Return one picture, bool ``[105, 105]``, True where the paper is blank."""
    with _named(source, path):
        data = picture()
        # The size is read from the header, before the decoder makes room for whatever it claims.
        width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
        if data[12:16] == b"IHDR" and (width, height) != (SIZE, SIZE):
            raise ValueError(f"is {width} x {height}, not {SIZE} x {SIZE}")
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.mode != "1" or image.size != (SIZE, SIZE):
                raise ValueError(f"is of mode {image.mode!r}, not a 1-bit picture")
            return np.asarray(image.convert("L")) > 0  # a mode-1 array has bytes of 255 for True, which would be hashed


def _check_sums(source: Path, path: str, picture: Picture) -> None:
    """Refuse a PNG whose check sums are wrong, which decoding does not look at."""
    with _named(source, path), Image.open(io.BytesIO(picture()), formats=["PNG"]) as image:
        image.verify()


@contextmanager
def _named(source: Path, path: str) -> Iterator[None]:
    """Turn any failure into a DataError that names the file, or the archive and its member."""
    try:
        yield
    except Exception as error:  # zipfile and PIL raise OSError, SyntaxError, RuntimeError, zlib.error and more
        where = f"{source / path}" if source.is_dir() else f"{source}: member {path!r}"
        reason = "not a PNG picture" if isinstance(error, UnidentifiedImageError) else _reason(error)
        raise DataError(f"{where}: {reason}") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
