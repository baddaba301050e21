"""Configuration files: the flags of a whole grid in TOML, and the resolved ones of a command, saved with its results.

TOML alone: Python reads it without a further package, protocols are TOML already, and YAML would take ``no`` for false
and ``1e-3`` for text.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from bench.api import BenchError
from bench.cli.flags import DEFAULT_PROTOCOL, GRID, flag_names, folder, values_of
from bench.registry import unknown
from bench.runs.launchers.options import LOCAL, RAYS_OWN
from bench.runs.runner import Place
from bench.settings.config import RunConfig
from bench.settings.protocols import IDENTITY, Override
from bench.studies.study import Request
from bench.system.files import write_atomic
from bench.system.untrusted import MIB, read_regular

FILE = "config.toml"
VERSION = 1
_FORMAT = "format"
_RESOLVED = "resolved"
_DECIDING = ("algos", "protocol", "backbone", "n_way", "k_shot")  # what the settings of a resolved file depend on
_NOT_KEYS = ("help", "config")

_HEADER = """\
# What the last command on this folder asked for, with every setting that it had decided. It goes on with
#     python run_bench.py --config {name}
# Flags beside --config override it, but not with an algorithm, protocol, network or shape of tasks that it was not
# decided for. Paths are relative to this file.
"""


def keys(parser: argparse.ArgumentParser, but: Collection[str] = _NOT_KEYS) -> dict[str, argparse.Action]:
    """Return the flag of every key that a configuration file may hold, named like the flag: ``n_way``, ``seeds``."""
    return {
        action.option_strings[0].removeprefix("--").replace("-", "_"): action
        for action in parser._actions
        if action.dest not in but
    }


def arguments(path: Path, parser: argparse.ArgumentParser, typed: argparse.Namespace) -> list[str]:
    """Return the command line that a configuration file stands for; what the user types comes after it, and wins.

    A file that a command has left holds every setting that was decided for its protocol, network and shape of tasks:
    others cannot be asked for beside it. ``set`` lines of algorithms in it that are not typed are left out.

    Args:
        typed: what the user typed besides.
    Raises:
        BenchError: no TOML file, one of another version, a key that no flag has, or a value that no flag takes;
            something typed for which the file's settings were not made.
    """
    where, known = f"--config {str(path)!r}", keys(parser)
    try:
        path = path.expanduser()
        data = read_regular(path, MIB)
    except (OSError, RuntimeError, ValueError) as error:
        raise BenchError(f"{where}: {getattr(error, 'strerror', error)}; accepted: a TOML file") from error
    try:
        content = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BenchError(f"{where} is not TOML: {' '.join(str(error).split())} (YAML is not read)") from error
    version = content.pop(_FORMAT, VERSION)
    if isinstance(version, bool) or version != VERSION:
        raise BenchError(f"{where} has format {version!r}; this version of run_bench.py reads format {VERSION}")
    resolved = content.pop(_RESOLVED, False)
    if not isinstance(resolved, bool):
        raise BenchError(f"{where}: {_RESOLVED} is {resolved!r}; accepted: true or false")
    if resolved:
        _check_made_for(where, content, typed)
    found: list[str] = []
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in known:
            raise BenchError(unknown(f"key in {where}", key, known))
        found += words(f"{where}: {key}", known[name], value, path.parent)
    held = content.get("algos")
    if typed.algos is None or not isinstance(held, list):
        return found
    left_out = set(map(str, held)) - {name.strip() for name in typed.algos.split(",")}
    return [word for word in found if not _sets_one_of(word, left_out)]


def _check_made_for(where: str, content: Mapping[str, Any], typed: argparse.Namespace) -> None:
    """Refuse what is typed beside a resolved file if its settings were decided for something else."""
    asked = {name: getattr(typed, name) for name in _DECIDING}
    for override in map(Override.parse, typed.set):
        if override.name in _DECIDING:
            asked[override.name] = override.value
    for name, text in asked.items():
        held = content.get(name)
        accepted = [str(value) for value in (held if isinstance(held, list) else [held] if held is not None else [])]
        if text is not None and not {part.strip() for part in text.split(",")} <= set(accepted):
            flag = f"--{name.replace('_', '-')}"
            raise BenchError(
                f"{flag} {text!r} beside {where}, in which a command has left all that it had decided for"
                f" {flag} {','.join(accepted) or 'of several kinds'}; accepted: that, or flags without the file"
            )


def _sets_one_of(word: str, algos: Collection[str]) -> bool:
    """Say whether a word sets something of one of ``algos``."""
    _, is_set, setting = word.partition("--set=")
    algo, dot, _ = setting.partition("=")[0].rpartition(".")
    return bool(is_set and dot) and algo in algos


def words(where: str, action: argparse.Action, value: Any, beside: Path) -> list[str]:
    """Return the command line that a flag's value stands for; paths are relative to the folder ``beside``.

    Raises:
        BenchError: the flag takes no such value; names ``where`` it stands.
    """
    flag = action.option_strings[0]
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise BenchError(f"{where} is {value!r}; accepted: true or false")
        negative = [text for text in action.option_strings if text.startswith("--no-")]
        return [flag] if value else negative
    parts = value if isinstance(value, list) else [value]
    if lost := [part for part in parts if isinstance(part, list | dict)]:
        raise BenchError(f"{where} holds {lost[0]!r}; accepted: a value, or a list of values")
    texts = [_text(part) for part in parts]
    if action.type is Path:
        texts = [text if text.startswith("~") else str(beside / text) for text in texts]
    if isinstance(action.default, list):  # a flag that may be given several times
        return [f"{flag}={text}" for text in texts]
    return [f"{flag}={','.join(texts)}"]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def resolved(args: argparse.Namespace, asked: Request, configs: Sequence[RunConfig]) -> dict[str, Any]:
    """Return what a configuration file must hold to ask for exactly these runs.

    That is every setting that is the same in all of them, and for every algorithm those that are the same in its own;
    the protocol, which is named, gives the rest, such as what depends on ``n_way``.
    """
    algos = list(dict.fromkeys(config.algo for config in configs))
    found: dict[str, Any] = {
        "algos": algos,
        "protocol": args.protocol or DEFAULT_PROTOCOL,
        "dataset": configs[0].dataset,
    }
    per_algo: list[str] = []
    for name in flag_names():
        key = "seeds" if name == "seed" else name
        if name in asked.grid:
            found[key] = list(asked.grid[name])
        elif (value := _shared(getattr(config, name) for config in configs)) is not _DIFFERENT:
            found[key] = [value] if name in GRID else _plain(value)
        elif name not in IDENTITY:
            if name in asked.flags:  # the same for all, of which it changes nothing in some: test_n_way, say
                found[key] = _plain(asked.flags[name])
            own = {algo: _shared(getattr(c, name) for c in configs if c.algo == algo) for algo in algos}
            per_algo += [f"{algo}.{name}={_text(_plain(v))}" for algo, v in own.items() if v is not _DIFFERENT]
    for algo in algos:
        mine = [config for config in configs if config.algo == algo]
        hyper = _agreed([config.hyperparameters for config in mine])
        options = _agreed([config.backbone_options for config in mine])
        options = {name: value for name, value in options.items() if name not in hyper}
        per_algo += [f"{algo}.{name}={_text(_plain(value))}" for name, value in {**options, **hyper}.items()]
    both = _agreed_data(configs[0])
    of_data = [f"{name}={_text(_plain(value))}" for name, value in both.items()]
    return {**found, "set": [*of_data, *per_algo]}


def _agreed_data(config: RunConfig) -> dict[str, Any]:
    """Return the options of both data sets, without those in which they differ: defaults, which ``--set`` is not."""
    one, other = config.dataset_options, config.test_dataset_options
    return {n: v for n, v in {**other, **one}.items() if other.get(n, v) == v}


def as_given(args: argparse.Namespace, asked: Request) -> dict[str, Any]:
    """Return what a configuration file must hold to ask for the same study or search: what was given, and where."""
    found: dict[str, Any] = {"study": args.study, "protocol": args.protocol, "dataset": asked.dataset}
    found |= {"tune": args.tune, "tune_steps": args.tune_steps}
    if asked.algos is not None:
        found["algos"] = list(asked.algos)
    for name in flag_names():
        if (text := getattr(args, name)) is not None:
            values = [_plain(value) for value in values_of(name, text)]
            found["seeds" if name == "seed" else name] = values if name in GRID else values[0]
    return {**found, "device": asked.device, "threads": asked.threads, "set": args.set, "vary": args.vary}


def save(args: argparse.Namespace, place: Place, settings: Mapping[str, Any]) -> None:
    """Write ``config.toml`` beside the results: the settings, where things are, and how runs are made."""
    table = {
        _FORMAT: VERSION,
        _RESOLVED: args.study is None and args.tune is None,
        **{key: value for key, value in settings.items() if value not in ([], None)},
        "plugin": [str(path) for path in place.plugins],
        "data_root": str(place.data_root),
        **({} if place.test_data_root is None else {"test_data_root": str(place.test_data_root)}),
        "out": ".." if args.study else ".",
        **({"jobs": place.jobs} if args.launcher == LOCAL else {"launcher": args.launcher}),
        **{name: value for name in RAYS_OWN if (value := getattr(args, name)) is not None},
        "exclusive": args.exclusive,
        **({} if place.run_timeout_s is None else {"run_timeout": place.run_timeout_s}),
        "profile": place.profile,
        "tensorboard": args.tensorboard,
        "quiet": args.quiet,
        **({} if args.log_file is None else {"log_file": str(folder("--log-file", args.log_file))}),
    }
    text = tomli_w.dumps(table).encode("utf-8", "backslashreplace").decode()
    write_atomic(place.out / FILE, _HEADER.format(name=FILE) + text)


_DIFFERENT = object()


def _shared(values: Iterable[Any]) -> Any:
    """Return the one value that all are, _DIFFERENT if there are several."""
    first, *rest = values
    return first if all(value == first and type(value) is type(first) for value in rest) else _DIFFERENT


def _agreed(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings on which all agree, as far as ``--set`` can say them."""
    shared = {name: _shared(s.get(name, _DIFFERENT) for s in settings) for name in settings[0]}
    return {n: v for n, v in shared.items() if v is None or isinstance(v, bool | int | float | str)}


def _plain(value: Any) -> Any:
    return "none" if value is None else value
