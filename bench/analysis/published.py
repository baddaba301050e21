"""Published accuracies beside ours: which of ours may be compared with which, and what may be said of it.

The numbers are data, in ``published.toml``; nothing here knows an algorithm or a paper.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from bench.analysis.arms import Arm
from bench.api import BenchError
from bench.records.columns import MODES
from bench.records.run import Run
from bench.registry import create_algorithm
from bench.settings.config import CODE, TUNING, data_defaults
from bench.settings.protocols import IDENTITY, load_protocol, resolve

FILE = Path(__file__).with_name("published.toml")
KINDS = ("anchor", "older", "context")

DRIFT = 0.003  # of frameworks, padding, initialisation: what no tolerance of a paper covers
CHOICE = 0.002  # of other characters to test on: tests/split_spread.py, on the committed runs of most of a budget
FAIR_SEEDS = 3

# What changes no accuracy beyond rounding, and the budget, which verdicts name by itself.
_BESIDE = frozenset(
    {*IDENTITY, *CODE, *TUNING, "meta_steps", "val_tasks", "val_points", "adaptation_tasks"}
    | {"task_chunk", "cuda_graph", "kernels"}
)


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """One published accuracy, a fraction; ``kind`` is one of KINDS, and only an ``anchor`` is judged by."""

    kind: str
    system: str
    dataset: str
    protocol: str
    n_way: int
    k_shot: int
    published: float
    published_pm: float | None = None
    algo: str | None = None
    mode: str | None = None
    published_meta_steps: int | None = None
    published_meta_batch: int | None = None
    paper: str | None = None
    arxiv: str | None = None
    version: str | None = None
    source: str | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        needed = ("algo", "mode", "published_pm", "published_meta_steps") if self.kind == "anchor" else ()
        missing = [name for name in needed if getattr(self, name) is None]
        if self.kind not in KINDS or missing or self.mode not in (None, *MODES):
            raise ValueError(f"{self.system}: kind {self.kind!r}, mode {self.mode!r}, without {missing}")


@dataclass(frozen=True)
class Beside:
    """A published value and what one arm of ours has beside it: a line of anchors.csv.

    Everything of ours is None where there is nothing to compare, and ``verdict`` where nothing is judged.
    """

    anchor: Anchor
    label: str | None = None
    test_acc: float | None = None
    test_acc_ci95: float | None = None
    seed_sd: float | None = None
    seeds: int = 0
    meta_steps: int | None = None
    diff: float | None = None
    tolerance: float | None = None
    verdict: str | None = None
    departures: str | None = None

    @property
    def cells(self) -> dict[str, object]:
        """The line of anchors.csv by column."""
        return {name: getattr(self if name in _OURS else self.anchor, name) for name in ANCHOR_COLUMNS}


_OURS = tuple(f.name for f in fields(Beside) if f.name != "anchor")
ANCHOR_COLUMNS = (
    *("kind", "system", "algo", "dataset", "protocol", "n_way", "k_shot", "mode", *_OURS),
    *("published", "published_pm", "published_meta_steps", "published_meta_batch"),
    *("paper", "arxiv", "version", "source", "note"),
)
"""Columns of anchors.csv."""


def load_anchors(path: Path = FILE) -> list[Anchor]:
    """Return the published values in the order of the file, percent turned into fractions."""
    names = {"meta_steps": "published_meta_steps", "meta_batch": "published_meta_batch"}
    found = []
    for row in tomllib.loads(path.read_text(encoding="utf-8"))["row"]:
        for cell in row.pop("cells"):
            plus_minus = cell.pop("plus_minus", None)
            found.append(
                Anchor(
                    **row,
                    published=round(cell.pop("percent") / 100, 6),
                    published_pm=None if plus_minus is None else round(plus_minus / 100, 6),
                    **{names.get(name, name): value for name, value in cell.items()},
                )
            )
    return found


def beside(anchors: Iterable[Anchor], arms: Sequence[Arm]) -> list[Beside]:
    """Put our arms beside the published values of every data set and protocol of which there is a run.

    An anchor has one line per set of settings that it was run with, or one that says ``not run``; other kinds have one
    line each. Arms that differ in what changes no accuracy beyond rounding, such as the machine, are one here.
    """
    tried = {(arm.setting.dataset, arm.setting.protocol) for arm in arms}
    lines = []
    for anchor in anchors:
        if (anchor.dataset, anchor.protocol) not in tried:
            continue
        if anchor.kind != "anchor":
            lines.append(Beside(anchor))
            continue
        mine = _pooled([arm for arm in arms if _fits(anchor, arm)])
        column = _column(anchor)
        done = [_judged(anchor, arm) for arm in mine if arm.values(column)]
        failed = sum(not run.ok for arm in mine for run in arm.runs)
        lines += done or [Beside(anchor, verdict=f"not run ({failed} failed)" if failed else "not run")]
    return lines


def _pooled(arms: Sequence[Arm]) -> list[Arm]:
    """Put the runs of arms with the same settings and budget together."""
    groups: dict[str, list[Arm]] = {}
    for number, arm in enumerate(arms):
        config = arm.runs[0].details.get("config")
        known = _flat(config) if isinstance(config, dict) else {"arm": number}
        decisive = {name: value for name, value in known.items() if name not in _BESIDE or name == "meta_steps"}
        groups.setdefault(json.dumps([asdict(arm.setting), decisive], sort_keys=True), []).append(arm)
    pooled = []
    for members in groups.values():
        runs = sorted((run for arm in members for run in arm.runs), key=lambda run: run.row.started_at)
        label = members[0].label if len(groups) > 1 or len(members) == 1 else members[0].algo
        pooled.append(replace(members[0], label=label, runs=tuple(runs)))
    return pooled


def _fits(anchor: Anchor, arm: Arm) -> bool:
    s = arm.setting
    ours = (arm.algo, s.data, s.protocol, s.n_way, s.k_shot)
    return not s.shift and ours == (anchor.algo, anchor.dataset, anchor.protocol, anchor.n_way, anchor.k_shot)


def _column(anchor: Anchor) -> str:
    return f"test_{MODES[str(anchor.mode)]}"


def _judged(anchor: Anchor, arm: Arm) -> Beside:
    column = _column(anchor)
    ours, sd, seeds = arm.mean(column), arm.sd(column), len(arm.values(column))
    error = sd / math.sqrt(seeds) if seeds > 1 else 0.0
    tolerance = max(anchor.published_pm or 0.0, 2 * error) + DRIFT + CHOICE
    diff = ours - anchor.published
    run = next(iter(arm.ok.values()))
    steps, changed = run.row.meta_steps, departures(run)

    words = ["reproduced" if abs(diff) <= tolerance + 1e-9 else "above" if diff > 0 else "below"]
    if seeds < FAIR_SEEDS:
        words.append(f"{seeds} seed{'s' * (seeds > 1)}")
    if steps is None:
        words.append("budget not recorded")
    elif steps != anchor.published_meta_steps:
        words.append(f"{100 * steps / (anchor.published_meta_steps or 1):.0f}% of the budget")
    rows = [run.row for run in arm.ok.values()]
    if (machines := len({(row.device, row.device_name, row.threads) for row in rows})) > 1:
        words.append(f"seeds of {machines} machines")
    if (versions := len({str(run.details.get("config", {}).get("code")) for run in arm.ok.values()})) > 1:
        words.append(f"of {versions} versions of the algorithm's file")
    if changed:
        words.append(changed)
    half = arm.ci95(column)
    return Beside(
        anchor,
        arm.label,
        ours,
        half if math.isfinite(half) else None,
        sd if math.isfinite(sd) else None,
        seeds,
        steps,
        diff,
        tolerance,
        "; ".join(words),
        changed,
    )


def departures(run: Run) -> str:
    """Say in which settings a run differs from its protocol as it stands today, the budget left out.

    Empty if in none; technical settings and the device, which change no accuracy beyond rounding, do not count.
    """
    config = run.details.get("config")
    if not isinstance(config, dict):
        return "settings not recorded"
    identity = {name: config[name] for name in IDENTITY if name in config and name != "protocol"}
    try:
        preset = resolve(load_protocol(run.row.protocol), identity, {}, [])
    except (BenchError, KeyError):  # an algorithm of a plugin that is not loaded, or a protocol that is gone
        return "preset not known"
    # A setting that came later had its default then, but an option of the network may have been made for this preset.
    later = {f.name: f.default for f in fields(preset) if f.default is not MISSING}
    own = {name: getattr(create_algorithm(preset.algo), name) for name in preset.hyperparameters}
    own |= data_defaults(preset.dataset) if preset.dataset_options else {}
    expected, actual = _flat(asdict(preset)), {**later, **own, **_flat(config)}
    changed = [
        f"{name}={actual[name]} instead of {value}" if name in actual else f"{name} not recorded"
        for name, value in expected.items()
        if name not in _BESIDE and (name not in actual or actual[name] != value)
    ]
    return f"not the preset: {', '.join(changed)}" if changed else ""


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with those of the algorithm and of the network among them."""
    nested = [value for value in config.values() if isinstance(value, Mapping)]
    return {name: value for part in (config, *nested) for name, value in part.items() if not isinstance(value, Mapping)}
