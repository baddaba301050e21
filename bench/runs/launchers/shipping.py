"""What goes to the nodes of a cluster: the harness, the code of plugins, and data that is not there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from bench.api import BenchError
from bench.registry import load_plugin
from bench.settings.code import files_of
from bench.system.machine import ROOT

SHIPPED = ("algorithms", "bench", "datasets", "requirements.txt", "run_bench.py")
"""Of the checkout."""
MOST = 2 * 2**30
"""Bytes of data that are sent."""
_SPECIAL = "\\*?[]!# "  # in patterns, as .gitignore has them


def harness() -> dict[str, object]:
    """Return the harness as Ray's runtime environment: the checkout without what no run needs."""
    others = sorted(path.name for path in ROOT.iterdir() if path.name not in SHIPPED)
    excluded = ["/" + "".join(f"\\{c}" if c in _SPECIAL else c for c in name) for name in others]
    return {"working_dir": str(ROOT), "excludes": [*excluded, "**/__pycache__"]}


def plugins(paths: Iterable[Path]) -> tuple[list[str], dict[str, bytes]]:
    """Return where a node finds each plugin, below the harness or below the files that come second, by their paths.

    What plugins import beside them comes along, each below ``imports/`` as it is below the folder that it was
    imported from.
    """
    names: list[str] = []
    files: dict[str, bytes] = {}
    for number, path in enumerate(paths):
        if _with_harness(path):
            names.append(str(path.relative_to(ROOT)))
        else:
            names.append(f"plugins/{number}/{path.name}")
            files[names[-1]] = path.read_bytes()
        for file in files_of(load_plugin(path)):
            if file != path and not _with_harness(file) and (name := _below_search_path(file)):
                files[f"imports/{name}"] = file.read_bytes()
    return names, files


def _with_harness(path: Path) -> bool:
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in SHIPPED


def _below_search_path(file: Path) -> str:
    """Return the path of a file below the folder of Python's search path that it is in, the innermost."""
    folders = [folder for entry in sys.path if file.is_relative_to(folder := Path(entry).resolve())]
    return str(file.relative_to(max(folders, key=lambda folder: len(folder.parts)))) if folders else ""


def content(folders: Mapping[str, Path | None], where: str) -> dict[str, bytes]:
    """Return the files of folders, each below its name.

    Args:
        where: the node without them, for the message.
    Raises:
        BenchError: they hold more than is sent.
    """
    paths = {
        f"{name}/{path.relative_to(folder)}": path
        for name, folder in folders.items()
        if folder is not None and folder.is_dir()
        for path in _files(folder)
    }
    size = sum(path.stat().st_size for path in paths.values())
    if size > MOST:
        held = " and ".join(str(folder) for folder in folders.values() if folder is not None)
        raise BenchError(
            f"{held}: {size / 2**30:.1f} GiB are too much to send to {where}; put the data at that path on every node"
        )
    return {name: path.read_bytes() for name, path in paths.items()}


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder in order, through links to folders, each folder once."""
    seen: set[str] = set()
    for place, below, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            below.clear()
            continue
        seen.add(real)
        below.sort()
        for name in sorted(names):
            if not name.startswith(".") and (path := Path(place, name)).is_file():
                yield path
