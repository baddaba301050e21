"""Names to plugins: the built-in ones, those of ``--plugin`` files, those of installed packages."""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from bench.api import SPACE, Backbone, BenchError, Dataset, MetaAlgorithm, Space
from bench.system.machine import ROOT
from bench.system.start import requirement

T = TypeVar("T")

BUILT_IN = ("algorithms", "datasets", "bench.backbones")
ENTRY_POINTS = ("metabench.algorithms", "metabench.datasets", "metabench.backbones")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
"""What a plugin may be called: names become parts of folders' names, flags and columns."""
_SAID = "BENCH_PLUGIN_WARNINGS"

RAISED = (Exception, SystemExit)
"""What a plugin's code may raise that is its own failure and not the user's wish to stop."""


def said(error: BaseException) -> str:
    """Return what an error of a plugin says, with its type unless it was made for the user to read."""
    return str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def blaming(whom: str) -> Iterator[None]:
    """Make one line that names the plugin of whatever its code raises.

    Raises:
        BenchError: as the plugin raised it, or in place of another error.
    """
    try:
        yield
    except BenchError:
        raise
    except RAISED as error:
        raise BenchError(f"{whom}: {said(error)}") from error


def unknown(what: str, name: str, accepted: Iterable[str]) -> str:
    """Return the one line for a name that is not among ``accepted``: the name, the nearest, all, which may be many."""
    accepted = list(accepted)
    by_letters = {one.lower(): one for one in accepted}
    near = difflib.get_close_matches(str(name).lower(), by_letters, n=1, cutoff=0.5)
    hint = f". Did you mean {by_letters[near[0]]!r}? Accepted" if near else "; accepted"
    return f"unknown {what} {name!r}{hint}: {', '.join(accepted) or 'none'}."


class Registry(Generic[T]):
    """Plugins of one kind by name."""

    def __init__(self, kind: str, base: type[T], load: Callable[[], object] | None = None) -> None:
        self.kind, self.base, self._load_own = kind, base, load
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Return a class decorator that files the class under ``name``; one taken already, or no name, is refused."""

        def add(cls: type[T]) -> type[T]:
            if not (isinstance(name, str) and NAME.fullmatch(name)):
                raise BenchError(
                    f"{self.kind} {name!r} cannot be called that; accepted: 1 to 64 letters, digits and any of _ . + -,"
                    " the first a letter or digit"
                )
            if not (isinstance(cls, type) and issubclass(cls, self.base)):
                raise BenchError(f"{self.kind} {name!r} must be a class derived from {self.base.__name__}, not {cls!r}")
            _refuse_other_arguments(f"{self.kind} {name!r}", cls, self.base)
            if name in self._classes:
                raise BenchError(
                    f"{self.kind} {name!r} is registered twice: in {_where(self._classes[name])} and in {_where(cls)}"
                )
            self._classes[name] = cls
            return cls

        return add

    def _load(self) -> None:
        (self._load_own or load_built_in)()

    def names(self) -> list[str]:
        """Return the registered names in alphabetical order."""
        self._load()
        return sorted(self._classes)

    def in_order(self) -> list[str]:
        """Return the registered names in the order of their registration."""
        self._load()
        return list(self._classes)

    def get(self, name: str) -> type[T]:
        """Return the class registered as ``name``.

        Raises:
            BenchError: no such name; the message holds the accepted ones and the nearest.
        """
        self._load()
        if name not in self._classes:
            text = unknown(self.kind, name, self.names())
            near = "Did you mean" in text  # a slip is likelier than a plugin that was left out
            raise BenchError(text if near or self._load_own else f"{text} One of a plugin needs --plugin FILE.py.")
        return self._classes[name]


def _refuse_other_arguments(whom: str, cls: type, base: type) -> None:
    """Refuse a class with a method that does not take what the harness gives to that of ``base``.

    Raises:
        BenchError: names the method, its arguments and those that it must take.
    """
    for name, method in vars(base).items():
        own = inspect.getattr_static(cls, name)
        if name.startswith("_") or own is method or not (inspect.isfunction(method) and inspect.isfunction(own)):
            continue
        wanted, taken = inspect.signature(method).parameters, inspect.signature(own)
        try:
            taken.bind(*(p for p in wanted.values() if p.default is p.empty))
        except TypeError as error:
            raise BenchError(
                f"{whom}: {name}({', '.join(taken.parameters)}) does not take what it is given; its arguments are"
                f" {name}({', '.join(wanted)})"
            ) from error


def _where(cls: type) -> str:
    return inspect.getsourcefile(cls) or cls.__module__


ALGORITHMS: Registry[MetaAlgorithm] = Registry("algorithm", MetaAlgorithm)  # type: ignore[type-abstract]  # the base is abstract
DATASETS: Registry[Dataset] = Registry("dataset", Dataset)  # type: ignore[type-abstract]  # the base is abstract
BACKBONES: Registry[Backbone] = Registry("backbone", Backbone)  # type: ignore[type-abstract]  # the base is abstract

register_algorithm = ALGORITHMS.register
register_dataset = DATASETS.register
register_backbone = BACKBONES.register
algorithm_names = ALGORITHMS.names


def create_algorithm(name: str, **hyperparameters: object) -> MetaAlgorithm:
    """Return the algorithm ``name`` with its defaults overridden.

    Raises:
        BenchError: no such algorithm or no such hyperparameter, with the accepted ones and the nearest.
    """
    return _create(ALGORITHMS, "hyperparameter", name, hyperparameters)


def create_backbone(name: str, **options: object) -> Backbone:
    """Return the backbone ``name`` with its defaults overridden.

    Raises:
        BenchError: no such backbone or no such option, with the accepted ones and the nearest.
    """
    return _create(BACKBONES, "option", name, options)


def default_algorithms() -> list[str]:
    """Return the registered algorithms that take part where the user leaves the choice."""
    return [name for name in ALGORITHMS.names() if ALGORITHMS.get(name).by_default]


def create_dataset(name: str, **options: object) -> Dataset:
    """Return the data set ``name`` with its defaults overridden.

    Raises:
        BenchError: no such data set or no such option, with the accepted ones and the nearest.
    """
    return _create(DATASETS, "option", name, options)


def _create(registry: Registry[T], what: str, name: str, values: Mapping[str, object]) -> T:
    cls = registry.get(name)
    known = hyperparameter_names(cls)
    for key in values:
        if key not in known:
            raise BenchError(unknown(f"{what} of {name}", key, known))
    with blaming(f"{registry.kind} {name!r}"):
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:  # which speak of the values, for people to read
            raise BenchError(f"{registry.kind} {name!r}: {error}") from error


def hyperparameter_names(cls: type) -> list[str]:
    """Return the names of a plugin's fields, empty for a class that is not a dataclass."""
    return [f.name for f in fields(cls)] if hasattr(cls, "__dataclass_fields__") else []


