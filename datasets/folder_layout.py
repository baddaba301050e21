"""Which pictures under a folder belong to which class and split, in the forms that people have them."""

from __future__ import annotations

import csv
import hashlib
import io
import mimetypes
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from bench.api import SPLITS, DataError, DataMissing
from bench.system.text import counted
from bench.system.untrusted import read_regular
from bench.tasks.pictures import SUFFIXES

SHARES = (0.64, 0.16)
"""Of the classes that train and validate, the rest tests, where nothing says otherwise; mini-ImageNet's shares."""

FORMS = (
    "a folder of pictures for each class; or train/, val/ and test/ with such folders; or train.csv, val.csv and"
    " test.csv of (file, class)"
)
_NAMES = {
    "meta_train": ("train", "training", "meta_train"),
    "meta_val": ("val", "valid", "validation", "meta_val"),
    "meta_test": ("test", "testing", "meta_test"),
}
_FILE, _CLASS = ("file", "filename", "image", "path", "filepath"), ("class", "label", "class_name", "category")


@dataclass(frozen=True)
class Layout:
    """Pictures by class, sorted, and the names of the classes of each split; ``told`` is what was left out."""

    classes: dict[str, tuple[Path, ...]]
    splits: dict[str, tuple[str, ...]]
    form: str
    told: tuple[str, ...] = ()


def find(root: Path) -> Layout:
    """Return what is under ``root``, or under the one folder that it holds.

    Raises:
        DataMissing: there is nothing there.
        DataError: what is there has none of FORMS; says what was seen.
    """
    if not root.is_dir():
        seen = "is a file" if root.exists() else "is not there"
        raise DataMissing(f"--data-root {str(root)!r} {seen}; --dataset folder reads pictures from it: {FORMS}")
    try:
        base = root
        while True:
            folders, pictures = _entries(base)
            lists = _of_splits(base, ".csv")
            if lists or pictures or len(folders) != 1:
                break
            base = folders[0]
        if lists:
            return _listed(base, lists)
        # Pictures alone make a folder of that name a class; folders make it a split.
        parts = {split: path for split, path in _of_splits(base).items() if _entries(path)[0]}
        found = _divided(base, parts) if len(parts) > 1 else _undivided(base, folders, pictures)
        return replace(found, told=(*found.told, *_unread(base)))
    except OSError as error:
        raise DataError(f"{error.filename or root}: {error.strerror or error}") from error


