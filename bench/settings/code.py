"""Which code a result belongs to: the files of plugins, all that they are derived from and what they import beside."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from bench.api import TaskSource
from bench.registry import DATASETS
from bench.system.machine import ROOT

_HARNESS = ROOT / "bench"
_NETWORKS = _HARNESS / "backbones"  # plugins that come with the harness
_LIBRARIES = tuple(
    Path(path).resolve() for name, path in sysconfig.get_paths().items() if name.endswith(("lib", "stdlib"))
)


def code_of(*classes: type, further: str = "") -> str | None:
    """Return a hash over the files that decide what classes do, None where one has no file.

    These are the files of the classes and of their bases, and what these files import, from wherever, as long as it is
    neither the harness nor a library. Where a file lies does not matter.

    Args:
        further: what decides besides.
    """
    files: dict[Path, str] = {}
    for cls in classes:
        if not getattr(sys.modules.get(cls.__module__), "__file__", None):
            return None
        for base in cls.__mro__:
            module = sys.modules.get(base.__module__)
            file = getattr(module, "__file__", None)
            if file and (base is cls or _decides(Path(file), cls.__module__)):
                _collect(Path(file), base.__module__, cls.__module__, files)
    digest = hashlib.sha256(further.encode())
    for content in sorted(files.values()):
        digest.update(content.encode())
    return digest.hexdigest()[:12]


def data_code(source: TaskSource) -> str | None:
    """Return a hash over the files that make data and tasks, and over which classes are in which split."""
    if source.name not in DATASETS.names():
        return None
    return code_of(DATASETS.get(source.name), type(source), further=source.split_sha256)


def files_of(module: ModuleType) -> list[Path]:
    """Return the file of a module and those of all that it imports that are somebody's own."""
    found: dict[Path, str] = {}
    if module.__file__:
        _collect(Path(module.__file__), module.__name__, module.__name__, found)
    return list(found)


def _collect(file: Path, name: str, of: str, found: dict[Path, str]) -> None:
    """Add a module's file and what it imports to ``found``, with a hash of each."""
    file = file.resolve()
    if file in found or file.suffix != ".py":
        return
    content = file.read_bytes()
    found[file] = hashlib.sha256(content).hexdigest()
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for imported in _imports(content, package):
        place = _file_of(imported)
        if place is not None and _decides(place, of):
            _collect(place, imported, of, found)


@functools.cache  # a study asks for the code of hundreds of runs
def _imports(content: bytes, package: str) -> list[str]:
    """Return the absolute names of the modules that a file of ``package`` may import, and of their packages."""
    try:
        tree = ast.parse(content)
    except SyntaxError:  # it was edited since it was imported
        return []
    found: dict[str, None] = {}
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inside = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join(filter(None, [*inside, node.module or ""]))
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for whole in names:
            parts = whole.split(".")
            found |= dict.fromkeys(".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return list(found)


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield what is no expression, in which no import can stand: of a file the smaller part."""
    todo = [tree]
    while todo:
        yield (node := todo.pop())
        todo += [part for part in ast.iter_child_nodes(node) if not isinstance(part, ast.expr)]


def _file_of(name: str) -> Path | None:
    """Return the file of a module, found by files and not by what was imported before; None where there is none."""
    top, *inner = name.split(".")
    try:
        spec = importlib.util.find_spec(top) if top else None
        for count, _ in enumerate(inner, start=1):
            places = spec.submodule_search_locations if spec else None
            spec = PathFinder.find_spec(".".join([top, *inner[:count]]), places) if places else None
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def _decides(file: Path, of: str) -> bool:
    """Say whether a file is somebody's own: neither the harness's nor a library's, or of the plugin's own package."""
    file = file.resolve()
    if file.is_relative_to(_HARNESS):
        return file.is_relative_to(_NETWORKS)
    installed = {"site-packages", "dist-packages"} & set(file.parts)
    if not installed and not any(file.is_relative_to(place) for place in _LIBRARIES):
        return True
    package = sys.modules.get(of.partition(".")[0])
    own = [Path(path).resolve() for path in getattr(package, "__path__", [])]
    return any(file.is_relative_to(path) for path in own)
