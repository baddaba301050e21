"""A page per registered algorithm, from its file and the committed results: adding an algorithm edits nothing here."""

import importlib
import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pandas as pd
from markup import cell, code, linked, prose, table
from reference import REPOSITORY, kind

import bench
from bench.api import MetaAlgorithm
from bench.registry import ALGORITHMS, hyperparameter_names, hyperparameter_types, search_spaces
from bench.settings.protocols import Preset, load_protocol, protocol_names, resolve

RESULTS = REPOSITORY / "results" / "reference"
SHOWN = {"n_way": 5, "k_shot": 1}
"""The setting whose values are shown; other shapes of tasks are listed as the protocols' files name them."""
MOST_ROWS = 20
"""Of one folder; more are measurements of a study, which its page sums up."""
RUN_SETTINGS = (
    *("meta_steps", "meta_batch", "meta_optimizer", "meta_lr", "meta_lr_schedule", "k_query", "eval_inner_steps"),
    *("train_rotation", "test_rotation", "network"),
)
ORDERS = {
    "first": "first: it leaves derivatives of the inner loop out",
    "second": "second: the exact gradient through the inner loop",
    None: "no claim",
}


def files(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the page of every registered algorithm, and the table of all; ``folder`` has the parts by hand."""
    names = ALGORITHMS.names()
    rows = [(f"[{name}]({name}.md)", lead(name), _order(name), linked(ALGORITHMS.get(name).paper)) for name in names]
    yield "_generated/algorithms.md", table(("algorithm", "in one sentence", "order", "paper"), rows)
    for name in names:
        yield f"algorithms/{name}.md", page(name, folder / f"_{name}.md")


def page(name: str, by_hand: Path) -> str:
    """Return the page of one algorithm, with the part by hand where there is one and else its docstring."""
    cls = ALGORITHMS.get(name)
    told = f"```{{include}} {by_hand.name}\n```" if by_hand.is_file() else f"## What it does\n\n{_docstring(cls)[0]}"
    by_default = "yes" if cls.by_default else "no: name it with `--algos`"
    return "\n".join(
        [
            f"# {name}\n\n{lead(name)}\n",
            f"- **Order**: {ORDERS.get(cls.order, cls.order)}",
            f"- **Paper**: {linked(cls.paper)}",
            f"- **Takes part where `--algos` is left out**: {by_default}\n",
            told,
            f"\n## Settings\n\nChange one with `--set {name}.SETTING=VALUE`.\n",
            settings(cls),
            f"## What each protocol decides\n\nThese values hold at {SHOWN['n_way']}-way {SHOWN['k_shot']}-shot.\n",
            decided(name),
            other_shapes(name),
            "## Reference results\n",
            results(name),
            _source(cls),
        ]
    )


def lead(name: str) -> str:
    """Return the first sentence of the file that defines an algorithm, or of its class."""
    cls = ALGORITHMS.get(name)
    text = inspect.getdoc(importlib.import_module(cls.__module__)) or inspect.getdoc(cls) or ""
    return prose(" ".join(text.split("\n\n")[0].split()))


def _order(name: str) -> str:
    return ALGORITHMS.get(name).order or "-"


def _docstring(cls: type) -> tuple[str, dict[str, str]]:
    """Return what the docstring of a class says, and what it says of each attribute."""
    text, _, attributes = (inspect.getdoc(cls) or "").partition("\nAttributes:\n")
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    return prose(text), {name: prose(" ".join(meaning.split())) for name, meaning in found}


def settings(cls: type[MetaAlgorithm]) -> str:
    """Return a table of an algorithm's settings with types and defaults."""
    types, defaults = hyperparameter_types(cls), cls()
    meanings = {name: meaning for base in reversed(cls.__mro__) for name, meaning in _docstring(base)[1].items()}
    headers, spaces = ["setting", "type", "default"], search_spaces(cls)
    headers += [*(["searched by `--tune`"] if spaces else []), *(["meaning"] if meanings else [])]
    rows = []
    for name in hyperparameter_names(cls):
        row = [code(name), kind(types[name]), code(getattr(defaults, name))]
        row += [str(spaces.get(name, "-"))] if spaces else []
        rows.append((*row, *([meanings.get(name)] if meanings else [])))
    return table(headers, rows)


def decided(name: str) -> str:
    """Return a table of what each protocol comes to for an algorithm."""
    found = {}
    for protocol in protocol_names():
        identity = {"algo": name, "dataset": "omniglot", **SHOWN, "seed": 0, "device": "cpu", "threads": 1}
        config = resolve(load_protocol(protocol), identity, {}, [])
        found[protocol] = {**config.hyperparameters, **{field: getattr(config, field) for field in RUN_SETTINGS}}
    names = [*hyperparameter_names(ALGORITHMS.get(name)), *RUN_SETTINGS]
    rows = [(code(field), *(_short(values[field]) for values in found.values())) for field in names]
    return table(("setting", *found), rows)


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


def other_shapes(name: str) -> str:
    """Return what protocols set of an algorithm for other shapes of tasks, a line each."""
    lines = []
    for protocol in protocol_names():
        for preset in load_protocol(protocol).presets:
            if preset.where.get("algo") == name and not _shown(preset):
                where = ", ".join(f"{key}={value}" for key, value in preset.where.items() if key != "algo")
                values = ", ".join(f"{key}={value}" for key, value in preset.values.items())
                lines.append(f"- {code(protocol)}, {where}: {code(values)}")
    return "\n".join(["For other shapes of tasks:\n", *lines, ""]) if lines else ""


def _shown(preset: Preset) -> bool:
    return all(SHOWN.get(key, value) == value for key, value in preset.where.items())


@cache
def _loaded() -> Mapping[str, pd.DataFrame]:
    folders = sorted(path.parent for path in RESULTS.glob("*/runs"))
    order = sorted(folders, key=lambda folder: (folder.name.startswith("study-"), folder.name != "quick-cpu"))
    return {folder.name: bench.load_results(folder) for folder in order}


def results(name: str) -> str:
    """Return a table of an algorithm's committed runs."""
    headers = ("results", "setting", "meta-steps", "inner steps and rate", "tuning", "precision", "seed")
    rows, many = [], []
    for folder, runs in _loaded().items():
        own, link = runs[(runs["algo"] == name) & runs["ok"]], f"[{folder}](../gallery/{folder}.md)"
        if len(own) > MOST_ROWS:
            many.append(f"{link} holds {len(own)} further runs.")
            continue
        for run in own.itertuples():
            measure = "error" if run.measure == "mse" else "acc"
            scores = [_score(run, f"test_{measure}{mode}") for mode in ("", "_transductive")]
            shape = f"{run.n_way}-way {run.k_shot}-shot" if measure == "acc" else f"{run.dataset}, mean squared error"
            costs = (f"{run.train_s:,.0f}", f"{run.step_ms_median:.1f}")
            inner = "-" if pd.isna(run.inner_steps) else f"{run.inner_steps} at {run.inner_lr:.3g}"
            tuning = "-" if pd.isna(run.tuning_trials) or not run.tuning_trials else f"{run.tuning_trials} trials"
            of_run = (f"{run.meta_steps:,}", inner, tuning, run.precision, run.seed)
            rows.append((link, shape, *of_run, *scores, *costs))
    if not rows:
        return " ".join(many) or "No committed run has it."
    return "\n".join([table((*headers, "plain", "transductive", "training, s", "step, ms"), rows), *many])


def _score(run: typing.Any, column: str) -> str:
    mean, half = getattr(run, column), getattr(run, f"{column}_ci95")
    return "-" if pd.isna(mean) else f"{cell(f'{mean:.4f}')} ± {half:.4f}"


def _source(cls: type) -> str:
    file = inspect.getsourcefile(cls)
    path = Path(file).resolve() if file else REPOSITORY
    if not path.is_relative_to(REPOSITORY):
        return ""
    shown = path.relative_to(REPOSITORY)
    return f"\n## The code\n\n```{{literalinclude}} ../../{shown}\n:language: python\n:caption: {shown}\n```\n"