def hyperparameter_types(cls: type) -> dict[str, Any]:
    """Return the annotations of these fields by name.

    Raises:
        BenchError: one names something that is not there.
    """
    with blaming(f"annotations of {cls.__name__} in {_where(cls)}"):
        hints = typing.get_type_hints(cls)
    return {name: hints[name] for name in hyperparameter_names(cls)}


def search_spaces(cls: type) -> dict[str, Space]:
    """Return what ``--tune`` searches of a dataclass's fields, by name: those made by ``bench.api.searched``."""
    return {f.name: f.metadata[SPACE] for f in fields(cls) if SPACE in f.metadata} if is_dataclass(cls) else {}


@functools.cache
def load_built_in() -> None:
    """Import every module of the built-in plugin packages and every installed plugin.

    An installed plugin that fails costs one line of warning and is not there; everything else is.
    """
    for package_name in BUILT_IN:
        load_package(package_name)
    installed = entry_points()  # of all packages at once: reading them is what takes long
    for group in ENTRY_POINTS:
        for point in sorted(installed.select(group=group), key=lambda point: (point.name, point.value)):
            try:
                point.load()
            except RAISED as error:  # a plugin may raise anything; the user needs to know which one
                _warn_once(f"installed plugin {point.value!r} ({group}) is left out, its import failed: {said(error)}")


def _warn_once(text: str) -> None:
    """Print a warning in one line, unless this process or the one that started it has done so."""
    line = " ".join(f"WARNING: {text}".split())
    said = os.environ.get(_SAID, "").split("\n")
    if line not in said:
        os.environ[_SAID] = "\n".join(filter(None, [*said, line]))  # which the processes of the runs inherit
        print(line, file=sys.stderr, flush=True)


@functools.cache
def load_package(package_name: str) -> None:
    """Import every module of a package of plugins.

    Raises:
        BenchError: one of them failed; the message names it.
    """
    package = importlib.import_module(package_name)
    for module in pkgutil.iter_modules(package.__path__):
        name = f"{package_name}.{module.name}"
        try:
            importlib.import_module(name)
        except BenchError:
            raise
        except RAISED as error:  # somebody's file dropped in may raise anything
            needed = requirement(error.name) if isinstance(error, ModuleNotFoundError) else None
            raise BenchError(f"module {name} failed on import: {needed or said(error)}") from error


def load_plugin(path: Path) -> ModuleType:
    """Return the module of a file that a user named with ``--plugin``, imported once however often it is named.

    Raises:
        BenchError: no such file, or it raised on import.
    """
    load_built_in()
    try:
        path = path.resolve()
    except (RuntimeError, OSError, ValueError) as error:  # links in a circle, a NUL
        raise BenchError(f"plugin {str(path)!r}: {error}; --plugin takes the path of a Python file") from error
    if not path.is_file():
        raise BenchError(f"plugin {str(path)!r} is not a file; --plugin takes the path of a Python file")
    name = f"bench_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    if path.is_relative_to(ROOT):  # of algorithms/ and its like, imported already
        known = sys.modules.get(".".join(path.relative_to(ROOT).with_suffix("").parts))
        if known is not None and known.__file__ == str(path):
            return known
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BenchError(f"plugin {str(path)!r} is not a Python file (its name must end in .py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with blaming(f"plugin {str(path)!r} failed on import"):
            spec.loader.exec_module(module)
    except BenchError:
        del sys.modules[name]
        raise
    return module
