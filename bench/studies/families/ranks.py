"""Ranks of algorithms in a family, with ties where no difference shows, and intervals over seeds and test tasks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from bench.analysis.statistics import Floats, PairedDifference, holm, paired_comparison

RESAMPLES = 2_000
ALPHA = 0.05

Measures = Mapping[str, Mapping[int, Floats]]
"""What was measured on every test task, by algorithm and seed; the same tasks, in the same order, for all."""


@dataclass(frozen=True)
class Rank:
    """A rank, 1 being the best, and the 95% interval of ranks over resampled seeds and test tasks."""

    rank: float
    low: float
    high: float


@dataclass(frozen=True)
class Ranking:
    """The ranks of the algorithms of a family, and what they rest on.

    ``draws`` are the ranks of every resampling, ``[RESAMPLES]`` by algorithm. ``compared`` holds every pair with its
    difference, above zero where the first is better, and its p-value after Holm's correction within the family.
    """

    ranks: dict[str, Rank]
    draws: dict[str, Floats]
    compared: tuple[tuple[str, str, PairedDifference, float], ...]


def rank(measures: Measures, less_is_better: bool) -> Ranking:
    """Rank algorithms by the mean measure over the seeds that all of them have.

    A rank is 1, plus one for each algorithm that is significantly better, plus a half for each that it cannot be told
    from: the sign-flip test over identical test tasks, Holm's correction, 5%. So three that are alike are all 2. The
    interval holds 95% of the plain ranks that means have on seeds and tasks drawn again, with replacement, the same
    draw for all; with one seed, on tasks alone.

    Raises:
        ValueError: no seed that all have, or seeds with other numbers of tasks.
    """
    names = list(measures)
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in measures.values())))
    if not seeds:
        raise ValueError("no seed in common")
    sign = -1.0 if less_is_better else 1.0
    goodness = {name: {seed: sign * np.asarray(measures[name][seed]) for seed in seeds} for name in names}
    pairs = [(a, b, paired_comparison(goodness[a], goodness[b])) for a, b in itertools.combinations(names, 2)]
    p_values = holm([difference.p_value for *_, difference in pairs])
    compared = tuple((*pair, p) for pair, p in zip(pairs, p_values))
    tied = dict.fromkeys(names, 1.0)
    for a, b, difference, p in compared:
        if p >= ALPHA:
            tied[a] += 0.5
            tied[b] += 0.5
        else:
            tied[b if difference.diff > 0 else a] += 1.0
    drawn = resampled([np.stack([goodness[name][seed] for name in names]) for seed in seeds])
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0, method="nearest")
    ranks = {name: Rank(tied[name], float(low[i]), float(high[i])) for i, name in enumerate(names)}
    return Ranking(ranks, {name: drawn[:, i] for i, name in enumerate(names)}, compared)


def resampled(by_seed: Sequence[Floats]) -> Floats:
    """Return the ranks ``[RESAMPLES, algorithms]`` by means over seeds and tasks drawn again; equal means share theirs.

    Args:
        by_seed: how good every answer was, ``[algorithms, tasks]`` for each seed.
    """
    rng = np.random.default_rng(0)
    seeds = len(by_seed)
    times = rng.multinomial(seeds, [1 / seeds] * seeds, RESAMPLES)  # how often each seed is drawn
    total = np.zeros((RESAMPLES, len(by_seed[0])))
    for of_seed, good in zip(times.T, by_seed):
        tasks = good.shape[1]
        again = rng.multinomial(tasks, [1 / tasks] * tasks, RESAMPLES)
        total += of_seed[:, None] * (again @ good.T) / tasks
    return np.asarray(rankdata(-np.round(total, 12), axis=1))


def mean_rank(rankings: Sequence[Ranking], name: str) -> Rank | None:
    """Return an algorithm's mean rank over the families in which it has one, None where that is none.

    Its interval is that of the mean of the families' resampled ranks: the families are taken as they are.
    """
    here = [ranking for ranking in rankings if name in ranking.ranks]
    if not here:
        return None
    drawn = np.mean([ranking.draws[name] for ranking in here], axis=0)
    low, high = np.quantile(drawn, (0.025, 0.975), method="nearest")
    return Rank(float(np.mean([ranking.ranks[name].rank for ranking in here])), float(low), float(high))
