"""What follows from the trials of a search: the best so far, and a line of tuning.csv for every trial."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from bench.records.tuning import Search, Trial
from bench.system.csvfile import Columns


@dataclass(frozen=True)
class TrialRow(Columns):
    """A trial: a line of tuning.csv; ``best_score`` is that of the best complete trial up to it."""

    search: str
    algo: str
    dataset: str
    protocol: str
    n_way: int
    k_shot: int
    number: int
    state: str
    values: str
    meta_steps: int
    seconds: float
    measure: str
    score: float | None
    score_ci95: float | None
    best_score: float | None
    chosen: int
    stream_sha256: str | None
    error: str | None


def trial_rows(searches: Iterable[Search]) -> list[TrialRow]:
    """Return a line per trial of every search."""
    return [
        TrialRow(
            search.name,
            search.algo,
            search.dataset,
            search.protocol,
            search.n_way,
            search.k_shot,
            trial.number,
            trial.state,
            json.dumps(dict(trial.values), sort_keys=True),
            trial.meta_steps,
            trial.seconds,
            search.measure,
            trial.score,
            trial.score_ci95,
            best.score if best else None,
            int(search.best is trial),
            trial.stream_sha256,
            trial.error,
        )
        for search in searches
        for trial, best in zip(search.trials, best_so_far(search))
    ]


def best_so_far(search: Search) -> list[Trial | None]:
    """Return the best complete trial after each trial, None before the first complete one."""
    found: list[Trial | None] = []
    best: Trial | None = None
    for trial in search.trials:
        if trial.state == "complete" and (best is None or search.rank(trial) > search.rank(best)):
            best = trial
        found.append(best)
    return found


def gain(search: Search) -> float | None:
    """Return how much better the best trial is than the protocol's own values, above 0 also for errors."""
    best, default = search.best, search.default
    if best is None or default is None or default.state != "complete":
        return None
    return search.rank(best) - search.rank(default)


def settings_of(searches: Iterable[Search]) -> dict[str, list[Search]]:
    """Return the searches by what their setting is called, which names as much as tells settings apart."""
    searches = list(searches)
    further = ("dataset", "protocol", "backbone", "k_query", "meta_steps", "val_tasks", "device")
    told = [name for name in further if len({getattr(search, name) for search in searches}) > 1]
    found: dict[str, list[Search]] = {}
    for search in searches:
        rest = ", ".join(f"{name}={getattr(search, name)}" for name in told)
        name = f"{search.n_way}-way {search.k_shot}-shot{f' ({rest})' if rest else ''}"
        found.setdefault(name, []).append(search)
    return found
