"""The command that makes recorded runs again, those of one line of a table and no others."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from bench.api import BenchError
from bench.records.run import Run
from bench.settings.config import OPTIONS, RunConfig
from bench.settings.protocols import IDENTITY, load_protocol, protocol_names, resolve

_KEPT = (
    "--data-root",
    "--test-data-root",
    "--plugin",
)  # of the command as given: where things are, which no configuration says
_FLAGS = {f.name: f for f in dataclasses.fields(RunConfig) if "help" in f.metadata}


def repeat_command(*runs: Run) -> str | None:
    """Return a command that makes runs again which differ in their seeds alone; None if that is not known.

    It says what the first one's recorded configuration says beyond its protocol, so that the same code gives the same
    runs. ``--out`` is left to the user.
    """
    run = runs[0]
    config = run.details.get("config")
    if not isinstance(config, Mapping) or not all(name in config for name in IDENTITY if name != "protocol"):
        return None
    if config.get("protocol") not in protocol_names():
        return None  # a study's run, which the study's own command repeats
    preset = _preset(config)
    words = ["python", "run_bench.py", "--algos", str(config["algo"]), "--protocol", str(config["protocol"])]
    for name, value in config.items():
        if name not in _FLAGS or name == "protocol":
            continue
        if name in IDENTITY or name not in preset or preset[name] != value:
            text = ",".join(map(str, sorted({run.row.seed for run in runs}))) if name == "seed" else _text(name, value)
            words += ["--seeds" if name == "seed" else f"--{name.replace('_', '-')}", text]
    told: dict[str, Any] = {}
    for group in OPTIONS:
        prefix = f"{config['algo']}." if group == "hyperparameters" else ""
        expected, found = preset.get(group), config.get(group)
        for name, value in (found if isinstance(found, Mapping) else {}).items():
            if not isinstance(expected, Mapping) or name not in expected or expected[name] != value:
                told.setdefault(f"{prefix}{name}", "none" if value is None else value)
    words += [word for name, value in told.items() for word in ("--set", f"{name}={value}")]
    return shlex.join([*words, *_kept(run.details.get("command"))])


def _preset(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the protocol asks for of itself; empty where it cannot be known, as for a plugin that is not here."""
    identity = {name: config[name] for name in IDENTITY if name != "protocol"}
    try:
        return dataclasses.asdict(resolve(load_protocol(config["protocol"]), identity, {}, []))
    except (BenchError, TypeError):
        return {}


def _text(name: str, value: Any) -> str:
    none = _FLAGS[name].metadata["none"]
    return ("none" if none not in ("none", "auto") else none) if value is None else str(value)


def _kept(command: Any) -> list[str]:
    try:
        given = shlex.split(command) if isinstance(command, str) else []
    except ValueError:  # a quotation that never ends
        return []
    kept = []
    for i, word in enumerate(given):
        flag, equals, _ = word.partition("=")
        if flag in _KEPT:
            kept += [word] if equals else given[i : i + 2]
    return kept
