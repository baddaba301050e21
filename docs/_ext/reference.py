"""Reference pages from the code itself: flags, settings, columns, outputs, protocols, plugins."""

import argparse
import dataclasses
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markup import code, linked, prose, stacked, table

from bench.analysis.comparison import Comparison
from bench.analysis.published import ANCHOR_COLUMNS, Anchor, Beside
from bench.analysis.time_to_accuracy import Reached
from bench.analysis.tuning import TrialRow
from bench.cli.flags import parser
from bench.records.columns import AdaptationPoint, CurvePoint, SummaryRow, TestTask
from bench.registry import BACKBONES, DATASETS, hyperparameter_names
from bench.report.outputs import outputs
from bench.settings.config import RunConfig
from bench.settings.protocols import FOLDER, load_protocol, protocol_names
from bench.studies.study import STUDIES
from bench.tasks.corruption import CORRUPTIONS

REPOSITORY = Path(__file__).resolve().parents[2]
TABLES: Mapping[str, tuple[Sequence[str], Sequence[type]]] = {
    "summary.csv": (SummaryRow.columns(), (SummaryRow,)),
    "curves.csv": (("run_id", "algo", "seed", *CurvePoint.columns()), (CurvePoint, SummaryRow)),
    "comparisons.csv": (Comparison.COLUMNS, (Comparison,)),
    "time_to_accuracy.csv": (Reached.columns(), (Reached,)),
    "anchors.csv": (ANCHOR_COLUMNS, (Anchor, Beside)),
    "tuning.csv": (TrialRow.columns(), (TrialRow,)),
    "test_tasks.csv": (TestTask.columns(), (TestTask,)),
    "adaptation.csv": (AdaptationPoint.columns(), (AdaptationPoint,)),
}
"""Columns of every table, and the row types that know their kinds."""
_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def flags() -> str:
    """Return every flag of the command line under its group: what it takes, what it means, its default."""
    command = parser()
    formatter = command._get_formatter()
    parts = []
    for group in command._action_groups:
        actions = [a for a in group._group_actions if a.dest != "help"]
        if not actions:
            continue
        parts.append(f"## {str(group.title).capitalize()}\n")
        for action in actions:
            names = ", ".join(f"{name} {action.metavar}" if action.metavar else name for name in action.option_strings)
            text, default = _text_and_default(formatter._expand_help(action), action)
            parts.append(f"```{{option}} {names}\n{_sentence(text, default)} Default: {code(default)}.\n```\n")
    return "\n".join(parts)


def _text_and_default(text: str, action: argparse.Action) -> tuple[str, str]:
    """Part a help text from the default in brackets at its end."""
    found = re.fullmatch(r"(.*\S)\s+\[(.*)\]", text, re.DOTALL)
    if found:
        return found[1], found[2]
    return text, "off" if action.nargs == 0 else "none"


def _sentence(text: str, name: str = "") -> str:
    """Return a text as a sentence, its capital letter left out where the first word is ``name``."""
    text = re.sub(r"(?<!`)(--[a-z][a-z-]+)", r"`\1`", text.strip().rstrip("."))
    return f"{text}." if name and text.startswith(name) else f"{text[:1].upper()}{text[1:]}."


def settings() -> str:
    """Return a table of the settings of a run: the fields of RunConfig."""
    hints = typing.get_type_hints(RunConfig)
    rows = []
    for f in dataclasses.fields(RunConfig):
        if "help" not in f.metadata:
            continue  # made by the harness, not set by people
        default = f.metadata["none"] if f.default is None else f.default
        accepted = ", ".join(map(code, f.metadata["choices"] or ())) or kind(hints[f.name]) + _range(f.metadata)
        rows.append((code(f.name), accepted, f"{_sentence(f.metadata['help'])} Default: {code(default)}."))
    return stacked(table(("setting", "accepted", "meaning"), rows))


def _range(metadata: Mapping[str, Any]) -> str:
    least, most = metadata["least"], metadata["most"]
    if least is None:
        return "" if most is None else f", {most} or less"
    return f", {least} or more" if most is None else f", {least} to {most}"


