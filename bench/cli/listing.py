"""The tables of ``--list``: what is registered, and the protocols."""

from __future__ import annotations

from tabulate import tabulate

from bench.registry import (
    ALGORITHMS,
    BACKBONES,
    DATASETS,
    create_algorithm,
    create_backbone,
    create_dataset,
    hyperparameter_names,
    search_spaces,
)
from bench.settings.config import RunConfig
from bench.settings.protocols import load_protocol, protocol_names
from bench.studies.study import STUDIES
from bench.tasks.corruption import CORRUPTIONS


def listing() -> str:
    """Return the tables of ``--list``: what is registered and the protocols, with settings and papers."""
    algorithms = [(name, _settings(create_algorithm(name)), ALGORITHMS.get(name).paper) for name in ALGORITHMS.names()]
    data = [
        (
            name,
            ", ".join(filter(None, [_settings(create_dataset(name)), f"licence: {_licence(name)}"])),
            DATASETS.get(name).paper,
        )
        for name in DATASETS.names()
    ]
    networks = [(name, _settings(create_backbone(name)), BACKBONES.get(name).paper) for name in BACKBONES.names()]
    protocols = [(name, _protocol(name), "") for name in protocol_names()]
    corruptions = [(name, CORRUPTIONS.get(name).summary, "") for name in CORRUPTIONS.names()]
    studies = [(name, STUDIES.get(name).summary, "") for name in STUDIES.names()]
    parts = []
    tables = {"algorithm": algorithms, "dataset": data, "backbone": networks, "protocol": protocols, "study": studies}
    tables["test corruption"] = corruptions
    for title, rows in tables.items():
        columns = [title, "settings", "paper"]
        kept = [i for i in range(3) if i == 0 or any(row[i] for row in rows)]
        table = [[row[i] for i in kept] for row in rows]
        first = max(14, *(len(row[0]) for row in rows))
        parts.append(
            tabulate(
                table,
                [columns[i] for i in kept],
                maxcolwidths=[20, 56] if len(kept) == 2 else [first, 46 - first, 30],
                break_on_hyphens=False,
            )
        )
    parts.append(
        "Settings of algorithms and backbones are the defaults of the class. Protocols,\nflags and --set override them,"
        " the last named winning; the sources of a\nprotocol's values stand in bench/settings/protocols/. --tune"
        f" searches the\nranges in brackets, and meta_lr of every algorithm ({search_spaces(RunConfig)['meta_lr']})."
    )
    return "\n\n".join(parts)


def _licence(name: str) -> str:
    return DATASETS.get(name).licence or "not stated"


def _protocol(name: str) -> str:
    """Return what a protocol is for and, a line each, what it sets for all and for some."""
    found = load_protocol(name)
    lines = [found.summary]
    for preset in found.presets:
        where = ", ".join(str(v) if k == "algo" else f"{k}={v}" for k, v in preset.where.items()) or "all"
        lines.append(f"{where}: {', '.join(f'{k}={v}' for k, v in preset.values.items())}")
    return "\n".join(lines)


def _settings(plugin: object) -> str:
    spaces = {name: f" ({space})" for name, space in search_spaces(type(plugin)).items()}
    names = hyperparameter_names(type(plugin))
    return ", ".join(f"{name}={getattr(plugin, name)}{spaces.get(name, '')}" for name in names)
