"""The pixels of one half of Omniglot, from an archive or a folder, verified; nothing is unpacked to disk."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bench.api import DataError
from bench.system.untrusted import open_regular, read_regular

DRAWERS = 20
SIZE = 105
LARGEST = 64 * 1024  # bytes of a file or member; the largest real one has 522


@dataclass(frozen=True)
class Half:
    """One of the two archives: its name, how many characters it holds, the sha256 over their pixels, its alphabets.

    The hash goes over one byte per pixel (paper 1, ink 0), files in sorted order.
    """

    name: str
    characters: int
    sha256: str
    alphabets: frozenset[str] = frozenset()


HALVES = (
    Half("images_background", 964, "5136181e46a5c4481987a003a75de2f4cf3f818021561dc11172103e93786500", frozenset((
        "Alphabet_of_the_Magi", "Anglo-Saxon_Futhorc", "Arcadian", "Armenian", "Asomtavruli_(Georgian)",
        "Balinese", "Bengali", "Blackfoot_(Canadian_Aboriginal_Syllabics)", "Braille", "Burmese_(Myanmar)",
        "Cyrillic", "Early_Aramaic", "Futurama", "Grantha", "Greek", "Gujarati", "Hebrew",
        "Inuktitut_(Canadian_Aboriginal_Syllabics)", "Japanese_(hiragana)", "Japanese_(katakana)", "Korean",
        "Latin", "Malay_(Jawi_-_Arabic)", "Mkhedruli_(Georgian)", "N_Ko",
        "Ojibwe_(Canadian_Aboriginal_Syllabics)", "Sanskrit", "Syriac_(Estrangelo)", "Tagalog", "Tifinagh",
    ))),
    Half("images_evaluation", 659, "7d185baeb97389a40b707202ec2d5748c285d5bc14f99203039b1f1532988399", frozenset((
        "Angelic", "Atemayar_Qelisayer", "Atlantean", "Aurek-Besh", "Avesta", "Ge_ez", "Glagolitic",
        "Gurmukhi", "Kannada", "Keble", "Malayalam", "Manipuri", "Mongolian",
        "Old_Church_Slavonic_(Cyrillic)", "Oriya", "Sylheti", "Syriac_(Serto)", "Tengwar", "Tibetan", "ULOG",
    ))),
)  # fmt: skip
ALPHABETS = {name.casefold(): name for half in HALVES for name in half.alphabets}
"""The 50 alphabets, spelt as Omniglot does, by their names in small letters."""


class NotWhole(DataError):
    """A file is no zip archive, or a damaged one."""


@dataclass(frozen=True)
class Pictures:
    """Pictures that lie together as ALPHABET/characterNN/NNNN_DD.png, listed and not yet read.

    Args:
        source: the archive or the folder.
        top: the folder inside ``source`` that holds the alphabets, "" for ``source`` itself.
        files: the file or member by 'ALPHABET/characterNN/NNNN_DD.png', spelt as Omniglot does.
        size: width and height that the header of the first picture claims, if it is a PNG's.
    """

    source: Path
    top: str
    files: Mapping[str, Path | zipfile.ZipInfo]
    size: tuple[int, int] | None = None

    @property
    def characters(self) -> Counter[str]:
        """How many pictures each 'ALPHABET/characterNN' has."""
        return Counter(path.rpartition("/")[0] for path in self.files)

    def __str__(self) -> str:
        inside = self.top not in ("", self.source.stem)
        return f"{self.source}/{self.top}" if inside else str(self.source)

    @property
    def remark(self) -> str:
        """What is to be said of the pictures' size, if it is not Omniglot's."""
        if self.size is None or self.size == (SIZE, SIZE):
            return ""
        return f" of {self.size[0]} x {self.size[1]} pixels (Omniglot's own have {SIZE} x {SIZE})"


def read(
    pictures: Pictures, half: Half, keep: Callable[[NDArray[np.bool_]], NDArray[np.uint8]]
) -> tuple[NDArray[np.uint8], list[str]]:
    """Return the images of ``half`` as ``keep`` makes them, ``[characters, 20, ...]``, and the characters' names.

    Both are sorted by 'ALPHABET/characterNN', and the images of a character by the number of their drawer.

    Args:
        pictures: as ``check`` accepts them.
        keep: maps one picture, bool ``[105, 105]`` and True where the paper is blank, to what is wanted of it.
    Raises:
        DataError: a picture cannot be read or is no 1-bit 105 x 105 PNG, or the pixels are not Omniglot's; names
            the archive or folder and what in it is wrong.
    """
    digest = hashlib.sha256()
    images = []
    with _opened(pictures.source) as bytes_of:
        for path, file in sorted(pictures.files.items()):
            with _named(pictures, path):
                pixels = _decoded(bytes_of(file))
            digest.update(pixels.tobytes())
            images.append(keep(pixels))
        if digest.hexdigest() != half.sha256:
            for path, file in sorted(pictures.files.items()):  # decoding does not look at a PNG's own check sums
                with _named(pictures, path), Image.open(io.BytesIO(bytes_of(file)), formats=["PNG"]) as image:
                    image.verify()
            raise DataError(
                f"{pictures}: these are not the pixels of Omniglot's {half.name} "
                f"(their sha256 is {digest.hexdigest()}, right would be {half.sha256})"
            )
    names = sorted(pictures.characters)
    return np.stack(images).reshape(len(names), DRAWERS, *images[0].shape), names


def check(pictures: Pictures, half: Half) -> None:
    """Refuse pictures that by their number cannot be ``half``.

    Raises:
        DataError: images or characters are missing or too many.
    """
    characters = pictures.characters
    for name, count in sorted(characters.items()):
        if count != DRAWERS:
            raise DataError(f"{pictures}: {name!r} has {count} images; every character of Omniglot has {DRAWERS}")
    if len(characters) != half.characters:
        raise DataError(
            f"{pictures}: holds {len(characters)} characters{pictures.remark}; "
            f"Omniglot's {half.name} has {half.characters}, all of which are needed"
        )


@contextmanager
def opened_archive(source: Path) -> Iterator[zipfile.ZipFile]:
    """Give a zip file opened.

    Raises:
        NotWhole: it is none, or a damaged one.
    """
    try:
        file = os.fdopen(open_regular(source), "rb")
    except OSError as error:
        raise NotWhole(f"{source}: not a whole zip archive ({reason(error)})") from error
    with file:
        try:
            archive = zipfile.ZipFile(file)
        except Exception as error:  # besides BadZipFile, damaged directories raise ValueError, struct.error and others
            raise NotWhole(f"{source}: not a whole zip archive ({reason(error)})") from error
        with archive:
            yield archive


@contextmanager
def _opened(source: Path) -> Iterator[Callable[[Path | zipfile.ZipInfo], bytes]]:
    """Give what returns the bytes of one picture, at most ``LARGEST`` of them."""
    if source.is_dir():
        yield lambda file: read_regular(file, LARGEST)  # type: ignore[arg-type]  # folders list paths
        return
    with opened_archive(source) as archive:
        yield archive.read  # type: ignore[misc]  # of a ZipInfo whose size has been looked at


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height from a PNG's first 24 bytes, before a decoder makes room for whatever they claim."""
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _decoded(data: bytes) -> NDArray[np.bool_]:
    """Return one picture, bool ``[105, 105]``, True where the paper is blank."""
    size = claimed_size(data)
    if size is not None and size != (SIZE, SIZE):
        copy = "; a resized copy does not do" if max(size) < SIZE else ""
        raise ValueError(f"is {size[0]} x {size[1]}, not {SIZE} x {SIZE}{copy}")
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        if image.mode != "1" or image.size != (SIZE, SIZE):
            raise ValueError(f"is of mode {image.mode!r}, not a 1-bit picture")
        return np.asarray(image.convert("L")) > 0  # a mode-1 array has bytes of 255 for True, which would be hashed


@contextmanager
def _named(pictures: Pictures, path: str) -> Iterator[None]:
    """Turn any failure into a DataError that names the file, or the archive and its member."""
    try:
        yield
    except Exception as error:  # zipfile and PIL raise OSError, SyntaxError, RuntimeError, zlib.error and more
        file = pictures.files[path]
        where = str(file) if isinstance(file, Path) else f"{pictures}: member {path!r}"
        why = "not a PNG picture" if isinstance(error, UnidentifiedImageError) else reason(error)
        raise DataError(f"{where}: {why}") from error


def reason(error: Exception) -> str:
    """Return what an error says as one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
