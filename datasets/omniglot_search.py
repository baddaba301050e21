"""Where the halves of Omniglot lie under a data root: where they usually do, else by a look at what is there."""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from bench.api import DataError
from datasets.omniglot_files import ALPHABETS, DRAWERS, HALVES, SIZE, Half, NotWhole, Pictures, check, reason
from datasets.omniglot_listing import in_archive, in_folder, is_picture, leads_within

DEPTH = 3  # folders between the data root and what is looked for
_MOST_ENTRIES = 10_000  # looked at in all: a data root may be somebody's home
_MOST_IN_A_FOLDER = 1_000  # so that a folder of loose pictures does not use them up
_MOST_ARCHIVES = 20
_LARGEST_ARCHIVE = 2**28  # bytes of one that is not named for a half; both halves together have 14 MB
_MOST_SEEN = 8
_HALF_NAMES = tuple(half.name for half in HALVES)

ACCEPTED = (
    "accepted: images_background and images_evaluation as zip files or folders, or their 50 alphabets in one, "
    f"with the original PNG pictures as ALPHABET/characterNN/NNNN_DD.png, at most {DEPTH} folders below the data root"
)


@dataclass
class Found:
    """What lies under a data root.

    Args:
        root: the data root.
        halves: the archive or folder named for a half, or the pictures that belong to it, by the half's name.
        seen: if a half is missing: in words, what else of Omniglot there is.
    """

    root: Path
    halves: dict[str, Path | Pictures]
    seen: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        named = [f"{where} ({name})" for name, where in self.halves.items() if isinstance(where, Path)]
        seen = [name.replace(f"{self.root}/", "") for name in dict.fromkeys([*named, *self.seen])]
        # A folder that only sounds like Omniglot says nothing beside what lies in it.
        seen = [one for one in seen if sum(other.startswith((one, f"{one[:-1]} (")) for other in seen) == 1]
        return ", ".join(seen[:_MOST_SEEN]) + (f" and {len(seen) - _MOST_SEEN} more" if len(seen) > _MOST_SEEN else "")


def find(root: Path, halves: Sequence[Half]) -> Found:
    """Return where ``halves`` lie, as named at the usual places first; of the pictures at most one header is read.

    Raises:
        DataError: ``root`` cannot be looked into; or a half is missing, and what may be it is damaged.
    """
    try:
        usual = {half.name: next((path for path in places(root, half) if path.exists()), None) for half in halves}
    except OSError as error:
        raise DataError(f"{root}: {reason(error)}") from error
    found = Found(root, {name: path for name, path in usual.items() if path is not None})
    if len(found.halves) < len(halves):
        met = _look(root, halves)
        for half in halves:
            if half.name not in found.halves and met.named[half.name]:
                found.halves[half.name] = min(met.named[half.name], key=Path.is_dir)  # archives first
        if len(found.halves) < len(halves):
            _add_unnamed(found, root, halves, met)
    return found


def places(root: Path, half: Half) -> list[Path]:
    """Return where a half usually lies, in order."""
    bases = (root, root / "omniglot-py")
    return [base / f"{half.name}.zip" for base in bases] + [base / half.name for base in bases]


def listed(where: Path | Pictures, half: Half, root: Path) -> Pictures:
    """Return the pictures of a half that was found, counted.

    Raises:
        DataError: it is no whole archive, images or characters are missing or too many, or as ``in_folder``.
    """
    if isinstance(where, Path):
        groups = _groups(where, root, any_alphabet=True)
        if not groups and where.is_dir():  # a folder of that name in it, as some unpack it, or the archive
            met = _look(where, [half])
            sources = [*sorted(met.named[half.name], key=Path.is_dir), *met.tops]
            groups = [group for source in sources for group in _groups(source, root, source not in met.tops)]
        mine = [part for group in groups if (part := _of(half, group, otherwise=True))]
        where = _best(mine, half) or Pictures(where, "", {})
    check(where, half)
    return where


def _groups(source: Path, root: Path, any_alphabet: bool) -> list[Pictures]:
    return in_folder(source, root, any_alphabet) if source.is_dir() else in_archive(source)


