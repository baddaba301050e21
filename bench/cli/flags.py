"""The command line: flags made from RunConfig's fields, each with its default, and the reading of their values."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bench.api import BenchError
from bench.registry import BACKBONES, default_algorithms, unknown
from bench.runs.launchers.options import add_flags as add_launcher_flags
from bench.settings.config import CODE, OPTIONS, TUNING, RunConfig
from bench.settings.protocols import Protocol, load_protocol, protocol_names
from bench.settings.values import check_range, coerce
from bench.tasks.data import AUTO

DESCRIPTION = "Compare meta-learning algorithms on identical task streams: flags in, tables and plots out."
USAGE = 2
"""Exit status of wrong usage."""
GRID = ("n_way", "k_shot", "k_query", "seed")  # take comma lists
DEFAULT_PROTOCOL = protocol_names()[0]
NOT_FLAGS = ("algo", *OPTIONS, *CODE, *TUNING)
_SWITCH = argparse.BooleanOptionalAction  # so that a flag can undo what a configuration file says
_TYPES = typing.get_type_hints(RunConfig)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the line and leave with status 2."""
        words = message.split("unrecognized arguments: ")
        if len(words) == 2:
            flags = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
            message = unknown("flag", words[1].split()[0], flags)
        print(f"run_bench.py: {message}", file=sys.stderr)
        sys.exit(USAGE)


def parser() -> Parser:
    """Return the command line's parser; flags of a run are made from RunConfig's fields."""
    p = Parser("run_bench.py", description=DESCRIPTION, allow_abbrev=False)
    what = p.add_argument_group("what to compare")
    what.add_argument(
        "--algos",
        metavar="A,B,C",
        help=_default("registered algorithms, run in this order", ",".join(default_algorithms())),
    )
    what.add_argument(
        "--protocol",
        metavar="NAME",
        help=_default(f"budget and settings: {', '.join(protocol_names())}", DEFAULT_PROTOCOL),
    )
    what.add_argument(
        "--study",
        metavar="NAME",
        help="a question with runs of its own, in OUT/study-NAME, instead of the comparison; see --list",
    )
    what.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="SETTING=A,B,C",
        help="let the study vary this alone, over these values; repeatable [all that it knows]",
    )
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[ALGO.]FIELD=VALUE",
        help="override one setting of one algorithm, or of all that have it; repeatable",
    )
    what.add_argument(
        "--plugin",
        action="append",
        default=[],
        type=Path,
        metavar="FILE.py",
        help="import a file that registers algorithms, data sets or backbones; repeatable",
    )
    what.add_argument(
        "--tune",
        metavar="N",
        help="search N times for the settings of each algorithm, on meta-validation, then make the runs with the best",
    )
    what.add_argument(
        "--tune-steps", metavar="N", help=_default("meta-steps of each trial of --tune", "those of a run")
    )
    data = p.add_argument_group("data and tasks")
    data.add_argument(
        "--dataset",
        default=AUTO,
        metavar="NAME",
        help=_default(
            "auto, omniglot, glyphs, folder (your own pictures), cifar-fs, sine or another; auto is Omniglot, or glyphs"
            " with a warning where it is not",
            AUTO,
        ),
    )
    data.add_argument(
        "--data-root",
        default=Path(os.environ.get("BENCH_DATA") or "data"),
        type=Path,
        metavar="DIR",
        help=_default("where Omniglot lies or is put, or your own pictures lie", "data, or the variable BENCH_DATA"),
    )
    data.add_argument(
        "--test-data-root",
        type=Path,
        metavar="DIR",
        help=_default("the same for --test-dataset", "--data-root"),
    )
    budget = p.add_argument_group("budget and settings of a run (defaults are the protocol's)")
    machine = p.add_argument_group("machine and results")
    groups: dict[str, Callable[..., Any]] = dict.fromkeys(
        (
            "n_way",
            "k_shot",
            "k_query",
            "train_k_shot",
            "train_classes",
            "seed",
            "eval_k_query",
            "train_rotation",
            "test_rotation",
        ),
        data.add_argument,
    )
    groups |= dict.fromkeys(("test_dataset", "test_n_way", "test_k_shot", "test_corruption"), data.add_argument)
    groups |= dict.fromkeys(
        ("device", "threads", "precision", "task_chunk", "cuda_graph", "kernels"), machine.add_argument
    )
    protocols = [load_protocol(name) for name in protocol_names()]
    for f in dataclasses.fields(RunConfig):
        if f.name in flag_names():
            flag = "--seeds" if f.name == "seed" else "--" + f.name.replace("_", "-")
            text = f.metadata["help"] + (" (a comma list makes a grid)" if f.name in GRID else "")
            if unnamed := [word for word in _accepted(f) if word not in re.findall(r"\w+", text)]:
                text += f" ({', '.join(unnamed) if len(unnamed) < 4 else 'one of ' + ', '.join(unnamed)})"
            groups.get(f.name, budget.add_argument)(
                flag, dest=f.name, metavar=_metavar(f.name), help=_default(text, _effective(f, protocols))
            )
    machine.add_argument(
        "--out", default=Path("results"), type=Path, metavar="DIR", help=_default("where results go", "results")
    )
    machine.add_argument(
        "--fresh",
        action=_SWITCH,
        default=False,
        help="run again what has finished; older results are set aside, never lost",
    )
    add_launcher_flags(machine.add_argument)
    machine.add_argument(
        "--run-timeout",
        metavar="SECONDS",
        help=_default("end a run that takes longer in this command; its checkpoint stays", "none"),
    )
    machine.add_argument(
        "--profile",
        action=_SWITCH,
        default=False,
        help="trace some meta-steps of every run and sum up where their time goes, in runs/RUN_ID/profile/",
    )
    shown = p.add_argument_group("what is said and written besides")
    shown.add_argument(
        "--quiet", action=_SWITCH, default=False, help="print warnings and errors only; tables are in --out"
    )
    shown.add_argument(
        "--log-file", type=Path, metavar="FILE", help="append all that is said to FILE, with the time; see --quiet"
    )
    shown.add_argument(
        "--tensorboard",
        action=_SWITCH,
        default=False,
        help="write every run's curves and hyperparameters for TensorBoard, in OUT/tensorboard/",
    )
    shown.add_argument(
        "--config",
        type=Path,
        metavar="FILE.toml",
        help="take flags from a TOML file, named as here (n_way = [5, 20]); flags given besides override it."
        " Every command leaves its own in OUT/config.toml",
    )
    other = p.add_argument_group("instead of running")
    other.add_argument("--list", action="store_true", help="show algorithms, data sets, backbones, protocols, studies")
    other.add_argument("--report", action="store_true", help="rebuild tables, plots and report.html from --out")
    return p


