"""Prepared images in one file: read back only if they are what the same pipeline would make again."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from bench.system.files import write_atomic
from bench.system.untrusted import open_regular


@dataclass(frozen=True)
class Prepared:
    """Images uint8, a name for every class, and the sha256 over the pixels.

    They are ``[classes, images_per_class, ...]``; where classes differ in number, ``[images, ...]`` class after class,
    with ``counts``, over which the hash goes as well.
    """

    images: NDArray[np.uint8]
    class_names: tuple[str, ...]
    sha256: str
    counts: tuple[int, ...] = ()


def prepare(images: NDArray[np.uint8], class_names: Sequence[str], counts: Sequence[int] = ()) -> Prepared:
    """Return ``images`` with their hash, the pixels in C order."""
    images = np.ascontiguousarray(images)
    digest = hashlib.sha256(images.data)
    digest.update(" ".join(map(str, counts)).encode())
    return Prepared(images, tuple(class_names), digest.hexdigest(), tuple(counts))


def cached(
    name: str,
    pipeline: str,
    folders: Sequence[Path],
    make: Callable[[], Prepared],
    sha256: str | None = None,
) -> Prepared:
    """Return what ``make`` returns, from the first of ``folders`` that keeps it; else make it and keep it.

    A file that is cut, altered, of another pipeline or not ours at all counts as absent. Any number of processes may
    do this at once. A result that cannot be kept is returned all the same, with a warning.

    Args:
        name: begins the file's name, which goes on with 12 digits of a hash of ``pipeline``.
        pipeline: every step that decides about a pixel, in words; any change of them must change it.
        folders: where to look, in order; the first that can be written gets a new file and is made if need be.
        make: prepares the images; its errors pass through.
        sha256: what the pixels must hash to, where that is known beforehand.
    """
    file = f"{name}-{hashlib.sha256(pipeline.encode()).hexdigest()[:12]}.npz"
    for folder in folders:
        found = _read(folder / file, pipeline)
        if found is not None and sha256 in (None, found.sha256):
            return found
    made = make()
    target = next((folder for folder in folders if writable(folder)), None)
    if target is not None:
        try:
            write_atomic(target / file, lambda out: _pack(made, pipeline, out))
        except OSError as error:
            warnings.warn(f"{name} is prepared anew on every start: {target / file}: {error}", stacklevel=2)
    return made


def writable(folder: Path) -> bool:
    """Whether ``folder`` may be written, or made where it is not there.

    The permission bits are asked as well as the system, because to root the system says yes to everything.
    """
    try:
        while not folder.exists():
            if folder == folder.parent:
                return False
            folder = folder.parent
        return folder.is_dir() and bool(folder.stat().st_mode & stat.S_IWUSR) and os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        return False


def _seal(prepared: Prepared, pipeline: str) -> str:
    """Return a hash over everything that the file says."""
    kind = f"{prepared.images.dtype} {prepared.images.shape}"
    said = [pipeline, kind, *prepared.class_names, prepared.sha256]
    return hashlib.sha256("\n".join(said).encode("utf-8", "surrogateescape")).hexdigest()


def _pack(prepared: Prepared, pipeline: str, file: BinaryIO) -> None:
    np.savez(
        file,
        images=prepared.images,
        class_names=np.array(prepared.class_names),
        counts=np.array(prepared.counts, np.int64),  # which the sha256 covers
        pipeline=np.array(pipeline),  # for people; the seal covers it
        seal=np.array(_seal(prepared, pipeline)),
    )


def _read(path: Path, pipeline: str) -> Prepared | None:
    """Return what the file holds if it is whole and of this pipeline, else None."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            with zipfile.ZipFile(file) as archive:
                members, images = archive.infolist(), archive.getinfo("images.npy")
            if any(m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members):
                return None  # ours are stored; others could fill the memory once they are unpacked
            pixels = _array(file, images)
            file.seek(0)
            with np.load(file, allow_pickle=False) as fields:
                counts = fields["counts"].tolist() if "counts" in fields else ()
                prepared = prepare(pixels, fields["class_names"].tolist(), counts)
                return prepared if fields["seal"] == _seal(prepared, pipeline) else None
    except Exception:  # foreign bytes make numpy and zipfile raise anything; whatever it is, the file is not ours
        return None


def _array(file: BinaryIO, member: zipfile.ZipInfo) -> NDArray[np.uint8]:
    """Return the array of a stored member as it lies there, without zipfile's checksum: sha256 says more."""
    file.seek(member.header_offset + 26)
    name, extra = struct.unpack("<HH", file.read(4))  # lengths of what stands before it
    file.seek(name + extra, os.SEEK_CUR)
    array: NDArray[np.uint8] = np.lib.format.read_array(file, allow_pickle=False)
    return array
