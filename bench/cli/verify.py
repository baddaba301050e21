"""Hold a folder of results against what can be made of it again: ``python -m bench.verify FOLDER|BUNDLE.zip``."""

from __future__ import annotations

import argparse
import json
import lzma
import random
import secrets
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from bench.analysis.results import results_of
from bench.api import BenchError
from bench.cli.claims import Broken, Claim, Unknown, verdicts
from bench.records.run import Run, load_runs
from bench.registry import ALGORITHMS, load_plugin
from bench.report.outputs import outputs
from bench.settings.code import files_of
from bench.system.files import write_atomic
from bench.system.untrusted import MIB, read_regular
from bench.training.weights import STATE_FILE, WEIGHTS_FILE

TABLES = (".csv", ".json", ".tex", ".md")  # what is made anew and compared; pictures and pages are not
RECORD = (".csv", ".json", WEIGHTS_FILE, STATE_FILE)
PLUGINS, ENTRIES = "plugins", "entries.json"
LARGEST = 4096 * MIB  # of a bundle, unpacked
HOLDS, BROKEN, USAGE, PARTLY = 0, 1, 2, 3

# What zipfile raises of an archive that is cut, altered, encrypted, or packed by a method that it does not know.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, EOFError, ValueError)


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line: verified, verified in part, or what does not hold; returns 0, 3, 1, or 2 for wrong usage."""
    p = argparse.ArgumentParser("python -m bench.verify", description=__doc__)
    p.add_argument("place", type=Path, metavar="FOLDER|BUNDLE.zip", help="what --out was, or what --bundle wrote")
    p.add_argument("--tasks", type=int, default=0, metavar="N", help="answer about N test tasks again, drawn at random")
    p.add_argument("--data-root", type=Path, default=Path("data"), metavar="DIR", help="where data sets are [data]")
    p.add_argument("--test-data-root", type=Path, metavar="DIR", help="where test data sets are [--data-root]")
    p.add_argument("--plugin", action="append", default=[], type=Path, metavar="FILE.py", help="as for run_bench.py")
    p.add_argument("--run-plugins", action="store_true", help="run the plugins that a bundle holds: somebody's code")
    p.add_argument("--draw", type=int, metavar="SEED", help="draw the test tasks that an earlier command drew")
    p.add_argument("--bundle", type=Path, metavar="FILE.zip", help="write what others need to verify, no pictures")
    args = p.parse_args(argv)
    try:
        if args.tasks < 0:
            raise BenchError(f"--tasks {args.tasks}; accepted: 0 or more")
        with tempfile.TemporaryDirectory() as scratch:
            folder = args.place if args.place.is_dir() else unpacked(args.place, Path(scratch) / "bundle")
            own = _entries(folder) if args.run_plugins else []
            if own:
                sys.path.insert(0, str((folder / PLUGINS).resolve()))
            for path in (*args.plugin, *own):
                load_plugin(path)
            seed = secrets.randbelow(2**32) if args.draw is None else args.draw
            status, line = verify(folder, args.data_root, Path(scratch), args.tasks, seed, args.test_data_root)
            if args.bundle is not None and status != BROKEN:
                bundle(folder, args.plugin, args.bundle)
                line += f"\nwritten: {args.bundle}"
    except BenchError as error:
        print(f"bench.verify: {error}", file=sys.stderr)
        return USAGE
    except OSError as error:
        print(f"bench.verify: {error.strerror}: {error.filename}", file=sys.stderr)
        return USAGE
    print(line)
    return status


def verify(
    folder: Path, root: Path, cache: Path, tasks: int, seed: int, test_root: Path | None = None
) -> tuple[int, str]:
    """Return the exit status and the one line."""
    problems: list[str] = []
    runs = [run for run in load_runs(folder, problems.append) if run.ok]
    for run in runs:
        run.curve, run.adaptation, run.test_tasks  # noqa: B018  each tells what was altered
    if problems:
        return BROKEN, f"does not hold: record: {problems[0]}"
    if not runs:
        raise BenchError(f"no finished run under {str(folder)!r}; accepted: what --out was")
    unknown, said = [], []
    if unsealed := [run.row.run_id for run in runs if not run.sealed]:
        unknown.append(f"record: {unsealed[0]} has no seal")
    chance = random.Random(seed)
    for run in runs:
        for name, holds, text in verdicts(Claim(run, (root, test_root or root), cache, tasks, chance)):
            if holds is False:
                return BROKEN, f"does not hold: {name}: {run.row.run_id}: {text}"
            if holds is None:
                unknown.append(f"{name}: {text}")
            elif text:
                said.append(f"{run.row.algo}: {text}")
    try:
        _check_tables(folder, runs)
    except Broken as error:
        return BROKEN, f"does not hold: tables: {error}"
    except Unknown as error:
        unknown.append(f"tables: {error}")
    drawn = f" (--draw {seed})" if tasks else ""
    told = f"{len(runs)} run{'s' * (len(runs) > 1)}{drawn}; {'; '.join(said)}".rstrip("; ")
    if unknown:
        return PARTLY, f"verified in part: {told}; not checked: {'; '.join(dict.fromkeys(unknown))}"
    return HOLDS, f"verified: {told}"


def _check_tables(folder: Path, runs: Sequence[Run]) -> None:
    """Hold the tables against what the records give.

    Raises:
        Broken: one is something else.
        Unknown: one tells settings of an algorithm that is not known here.
    """
    every = load_runs(folder)  # runs that failed are in the tables too
    results, unsure = results_of(every), ""
    absent = sorted({run.row.algo for run in every} - {*ALGORITHMS.names()})
    for one in outputs():
        if one.when != "always" or not one.name.endswith(TABLES):
            continue
        for path, content in one.files(results).items():
            here = folder / path
            if here.exists() and read_regular(here) != content:
                if not absent or here.suffix != ".md":
                    raise Broken(f"{path} is not what the records of {len(runs)} runs give")
                unsure = f"{path} tells settings of {absent[0]!r}, which is not known here; --plugin loads it"
    if unsure:
        raise Unknown(unsure)


def bundle(folder: Path, plugins: Sequence[Path], target: Path) -> None:
    """Write records, weights, tables and plugins into one zip archive: what ``verify`` reads, and nothing else.

    Raises:
        BenchError: plugins hold different files of one name.
        OSError: a file cannot be read or written.
    """
    contents = {file.relative_to(folder).as_posix(): read_regular(file, None) for file in _wanted(folder)}
    contents[f"{PLUGINS}/{ENTRIES}"] = json.dumps([plugin.name for plugin in plugins]).encode()
    for plugin in plugins:
        for file in (plugin, *_beside(plugin)):
            name = f"{PLUGINS}/{file.resolve().relative_to(plugin.resolve().parent).as_posix()}"
            content = read_regular(file)
            if contents.setdefault(name, content) != content:
                raise BenchError(f"--bundle: plugins hold two files {name!r}; accepted: different names")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "bundle.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
        write_atomic(target, path.read_bytes())


def _entries(folder: Path) -> list[Path]:
    """Return the plugins of a bundle, without what they import.

    Raises:
        BenchError: their list is none.
    """
    listed = folder / PLUGINS / ENTRIES
    if not listed.is_file():
        return []
    try:
        names = json.loads(read_regular(listed))
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(n, str) and PurePosixPath(n).name == n for n in names):
        raise BenchError(f"{PLUGINS}/{ENTRIES} of the bundle is no list of file names; accepted: what --bundle wrote")
    return [folder / PLUGINS / name for name in names]


def _wanted(folder: Path) -> Iterator[Path]:
    for file in sorted((*folder.glob("*"), *folder.glob("runs/*/*"))):
        if file.name.endswith(RECORD) and file.is_file() and not file.is_symlink():
            yield file


def _beside(plugin: Path) -> list[Path]:
    """Return what a plugin imports from the folder that it is in."""
    module = load_plugin(plugin)
    parent = plugin.resolve().parent
    return [file for file in files_of(module) if file.is_relative_to(parent) and file != plugin.resolve()]


def unpacked(archive: Path, folder: Path) -> Path:
    """Unpack a bundle and return where; only files of the kinds that ``bundle`` writes, none outside the folder.

    Raises:
        BenchError: it is no bundle.
    """
    if not archive.is_file():
        raise BenchError(f"{str(archive)!r} is neither a folder nor a file; accepted: what --out was, or a bundle")
    try:
        with zipfile.ZipFile(archive) as content:
            if sum(item.file_size for item in content.infolist()) > LARGEST:
                raise BenchError(f"{str(archive)!r} holds more than {LARGEST // MIB:,} MiB; accepted: a bundle")
            for item in content.infolist():
                parts = PurePosixPath(item.filename).parts
                fits = item.filename.endswith(RECORD) or (parts[:1] == (PLUGINS,) and item.filename.endswith(".py"))
                if item.filename.startswith("/") or ".." in parts or "\\" in item.filename or not fits:
                    raise BenchError(f"{str(archive)!r} holds {item.filename[:100]!r}; accepted: what --bundle wrote")
                write_atomic(folder / item.filename, content.read(item))
    except _DAMAGED as error:
        raise BenchError(f"{str(archive)!r}: {error}; accepted: what --bundle wrote") from error
    return folder
