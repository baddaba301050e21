"""What the searches of ``--tune`` tried, found and cost, as a section of summary.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.analysis.tuning import gain, settings_of
from bench.api import Space
from bench.records.tuning import Search, Trial
from bench.system.text import escape, fraction, markdown_table, number, plus_minus

INTRO = (
    "Each trial trains with other values, on the same training tasks, and is scored on the same meta-validation tasks, "
    "transductive. "
    "Its tasks and initial weights are those of a seed that no result has, and no trial sees a meta-test task. "
    "Trial 0 has the values of the protocol. A trial that is not among the best third at a rung stops there (pruned). "
    "The best of many scores is too high by chance: only meta-test compares algorithms."
)
SHARES = (
    "Importance: the share of a hyperparameter in what sets the best quarter of the trials apart from all of them "
    "(PED-ANOVA, Watanabe et al. 2023, arXiv:2304.10255). It takes 8 trials and two hyperparameters, and is a hint."
)


def tuning(searches: Sequence[Search]) -> list[str]:
    """Return the blocks on searches, none where nobody searched."""
    if not searches:
        return []
    blocks = ["## Tuning", INTRO]
    for name, members in settings_of(searches).items():
        blocks += [f"### {escape(name)}", _outcomes(members), _values(members)]
    if any(search.importance for search in searches):
        blocks.append(SHARES)
    if failed := [(search, trial) for search in searches for trial in search.trials if trial.error]:
        rows = [[s.algo, t.number, t.state, told(t.values), " ".join(str(t.error).split())[:200]] for s, t in failed]
        blocks += ["Trials that failed:", markdown_table(["algorithm", "trial", "state", "values", "error"], rows)]
    return blocks


def told(values: Mapping[str, Any]) -> str:
    """Return values as one says them."""
    return ", ".join(f"{name}={shown(value)}" for name, value in values.items())


def shown(value: Any) -> str:
    """Return a value, a fraction with as many digits as matter."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _outcomes(searches: Sequence[Search]) -> str:
    headers = ["algorithm", "trials", "pruned", "failed", "meta-steps", "seconds", "protocol's values", "best"]
    rows = []
    for search in searches:
        states = [trial.state for trial in search.trials]
        failed = len(states) - states.count("complete") - states.count("pruned")
        counts = [len(states), states.count("pruned"), failed, f"{search.steps:,}", number(search.seconds)]
        rows.append([search.algo, *counts, _score(search.default), _score(search.best), _gain(search), _number(search)])
    return markdown_table([*headers, "gain", "best trial"], rows)


def _score(trial: Trial | None) -> str:
    if trial is None or trial.score is None or trial.state != "complete":
        return "-" if trial is None else trial.state
    return plus_minus(trial.score, float("nan") if trial.score_ci95 is None else trial.score_ci95)


def _gain(search: Search) -> str:
    found = gain(search)
    return "-" if found is None else fraction(found)


def _number(search: Search) -> str:
    return "-" if search.best is None else str(search.best.number)


def _values(searches: Sequence[Search]) -> str:
    headers = ["algorithm", "hyperparameter", "searched", "protocol's value", "chosen", "importance"]
    rows = []
    for search in searches:
        for name, space in search.spaces.items():
            own = [trial.values.get(name) if trial else None for trial in (search.default, search.best)]
            values = ["-" if value is None else shown(value) for value in own]
            share = search.importance.get(name)
            rows.append([search.algo, name, Space(**space), *values, "-" if share is None else f"{share:.2f}"])
    return markdown_table(headers, rows)
