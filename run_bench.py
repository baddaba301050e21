"""Compare meta-learning algorithms on identical task streams: flags in, tables and plots out."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import os
import shlex
import signal
import sys
import tempfile
import textwrap
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from tabulate import tabulate

from bench.api import BenchError, TaskSource
from bench.config import AUTO, RunConfig, check_range, coerce
from bench.data import load_data
from bench.kernels import available
from bench.locks import tables_turn
from bench.protocols import IDENTITY, Override, check_overrides, check_taken, load_protocol, protocol_names, resolve
from bench.records import load_runs
from bench.registry import (
    ALGORITHMS,
    BACKBONES,
    DATASETS,
    create_algorithm,
    create_backbone,
    hyperparameter_names,
    load_plugin,
    unknown,
)
from bench.report import comparison_table, write_report
from bench.runner import Halted, Place, run_all
from bench.study import STUDIES, Request
from bench.worker import INTERRUPTED, build, stream_plan

FAILED = 1
USAGE = 2
WIDTH = 100  # of what is printed
GRID = ("n_way", "k_shot", "k_query", "seed")  # take comma lists
DEFAULT_PROTOCOL = protocol_names()[0]
NOT_FLAGS = ("algo", "hyperparameters", "backbone_options", "code")
_TYPES = typing.get_type_hints(RunConfig)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status of SPEC 1."""
    argv = sys.argv[1:] if argv is None else list(argv)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # runs have handlers of their own
    try:
        return _main(argv)
    except BenchError as error:
        print(f"run_bench.py: {error}", file=sys.stderr)
        return USAGE
    except Halted as error:
        if isinstance(error.__cause__, BrokenPipeError):
            _drop_output()
        print(f"run_bench.py: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        _drop_output()
        return 0
    except OSError as error:
        print(f"run_bench.py: {error.strerror}: {error.filename}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("run_bench.py: interrupted; the same command continues", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)


def _drop_output() -> None:
    """Let what is still to be printed go nowhere: whoever read it has left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    out, data_root = _folder("--out", args.out), _folder("--data-root", args.data_root)
    jobs = _given("--jobs", args.jobs, int)
    timeout_s = _given("--run-timeout", args.run_timeout, float | None)
    for path in args.plugin:
        load_plugin(path)
    if args.list:
        print(listing())
        return 0
    status = 0
    if not args.report or args.study is not None:
        plugins = tuple(path.resolve() for path in args.plugin)
        place = Place(out, data_root, plugins, _command(argv), args.profile, jobs, timeout_s)
        if args.study is not None:
            return study(args, place)
        configs = plan(args, place)
        say_how(configs, place)
        status = run_all(configs, place, args.fresh, say)
    runs = load_runs(out)
    if args.report and not runs:
        raise BenchError(f"--report: no finished run under {str(out)!r}; --out takes the folder of earlier runs")
    with _tables(after_runs=not args.report):
        write_report(out)
    say(f"\n{comparison_table(runs)}\n")
    tables = "summary.csv, curves.csv, comparisons.csv, time_to_accuracy.csv, anchors.csv"
    say(f"In {out}: summary.md, {tables}, plots/, runs/")
    return status


def plan(args: argparse.Namespace, place: Place) -> list[RunConfig]:
    """Return the configuration of every run, all of them checked before anything is trained.

    Raises:
        BenchError: an unknown name, a value out of range, missing or damaged data, no GPU where one is asked for.
    """
    if args.vary:
        raise BenchError(f"--vary {args.vary[0]!r}: only a study varies settings; add --study NAME")
    asked = request(args, place)
    algos = default_algorithms() if asked.algos is None else asked.algos
    protocol = load_protocol(args.protocol or DEFAULT_PROTOCOL)
    defaults = {f.name: f.default for f in dataclasses.fields(RunConfig)}
    grid = {name: asked.grid.get(name, [None]) for name in GRID}
    configs = []
    for values in itertools.product(*grid.values()):
        cell = {name: value for name, value in zip(grid, values) if value is not None}
        flags = {name: value for name, value in {**asked.flags, **cell}.items() if name not in IDENTITY}
        shape = {name: cell.get(name, defaults[name]) for name in ("n_way", "k_shot", "seed")}
        machine = {"device": asked.device, "dataset": asked.dataset, "threads": asked.threads}
        configs += [resolve(protocol, {"algo": algo, **shape, **machine}, flags, asked.sets) for algo in algos]
    check_taken(asked.sets, configs)
    source = load_data(args.dataset, place.data_root, place.out / "cache", warn)
    configs = [dataclasses.replace(config, dataset=source.name) for config in configs]
    check(configs, source)
    return list({config.run_id: config for config in configs}.values())


def default_algorithms() -> list[str]:
    """Return the registered algorithms that take part where ``--algos`` is left out."""
    return [name for name in ALGORITHMS.names() if ALGORITHMS.get(name).by_default]


def study(args: argparse.Namespace, place: Place) -> int:
    """Run the study that ``--study`` names, or only rebuild its tables for ``--report``; returns the exit status."""
    chosen = STUDIES.get(args.study)()
    if args.protocol is not None:
        raise BenchError(f"--protocol {args.protocol!r}: a study has settings of its own; flags and --set change them")
    if args.dataset not in (AUTO, chosen.dataset) and chosen.dataset is not None:
        raise BenchError(f"--dataset {args.dataset!r}: study {args.study} is about {chosen.dataset}; leave it out")
    if chosen.measures_time and place.jobs > 1:
        raise BenchError(f"--jobs {place.jobs}: study {args.study!r} measures time; accepted: 1")
    place = dataclasses.replace(place, out=place.out / f"study-{args.study}")
    asked = request(args, place)
    chosen.configs(asked)  # whatever is wrong with the request comes before the data is looked for
    source = load_data(chosen.dataset or args.dataset, place.data_root, place.out / "cache", warn)
    asked = dataclasses.replace(asked, dataset=source.name)
    configs = chosen.configs(asked)
    check(configs, source)
    status = 0
    if not args.report:
        say_how(configs, place)
        status = run_all(configs, place, args.fresh, say, chosen.line)
    with _tables(after_runs=not args.report), tables_turn(place.out):
        runs = {run.row.run_id: run for run in load_runs(place.out)}
        text = chosen.report(asked, runs, place.out)
    say(f"\n{text}")
    return status


def request(args: argparse.Namespace, place: Place) -> Request:
    """Return what the command line asks for, its names and values checked one by one.

    Raises:
        BenchError: an unknown name, a value of the wrong kind, no GPU where one is asked for.
    """
    algos = None if args.algos is None else tuple(_names("--algos", args.algos))
    for name in algos or ():
        ALGORITHMS.get(name)
    sets = [Override.parse(text) for text in args.set]
    check_overrides(sets, algos or (ALGORITHMS.names() if args.study else default_algorithms()))
    given = {name: _values(name, text) for name in _flag_names() if (text := getattr(args, name)) is not None}
    single = {name: values[0] for name, values in given.items() if name not in GRID}
    device = single.pop("device", AUTO)
    if device not in (AUTO, "cpu", "cuda"):
        raise BenchError(unknown("device", device, [AUTO, "cpu", "cuda"]))
    if device == "cuda" and not torch.cuda.is_available():
        raise BenchError("--device cuda: torch finds no GPU here; accepted here: auto, cpu")
    if device == AUTO:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if single.get("kernels", AUTO) == AUTO:
        single["kernels"] = available(device)
    if "backbone" in single:
        BACKBONES.get(single["backbone"])
    _check_writable(place.out)
    return Request(
        algos=algos,
        dataset=args.dataset,
        device=device,
        threads=single.pop("threads", None) or max(1, _default_threads() // place.jobs),
        flags=single,
        grid={name: values for name, values in given.items() if name in GRID},
        sets=sets,
        vary=dict(_varied(text) for text in args.vary),
    )


def check(configs: Sequence[RunConfig], source: TaskSource) -> None:
    """Build every run's network and look whether the data can fill its tasks, before anything is trained.

    Raises:
        BenchError: says which cannot.
    """
    for config in configs:
        algorithm = create_algorithm(config.algo, **config.hyperparameters)
        for split, (rotation, episode) in stream_plan(config).items():
            source.check(split, rotation, episode)
        try:
            build(config, algorithm, source.shape, torch.device("cpu"))
        except (TypeError, ValueError, RuntimeError) as error:  # from a plugin's or the user's values
            raise BenchError(
                f"{config.algo} on backbone {config.backbone} cannot be built for {source.name}, whose inputs have the"
                f" shape {tuple(source.shape)}: {error}"
            ) from error


def say_how(configs: Sequence[RunConfig], place: Place) -> None:
    """Say what will show in the times: other work on this machine, and runs beside each other."""
    warn_if_busy()
    if place.jobs > 1:
        threads = " or ".join(str(n) for n in sorted({config.threads or 0 for config in configs}))
        say(f"{place.jobs} runs at a time, --threads {threads} each: times are measured beside other runs")


def warn_if_busy() -> None:
    """Warn if other work on this machine will show in the times."""
    cores = len(os.sched_getaffinity(0))
    if (load := os.getloadavg()[0]) > cores:
        warn(f"this machine is busy (load {load:.1f} on {cores} cores): times measured now will mean little.")


def _default_threads() -> int:
    """Return what the user's environment says, else one thread for each core that this process may use."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else len(os.sched_getaffinity(0))


def _flag_names() -> list[str]:
    fields = [f.name for f in dataclasses.fields(RunConfig)]
    return [name for name in fields if name not in (*NOT_FLAGS, "dataset", "protocol")]


def _values(name: str, text: str) -> list[Any]:
    flag = "--seeds" if name == "seed" else "--" + name.replace("_", "-")
    parts = _names(flag, text) if name in GRID else [text]
    none = RunConfig.__dataclass_fields__[name].metadata["none"]
    values = [coerce(flag, part, _TYPES[name], none) for part in parts]
    return list(dict.fromkeys(values))


def _varied(text: str) -> tuple[str, list[str]]:
    name, equals, values = text.partition("=")
    if not (name and equals and values):
        raise BenchError(f"--vary {text!r}; accepted: setting=A,B,C, as in inner_steps=1,5")
    return name, _names(f"--vary {name}", values)


def _names(flag: str, text: str) -> list[str]:
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise BenchError(f"{flag} {text!r}; accepted: values with single commas between them")
    return list(dict.fromkeys(names))


def _given(flag: str, text: str | None, kind: Any) -> Any:
    """Return the value of a flag that is about this command and not about a run, None if it was not given.

    Raises:
        BenchError: not a number, or not above zero.
    """
    value = None if text is None else coerce(flag, text, kind)
    check_range(flag, value, least=1 if kind is int else None)
    if value is not None and value <= 0:
        raise BenchError(f"{flag} {text!r}; accepted: a number above 0")
    return value


def _folder(flag: str, path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except (RuntimeError, OSError) as error:  # ~nobody, or links in a circle
        raise BenchError(f"{flag} {str(path)!r}: {error}; accepted: a folder") from error


@contextlib.contextmanager
def _tables(after_runs: bool) -> Iterator[None]:
    """Take an error on writing tables for what it is: not wrong usage, if runs have been made."""
    try:
        yield
    except OSError as error:
        if not after_runs:
            raise
        raise Halted.by(error) from error


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as probe:  # without a name, so that nothing is left if we are killed
            probe.write(b"x")
    except OSError as error:
        raise BenchError(
            f"--out {str(out)!r} cannot be written ({error.strerror}); accepted: a folder that can"
        ) from error


def _command(argv: Sequence[str]) -> str:
    return shlex.join(["python", "run_bench.py", *argv])


def say(line: str) -> None:
    """Print a line at once, so that a log can be followed."""
    print(line, flush=True)


def warn(line: str) -> None:
    """Print a warning that cannot be missed."""
    rule = "!" * WIDTH
    print(f"{rule}\n{textwrap.fill(f'WARNING: {line}', WIDTH)}\n{rule}", file=sys.stderr, flush=True)


def listing() -> str:
    """Return the tables of ``--list``: what is registered and the protocols, with settings and papers."""
    algorithms = [(name, _settings(create_algorithm(name)), ALGORITHMS.get(name).paper) for name in ALGORITHMS.names()]
    data = [(name, "", DATASETS.get(name).paper) for name in DATASETS.names()]
    networks = [(name, _settings(create_backbone(name)), BACKBONES.get(name).paper) for name in BACKBONES.names()]
    protocols = [(name, load_protocol(name).summary, "") for name in protocol_names()]
    studies = [(name, STUDIES.get(name).summary, "") for name in STUDIES.names()]
    parts = []
    tables = {"algorithm": algorithms, "dataset": data, "backbone": networks, "protocol": protocols, "study": studies}
    for title, rows in tables.items():
        columns = [title, "settings", "paper"]
        kept = [i for i in range(3) if i == 0 or any(row[i] for row in rows)]
        table = [[row[i] for i in kept] for row in rows]
        parts.append(
            tabulate(table, [columns[i] for i in kept], maxcolwidths=[14, 34, 26] if len(kept) == 3 else [20, 60])
        )
    parts.append("Settings are the defaults of the class; protocols, flags and --set override them (bench/protocols/).")
    return "\n\n".join(parts)


def _settings(plugin: object) -> str:
    return ", ".join(f"{field}={getattr(plugin, field)}" for field in hyperparameter_names(type(plugin)))


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
    p = Parser("run_bench.py", description=__doc__, allow_abbrev=False)
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
    data = p.add_argument_group("data and tasks")
    data.add_argument(
        "--dataset",
        default=AUTO,
        metavar="NAME",
        help=_default(
            "auto, omniglot, glyphs, sine or another; auto is Omniglot, or glyphs with a warning where it is not",
            AUTO,
        ),
    )
    data.add_argument(
        "--data-root",
        default=Path(os.environ.get("BENCH_DATA") or "data"),
        type=Path,
        metavar="DIR",
        help=_default("where Omniglot lies or is put", "data, or the variable BENCH_DATA"),
    )
    budget = p.add_argument_group("budget and settings of a run (defaults are the protocol's)")
    machine = p.add_argument_group("machine and results")
    groups: dict[str, Callable[..., Any]] = dict.fromkeys(
        ("n_way", "k_shot", "k_query", "train_k_shot", "seed", "eval_k_query", "train_rotation", "test_rotation"),
        data.add_argument,
    )
    groups |= dict.fromkeys(
        ("device", "threads", "precision", "task_chunk", "cuda_graph", "kernels"), machine.add_argument
    )
    for f in dataclasses.fields(RunConfig):
        if f.name in _flag_names():
            flag = "--seeds" if f.name == "seed" else "--" + f.name.replace("_", "-")
            text = f.metadata["help"] + (" (a comma list makes a grid)" if f.name in GRID else "")
            groups.get(f.name, budget.add_argument)(
                flag, dest=f.name, metavar=_metavar(f.name), help=_default(text, _effective(f))
            )
    machine.add_argument(
        "--out", default=Path("results"), type=Path, metavar="DIR", help=_default("where results go", "results")
    )
    machine.add_argument(
        "--fresh", action="store_true", help="run again what has finished; older results are set aside, never lost"
    )
    machine.add_argument(
        "--jobs",
        default="1",
        metavar="N",
        help=_default("runs under way at once, each with its share of the cores unless --threads says more", "1"),
    )
    machine.add_argument(
        "--run-timeout",
        metavar="SECONDS",
        help=_default("end a run that takes longer in this command; its checkpoint stays", "none"),
    )
    machine.add_argument(
        "--profile",
        action="store_true",
        help="trace some meta-steps of every run and sum up where their time goes, in runs/RUN_ID/profile/",
    )
    other = p.add_argument_group("instead of running")
    other.add_argument("--list", action="store_true", help="show algorithms, data sets, backbones, protocols, studies")
    other.add_argument("--report", action="store_true", help="rebuild tables and plots from what is in --out")
    return p


def _default(text: str, value: object) -> str:
    return f"{text} [{value}]".replace("%", "%%")


def _metavar(name: str) -> str:
    if name in GRID:
        return "N,M"
    kind = str(_TYPES[name])
    return "N" if "int" in kind else "X" if "float" in kind else "NAME"


def _effective(f: dataclasses.Field[Any]) -> str:
    """Return the default that holds for each protocol, as one word where they agree."""
    values = {}
    for name in protocol_names():
        general = [p.values[f.name] for p in load_protocol(name).presets if not p.where and f.name in p.values]
        values[name] = general[-1] if general else f.default
    if len(set(values.values())) == 1:
        return str(f.default if f.default is not None else f.metadata["none"])
    return ", ".join(f"{f.metadata['none'] if value is None else value} in {name}" for name, value in values.items())


if __name__ == "__main__":
    sys.exit(main())
