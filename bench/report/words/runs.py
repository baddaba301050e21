"""The runs that failed, the machines and versions, the commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from bench.records.run import Run
from bench.system.text import escape, markdown_table

_ERROR_CHARS = 300


def failures(runs: Sequence[Run]) -> str:
    """Return the table of runs that are not ok, with the reasons."""
    rows = []
    for run in runs:
        r, error = run.row, " ".join((run.row.error or "").split())
        short = error if len(error) <= _ERROR_CHARS else error[:_ERROR_CHARS] + " ..."
        rows.append([r.run_id, r.algo, r.setting, r.seed, r.status, short])
    return markdown_table(["run", "algorithm", "setting", "seed", "status", "error"], rows)


def environment(runs: Sequence[Run]) -> str:
    """Return the table of machines, versions and data behind the runs."""
    names = (
        "device",
        "device_name",
        "host",
        "threads",
        "torch_version",
        "git_commit",
        "dataset",
        "data_pipeline",
        "data_sha256",
        "test_data_sha256",
    )
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        environment = run.details.get("environment")
        further = dict(environment) if isinstance(environment, Mapping) else {}
        for name, value in {**further, **{name: getattr(run.row, name) for name in names}}.items():
            if value is not None:
                found.setdefault(name, {})[_flat(value)] = None
    order = [name for name in names if name in found] + [name for name in found if name not in names]
    counted = f"Runs: {len(runs)}."
    if unsealed := [escape(run.row.run_id) for run in runs if not run.sealed]:
        counted += (
            f" From an earlier version, not sealed, so that nothing tells if they were altered: {', '.join(unsealed)}."
        )
    return markdown_table(["", "value"], ([name, "; ".join(found[name])] for name in order)) + f"\n\n{counted}"


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_flat(item)}" for key, item in value.items())
    return ", ".join(map(_flat, value)) if isinstance(value, list) else str(value)


def commands(runs: Sequence[Run]) -> list[str]:
    """Return the commands that made the runs."""
    given = (run.details.get("command") for run in runs)
    commands = list(dict.fromkeys(shlex.join(map(str, c)) if isinstance(c, list) else str(c) for c in given if c))
    text = "\n".join(commands)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return ["Commands:", f"{fence}\n{text}\n{fence}"] if commands else []