def by_hash(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return classes cut into splits by SHARES, in the order of the sha256 of their names."""
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
    train = min(max(round(SHARES[0] * len(names)), 1), len(names) - 2)
    val = min(max(round(SHARES[1] * len(names)), 1), len(names) - train - 1)
    cut = (ordered[:train], ordered[train : train + val], ordered[train + val :])
    return {split: tuple(sorted(part)) for split, part in zip(SPLITS, cut)}


_FOREIGN = (".heic", ".heif", ".cr2", ".nef", ".dng", ".arw", ".svg")  # whatever this machine's list of kinds knows


def _of_splits(base: Path, suffix: str = "") -> dict[str, Path]:
    """Return the folders, or files of that suffix, that are named after splits, whatever their case."""
    there = {path.name.lower(): path for path in sorted(base.iterdir()) if path.is_dir() == (not suffix)}
    found = {split: [there[n + suffix] for n in names if n + suffix in there] for split, names in _NAMES.items()}
    return {split: paths[0] for split, paths in found.items() if paths}


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders and the pictures of a folder, without what is hidden or a system's own."""
    entries = [p for p in sorted(folder.iterdir()) if not p.name.startswith((".", "__MACOSX"))]
    return [p for p in entries if p.is_dir()], [p for p in entries if p.suffix.lower() in SUFFIXES and not p.is_dir()]


def _unread(base: Path) -> list[str]:
    """Return a line on files that are pictures by their names, of kinds that are not read."""
    kinds = Counter(
        suffix
        for _, _, names in os.walk(base)
        for name in names
        if (suffix := PurePosixPath(name.lower()).suffix) not in SUFFIXES
        and (suffix in _FOREIGN or (mimetypes.guess_type(name)[0] or "").startswith("image/"))
    )
    found = ", ".join(f"{count} {suffix}" for suffix, count in sorted(kinds.items()))
    return [f"{base}: pictures of kinds that are not read are left out: {found}"] if found else []


def _classes(base: Path, seen: frozenset[str] = frozenset()) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Yield name and pictures of every class below ``base``: of every folder that holds pictures, at any depth."""
    folders, _ = _entries(base)
    for folder in folders:
        real = os.path.realpath(folder)
        if real in seen:
            raise DataError(f"{folder}: is a link to a folder that it is in")
        inner, pictures = _entries(folder)
        if pictures:
            yield folder.name, tuple(pictures)
        for name, found in _classes(folder, seen | {real}) if inner else ():
            yield f"{folder.name}/{name}", found


def _undivided(base: Path, folders: Sequence[Path], pictures: Sequence[Path]) -> Layout:
    classes = dict(_classes(base, frozenset({os.path.realpath(base)})))
    _once(classes)
    if len(classes) < len(SPLITS):
        seen = f"{len(pictures)} pictures and {len(folders)} folders, {len(classes)} of them with pictures"
        raise (DataError if classes or pictures else DataMissing)(
            f"{base}: holds {seen}; accepted: three classes or more, as {FORMS}"
        )
    told = f"{base}: beside the folders of the classes {counted(len(pictures), 'picture')} left out"
    form = "a folder per class, split 64/16/20 by a hash of the names"
    return Layout(classes, by_hash(list(classes)), form, (told,) if pictures else ())


def _divided(base: Path, parts: Mapping[str, Path]) -> Layout:
    found = {split: dict(_classes(path, frozenset({os.path.realpath(path)}))) for split, path in parts.items()}
    loose = {path.name: len(_entries(path)[1]) for path in parts.values()}
    told = [f"{base / name}: beside the folders of the classes {counted(n, 'picture')} left out"
            for name, n in loose.items() if n]  # fmt: skip
    return _joined(base, parts, found, "train, val and test folders", told)


def _listed(base: Path, lists: Mapping[str, Path]) -> Layout:
    found: dict[str, dict[str, tuple[Path, ...]]] = {}
    for split, path in lists.items():
        classes: dict[str, set[Path]] = {}
        for number, file, name in _rows(path):
            classes.setdefault(name, set()).add(_place(base, path, number, file, name))
        found[split] = {name: tuple(sorted(files)) for name, files in classes.items()}
    return _joined(base, lists, found, "lists of (file, class)")


def _joined(
    base: Path,
    parts: Mapping[str, Path],
    found: Mapping[str, dict[str, tuple[Path, ...]]],
    form: str,
    told: Sequence[str] = (),
) -> Layout:
    """Return the classes of all splits, refusing a split that is missing or empty and what is in two of them."""
    if missing := [split for split in SPLITS if split not in parts]:
        names = ", ".join(_NAMES[split][0] for split in missing)
        raise DataError(f"{base}: holds {', '.join(p.name for p in parts.values())} but not {names}; accepted: {FORMS}")
    owner: dict[str, str] = {}
    for split, classes in found.items():
        if not classes:
            raise DataError(f"{parts[split]}: holds no class with pictures; accepted: {FORMS}")
        for name in classes:
            if name in owner:
                raise DataError(
                    f"{base}: class {name!r} is in {owner[name]} and in {split}; accepted: no class in two splits, a"
                    " test class must not be met in training"
                )
            owner[name] = split
    whole = {name: files for classes in found.values() for name, files in classes.items()}
    _once(whole)
    return Layout(whole, {split: tuple(sorted(classes)) for split, classes in found.items()}, form, tuple(told))


def _once(classes: Mapping[str, Sequence[Path]]) -> None:
    """Refuse a file that is in two classes, by a link or in two lists: it could be tested on after training."""
    owner: dict[str, str] = {}
    for name, files in classes.items():
        for file in files:
            if owner.setdefault(os.path.realpath(file), name) != name:
                raise DataError(
                    f"{file}: is in class {name!r} and in {owner[os.path.realpath(file)]!r}; accepted: one class"
                )


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the number of its line, file and class of every row of a list, with or without a header."""
    try:
        text = read_regular(path).decode("utf-8-sig")
        rows = [(i, row) for i, row in enumerate(csv.reader(io.StringIO(text)), start=1) if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is no list in CSV ({error})") from error
    at_file, at_class = 0, 1
    header = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    columns = [next((header.index(n) for n in names if n in header), None) for names in (_FILE, _CLASS)]
    if columns[0] is not None and columns[1] is not None:
        at_file, at_class, rows = columns[0], columns[1], rows[1:]
    for number, row in rows:
        if len(row) <= max(at_file, at_class) or not row[at_file].strip() or not row[at_class].strip():
            raise DataError(f"{path}, line {number}: {','.join(row)!r}; accepted: (file, class)")
        yield number, row[at_file].strip(), row[at_class].strip()


def _place(base: Path, path: Path, number: int, file: str, name: str) -> Path:
    """Return where a picture of a list is: beside the list, in images/, or in a folder of its class or split."""
    inside = PurePosixPath(file.replace("\\", "/"))
    if inside.is_absolute() or ".." in inside.parts:
        raise DataError(f"{path}, line {number}: {file!r} leaves {base}; accepted: paths from there")
    places = [base / inside, *(base / folder / inside for folder in ("images", name, f"images/{name}", path.stem))]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise DataError(
            f"{path}, line {number}: {file!r} is not there; looked for "
            + ", ".join(str(place.relative_to(base)) for place in places)
        )
    return found