def _default(text: str, value: object) -> str:
    return f"{text} [{value}]".replace("%", "%%")


def _accepted(f: dataclasses.Field[Any]) -> Sequence[str]:
    """Return the words that a flag takes; of backbones those that are here without plugins."""
    return BACKBONES.names() if f.name == "backbone" else f.metadata.get("choices") or ()


def _metavar(name: str) -> str:
    if name in GRID:
        return "N,M"
    kind = str(_TYPES[name])
    return "N" if "int" in kind else "X" if "float" in kind else "NAME"


def _effective(f: dataclasses.Field[Any], protocols: Sequence[Protocol]) -> str:
    """Return the default that holds for each protocol, as one word where they agree."""
    values = {}
    for protocol in protocols:
        general = [p.values[f.name] for p in protocol.presets if not p.where and f.name in p.values]
        values[protocol.name] = general[-1] if general else f.default
    if len(set(values.values())) == 1:
        return str(f.default if f.default is not None else f.metadata["none"])
    return ", ".join(f"{f.metadata['none'] if value is None else value} in {name}" for name, value in values.items())


def flag_names() -> list[str]:
    """Return the fields of RunConfig that have a flag of their own, made from them."""
    fields = [f.name for f in dataclasses.fields(RunConfig)]
    return [name for name in fields if name not in (*NOT_FLAGS, "dataset", "protocol")]


def values_of(name: str, text: str) -> list[Any]:
    """Return the values of a field of RunConfig that its flag was given, several where it takes a comma list.

    Raises:
        BenchError: not of the field's type; names the flag, the value and what is accepted.
    """
    flag = "--seeds" if name == "seed" else "--" + name.replace("_", "-")
    parts = names_in(flag, text) if name in GRID else [text]
    none = RunConfig.__dataclass_fields__[name].metadata["none"]
    values = [coerce(flag, part, _TYPES[name], none) for part in parts]
    return list(dict.fromkeys(values))


def varied(text: str) -> tuple[str, list[str]]:
    """Return setting and values of a ``--vary``.

    Raises:
        BenchError: not of the form ``setting=A,B,C``.
    """
    name, equals, values = text.partition("=")
    if not (name and equals and values):
        raise BenchError(f"--vary {text!r}; accepted: setting=A,B,C, as in inner_steps=1,5")
    return name, names_in(f"--vary {name}", values)


def names_in(flag: str, text: str) -> list[str]:
    """Return the parts of a comma list, each once.

    Raises:
        BenchError: one is empty.
    """
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise BenchError(f"{flag} {text!r}; accepted: values with single commas between them")
    return list(dict.fromkeys(names))


def given(flag: str, text: str | None, kind: Any) -> Any:
    """Return the value of a flag that is about this command and not about a run, None if it was not given.

    Raises:
        BenchError: not a number, or not above zero.
    """
    value = None if text is None else coerce(flag, text, kind)
    check_range(flag, value, least=1 if kind is int else None)
    if value is not None and value <= 0:
        raise BenchError(f"{flag} {text!r}; accepted: a number above 0")
    return value


def folder(flag: str, path: Path) -> Path:
    """Return a folder that the user named as an absolute path.

    Raises:
        BenchError: there can be no such folder.
    """
    try:
        return path.expanduser().resolve()
    except (RuntimeError, OSError, ValueError) as error:  # ~nobody, links in a circle, a NUL
        raise BenchError(f"{flag} {str(path)!r}: {error}; accepted: a folder") from error