@dataclass
class _Met:
    """What a look into folders met: by name, by contents, and what only sounds like Omniglot."""

    named: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    tops: list[Path] = field(default_factory=list)
    archives: list[Path] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def _look(root: Path, halves: Iterable[Half]) -> _Met:
    """Look into ``root`` and its folders, nearer ones first, following no link that leaves it."""
    met, home, left = _Met(), Path(os.path.realpath(root)), _MOST_ENTRIES
    names = {half.name for half in halves}
    queue = deque([(root, 0)])
    while queue and left > 0:
        folder, depth = queue.popleft()
        try:
            with os.scandir(folder) as scan:
                entries = [
                    (entry.name, entry.is_symlink(), entry.is_dir()) for entry in islice(scan, _MOST_IN_A_FOLDER)
                ]
        except OSError:  # not ours to look into
            continue
        left -= len(entries)
        if len(entries) == _MOST_IN_A_FOLDER:
            met.others.append(f"{_MOST_IN_A_FOLDER:,} files or more in {folder}, of which no more were looked at")
        for spelt, linked, is_dir in sorted(entries, key=lambda entry: (not _sounds(entry[0]), entry[0])):
            path, name = folder / spelt, spelt.casefold()
            stem, _, kind = name.rpartition(".")
            if name.startswith(".") or name == "__macosx":
                continue
            if linked and not leads_within(path, [home]):
                if _sounds(name):
                    met.others.append(f"{path} (a symbolic link that leaves {root})")
            elif (is_dir and name in ALPHABETS) or is_picture(spelt):
                met.tops += [folder] if folder not in met.tops else []
            elif (is_dir and name in names) or (kind == "zip" and stem in names):
                met.named[name if is_dir else stem].append(path)
            elif kind == "zip" and not is_dir:
                met.archives.append(path)
            else:
                if _sounds(name):
                    met.others.append(f"{path}/" if is_dir else str(path))
                if is_dir and depth < DEPTH:
                    queue.append((path, depth + 1))
    if queue:
        met.others.append(f"more than {_MOST_ENTRIES:,} files, of which no more were looked at")
    return met


def _sounds(name: str) -> bool:
    """Whether a file or folder may be some form of Omniglot; code, and the harness's own cache file, are none."""
    name = name.casefold()
    ours = name.startswith("omniglot-") and name.endswith(".npz")
    return (
        not ours
        and not name.endswith((".py", ".md", ".json", ".png"))
        and any(part in name for part in ("omniglot", "images_background", "images_evaluation"))
    )


def _add_unnamed(found: Found, root: Path, halves: Sequence[Half], met: _Met) -> None:
    """Add the halves that are missing and lie in what is not named for them; say what else there is."""
    groups: list[Pictures] = []
    damaged: list[DataError] = []
    for source in (*met.tops, *met.archives[:_MOST_ARCHIVES]):
        sounds = source.is_dir() or _sounds(source.name)
        try:
            parts = _groups(source, root, any_alphabet=False) if source.stat().st_size <= _LARGEST_ARCHIVE else []
        except NotWhole as error:
            damaged += [error] if sounds else []  # any other is none of our business
            continue
        except DataError as error:
            damaged.append(error)
            continue
        except OSError:  # gone, or not ours to look into
            continue
        groups += parts
        if sounds and not parts and not source.is_dir():
            found.seen.append(f"{source} (no pictures of characters in it; archives in it have to be unpacked)")
    for half in halves:
        mine = [part for group in groups if (part := _of(half, group, otherwise=False))]
        found.seen += [
            f"{part} ({len(part.characters)} of the {half.characters} characters of {half.name}{part.remark})"
            for part in mine
        ]
        best = _best(mine, half)
        if best and half.name not in found.halves:
            found.halves[half.name] = best
    found.seen += met.others
    if damaged and len(found.halves) < len(halves):
        raise damaged[0]


def _of(half: Half, group: Pictures, otherwise: bool) -> Pictures | None:
    """Return the pictures in ``group`` that belong to ``half``: all, if a folder is named for it, or by alphabet.

    Args:
        otherwise: whether all belong to it where no folder is named for a half.
    """
    named = next((part for part in reversed(group.top.casefold().split("/")) if part in _HALF_NAMES), None)
    if named is None and not otherwise:
        files = {path: file for path, file in group.files.items() if path.partition("/")[0] in half.alphabets}
        return Pictures(group.source, group.top, files, group.size) if files else None
    return group if named in (None, half.name) else None


def _best(groups: Sequence[Pictures], half: Half) -> Pictures | None:
    """Return the group that is whole by its numbers, else one in a folder named for the half, else the largest."""

    def rank(group: Pictures) -> tuple[bool, bool, int]:
        characters = group.characters
        whole = len(characters) == half.characters and set(characters.values()) == {DRAWERS}
        named = group.top.casefold().split("/")[-1] == half.name
        return whole and group.size == (SIZE, SIZE), named, len(characters)

    return max(groups, key=rank, default=None)
