"""What is searched: one algorithm in one setting, its hyperparameters with their ranges, and the runs of its trials."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.api import BenchError, Space
from bench.registry import ALGORITHMS, search_spaces
from bench.settings.config import TUNING, TUNING_SEED, RunConfig

VERSION = 2
"""Of how a search is made: another is another search."""


@dataclass(frozen=True)
class Question:
    """One search: the run of a trial before its values are set, and the ranges of these by name."""

    config: RunConfig
    spaces: Mapping[str, Space]
    data_sha256: str

    @property
    def name(self) -> str:
        """Return a name made of what a person looks for and a hash over everything that decides the search.

        How many threads a trial has does not: with other ``--jobs`` it is the same search.
        """
        c = self.config
        content = {**dataclasses.asdict(c), "threads": None, "version": VERSION, "data_sha256": self.data_sha256}
        content["spaces"] = {name: dataclasses.asdict(space) for name, space in self.spaces.items()}
        short = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:10]
        return f"{c.algo}-{c.dataset}-{c.n_way}w{c.k_shot}s-{c.protocol}-{short}"

    @property
    def values(self) -> dict[str, Any]:
        """Return the values of trial 0: those of the protocol."""
        return values_in(self.config, self.spaces)

    def trial(self, number: int, values: Mapping[str, Any]) -> RunConfig:
        """Return the run of a trial, which its number tells from one with the same values.

        Raises:
            BenchError: a value is out of the range that its name asks for.
        """
        return dataclasses.replace(with_values(self.config, values), protocol=f"tune-{number}")


def questions_of(
    configs: Iterable[RunConfig], fixed: Mapping[str, Collection[str]], steps: int | None, data_sha256: str
) -> dict[str, Question]:
    """Return by run_id the search that each run takes its settings from, the same for all seeds.

    Args:
        fixed: what the user has given for each algorithm, which is not searched.
        steps: meta-steps of a trial; None for those of the run.
    Raises:
        BenchError: a run has the seed of the trials, or settings that a search has found already; nothing is left to
            search; a value that has a range is no number.
    """
    found: dict[str, Question] = {}
    for config in configs:
        if config.seed == TUNING_SEED:
            raise BenchError(f"--seeds {config.seed}: with --tune this is the seed of the trials; accepted: any other")
        if config.tuning_trials:
            raise BenchError(
                f"--tune with --protocol {config.protocol}: its settings of {config.algo} are those that a search has"
                " found; accepted: another protocol"
            )
        cls = ALGORITHMS.get(config.algo)
        own = search_spaces(cls)
        declared = {**(search_spaces(RunConfig) if cls.learns or not own else {}), **own}
        names = [name for name in declared if name not in fixed[config.algo]]
        if not names:
            raise BenchError(
                f"--tune: flags and --set fix all that could be searched of {config.algo}"
                f" ({', '.join(declared)}); leave one out"
            )
        spaces = {name: _holding(config, declared[name], name, values_in(config, names)[name]) for name in names}
        trial = dataclasses.replace(
            config, seed=TUNING_SEED, meta_steps=steps or config.meta_steps,
            test_tasks=RunConfig.test_tasks, adaptation_tasks=RunConfig.adaptation_tasks,  # which no trial has
        )  # fmt: skip
        found[config.run_id] = Question(trial, spaces, data_sha256)
    return found


def values_in(config: RunConfig, names: Iterable[str]) -> dict[str, Any]:
    """Return the values of hyperparameters and fields of a run."""
    return {name: {**vars(config), **config.hyperparameters}[name] for name in names}


def with_values(config: RunConfig, values: Mapping[str, Any], **tuning: Any) -> RunConfig:
    """Return a run with other values of hyperparameters and fields, and with what its ``tuning_`` columns say.

    Raises:
        BenchError: a value is out of range.
    """
    hyper = {name: values.get(name, value) for name, value in config.hyperparameters.items()}
    further = {name: value for name, value in values.items() if name not in hyper}
    assert set(tuning) <= set(TUNING)
    return dataclasses.replace(config, hyperparameters=hyper, **further, **tuning)


def _holding(config: RunConfig, space: Space, name: str, value: Any) -> Space:
    """Return the range, widened where the protocol's value lies outside, as Reptile's outer SGD has it with 1."""
    if space.choices is not None:
        return space if value in space.choices else dataclasses.replace(space, choices=(value, *space.choices))
    if isinstance(value, bool) or not isinstance(value, int | float) or (space.log and value <= 0):
        raise BenchError(
            f"{config.algo}.{name} {value!r} cannot begin a search from {space.low} to {space.high}; accepted: a"
            f" number{' above 0' if space.log else ''}"
        )
    assert space.low is not None, "Space has seen to it"
    assert space.high is not None, "Space has seen to it"
    return dataclasses.replace(space, low=min(space.low, value), high=max(space.high, value))


def told(question: Question) -> str:
    """Return one line on what is searched, and what it is where the algorithm declares nothing."""
    c = question.config
    own = [name for name in question.spaces if name in c.hyperparameters]
    alone = "" if own or search_spaces(ALGORITHMS.get(c.algo)) else f" alone: {c.algo} declares no range of its own"
    return f"{c.algo} {c.n_way}-way {c.k_shot}-shot: searching {', '.join(question.spaces)}{alone}"
