"""What a search of ``--tune`` leaves: a record per algorithm and setting with every trial, readable without Optuna."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench.records.run import Warn, log
from bench.system.files import plain, write_atomic
from bench.system.untrusted import read_regular

FOLDER = "tuning"
"""Where searches are, under ``--out``, each in a folder of its own."""
RECORD_FILE = "tuning.json"
SCHEMA = 1
STATES = ("complete", "pruned", "failed", "diverged", "oom")
"""``pruned``: stopped early for trailing the others; only a ``complete`` trial can be the best."""


@dataclass(frozen=True)
class Trial:
    """One trial: the values that it tried, what it cost, and its last meta-validation.

    ``score`` and ``score_ci95`` are None where it did not get as far; ``error`` says why one failed. ``meta_steps``
    were done in ``seconds`` of training and validation.
    """

    number: int
    state: str
    values: Mapping[str, Any]
    meta_steps: int
    seconds: float
    score: float | None = None
    score_ci95: float | None = None
    error: str | None = None
    stream_sha256: str | None = None
    """Hash over its training tasks: that of all complete trials of a setting is the same."""

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"state is {self.state!r}; accepted: {', '.join(STATES)}")


@dataclass(frozen=True)
class Search:
    """All trials of one algorithm in one setting; number 0 has the values that the protocol would have had.

    ``spaces`` maps each hyperparameter to its range (low, high, log, choices) and ``importance`` to a share of 1, empty
    where there are too few trials to say. ``kind`` is that of the measure: of ``error`` less is better.
    """

    name: str
    algo: str
    dataset: str
    protocol: str
    n_way: int
    k_shot: int
    k_query: int
    backbone: str
    measure: str
    kind: str
    meta_steps: int
    meta_batch: int
    val_tasks: int
    seed: int
    device: str
    data_sha256: str
    spaces: Mapping[str, Mapping[str, Any]]
    importance: Mapping[str, float]
    trials: tuple[Trial, ...]

    @property
    def default(self) -> Trial | None:
        """Return the trial of the protocol's own values, None where it has not ended."""
        return next((trial for trial in self.trials if trial.number == 0), None)

    @property
    def best(self) -> Trial | None:
        """Return the complete trial with the best score, of several the first; None where none is complete."""
        return max((t for t in self.trials if t.state == "complete"), key=self.rank, default=None)

    def rank(self, trial: Trial) -> float:
        """Return a number that is larger the better a complete trial is."""
        score = float("-inf") if trial.score is None else trial.score
        return -score if self.kind == "error" else score

    @property
    def why(self) -> str:
        """Return why the first trial that failed did, empty where none has."""
        return next((f"trial {t.number}: {' '.join(t.error.split())}" for t in self.trials if t.error), "")

    @property
    def steps(self) -> int:
        """Return the meta-steps of all trials."""
        return sum(trial.meta_steps for trial in self.trials)

    @property
    def seconds(self) -> float:
        """Return the seconds of training and validation of all trials."""
        return sum(trial.seconds for trial in self.trials)

    @property
    def cost(self) -> dict[str, Any]:
        """Return the fields of a run that say what tuning it had."""
        return {
            "tuning_trials": len(self.trials),
            "tuning_trial_steps": self.meta_steps,
            "tuning_steps": self.steps,
            "tuning_s": round(self.seconds, 3),
        }


def write_search(folder: Path, search: Search) -> None:
    """Write the record of a search into its folder, in one step."""
    content = {"schema": SCHEMA, **plain(dataclasses.asdict(search))}
    write_atomic(folder / RECORD_FILE, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_search(path: Path) -> Search:
    """Return the search that a record holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or of a newer schema.
    """
    content = json.loads(read_regular(path))
    if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA:
        raise ValueError(f"is no record of schema {SCHEMA}")
    try:
        trials = tuple(Trial(**trial) for trial in content.pop("trials"))
        search = Search(**content, trials=trials)
    except (KeyError, TypeError) as error:
        raise ValueError(f"is no record of a search ({error})") from None
    for kind, row in ((Search, search), *((Trial, trial) for trial in trials)):
        for f in fields(kind):
            _check(f.name, getattr(row, f.name), str(f.type))
    return search


_KINDS: Mapping[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}


def _check(name: str, value: Any, annotation: str) -> None:
    kind, optional, _ = annotation.partition(" | ")
    if not (isinstance(value, _KINDS.get(kind, (Mapping, tuple))) or (optional and value is None)):
        raise ValueError(f"{name} is {str(value)[:60]!r}, which is no {kind}")


def load_searches(out: Path, warn: Warn = log.warning) -> list[Search]:
    """Return the searches under ``out`` by setting, then algorithm; ``warn`` gets one line per damaged record."""
    found = []
    for path in sorted(out.glob(f"{FOLDER}/*/{RECORD_FILE}")):
        try:
            found.append(read_search(path))
        except (OSError, ValueError, RecursionError) as error:
            warn(f"{path}: ignored ({' '.join(str(error).split())[:200]})")
    return sorted(found, key=lambda s: (s.dataset, s.protocol, s.n_way, s.k_shot, s.algo, s.name))