def kind(annotation: object) -> str:
    """Return a type as people say it."""
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(code(value) for value in typing.get_args(annotation))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kinds = [k for k in typing.get_args(annotation) if k is not types.NoneType]
        return " or ".join(map(kind, kinds))
    return _WORDS.get(typing.cast(type, annotation), "-")


def columns(meanings: Path) -> str:
    """Return a section per table with the meaning of each of its columns, from a TOML file of sentences.

    Raises:
        ValueError: a column has no sentence, or a sentence no column.
    """
    told: dict[str, dict[str, str]] = tomllib.loads(meanings.read_text(encoding="utf-8"))
    check_columns({name: columns for name, (columns, _) in TABLES.items()}, told)
    parts = []
    for name, (names, row_types) in TABLES.items():
        hints: dict[str, object] = {}
        for row_type in reversed(row_types):
            hints |= typing.get_type_hints(row_type)
        rows = [(code(c), kind(hints[c]) if c in hints else "text", told[name][c]) for c in names]
        parts.append(f"## {name}\n\n{told[name].get('_', '')}\n\n{stacked(table(('column', 'type', 'meaning'), rows))}")
    return "\n".join(parts)


def check_columns(tables: Mapping[str, Sequence[str]], told: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse columns without a sentence and sentences without a column; ``_`` introduces a table.

    Raises:
        ValueError: names the table and the columns.
    """
    faults = [f"no table {name}" for name in told.keys() - tables.keys()]
    for name, names in tables.items():
        here = told.get(name, {})
        faults += [f"{name}: {column} has no sentence" for column in names if not here.get(column)]
        faults += [f"{name}: no column {column}" for column in here if column not in (*names, "_")]
    if faults:
        raise ValueError(f"docs/columns.toml: {'; '.join(faults)}")


def outputs_table() -> str:
    """Return a table of the files that every report writes, in the order of their making."""
    rows = []
    for one in outputs():
        if one.when != "shown":
            says = _sentence(one.says) + (f" Only with `--{one.name}`." if one.when == "asked" else "")
            rows.append((code(_files(one.name)), says))
    return table(("file", "holds"), rows)


def _files(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    if suffix == "csv":
        return f"{stem}.csv, .json"
    return name if dot else f"{name}.png, .svg" if name.startswith("plots/") else f"{name}/"


def protocols() -> str:
    """Return a section per protocol: what it is for, where it departs from the papers, and its file."""
    parts = []
    for name in protocol_names():
        protocol = load_protocol(name)
        parts.append(f"## {name}\n\n{_sentence(protocol.summary)}\n")
        if protocol.caution:
            parts.append(f"{protocol.caution}\n")
        if protocol.deviations:
            parts.append("It departs from the papers in these points:\n")
            parts += [f"- {_sentence(text)}" for text in protocol.deviations]
        shown = (FOLDER / f"{name}.toml").relative_to(REPOSITORY)
        parts.append(f"\n```{{literalinclude}} ../../{shown}\n:language: toml\n:caption: {shown}\n```\n")
    return "\n".join(parts)


def plugins() -> str:
    """Return tables of the registered data sets and networks."""
    data = [
        (code(name), prose(DATASETS.get(name).licence), linked(DATASETS.get(name).paper)) for name in DATASETS.names()
    ]
    networks = []
    for name in BACKBONES.names():
        cls = BACKBONES.get(name)
        options = ", ".join(code(f"{option}={getattr(cls(), option)}") for option in hyperparameter_names(cls))
        networks.append((code(name), options or "-", linked(cls.paper)))
    return (
        f"## Data sets\n\n{table(('name', 'licence', 'source'), data)}\n"
        f"## Networks\n\n{table(('name', 'options with defaults', 'source'), networks)}"
    )


def corruptions() -> str:
    """Return a table of the corruptions of test images."""
    rows = [(code(name), _sentence(CORRUPTIONS.get(name).summary)) for name in CORRUPTIONS.names()]
    return table(("kind", "at strengths 1 to 5"), rows)


def studies() -> str:
    """Return a table of the studies."""
    rows = [(code(name), _sentence(STUDIES.get(name).summary)) for name in STUDIES.names()]
    return table(("study", "question"), rows)
