"""Which runs belong together, and how algorithms that faced the same test tasks compare."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from bench.analysis.arms import Arm, Setting, by_setting
from bench.analysis.statistics import FLIPS, holm, paired_comparison
from bench.analysis.verdicts import Verdict, verdict
from bench.records.columns import MODES


@dataclass(frozen=True)
class Comparison:
    """Two arms on identical test tasks: a line of comparisons.csv, except for what follows ``setting``.

    ``diff`` is accuracy of a minus accuracy of b; ``test_tasks`` counts the pairs over all ``seeds``. ``ci95_*`` and
    ``p_value`` count tasks and take the trained models as given; ``p_method`` says how the latter was found. ``seed_*``
    count seeds, every one an observation; they are None for one seed. Both p-values are corrected, each for all
    comparisons of its kind within the setting, both modes.
    """

    algo_a: str
    algo_b: str
    n_way: int
    k_shot: int
    mode: str
    diff: float
    ci95_low: float
    ci95_high: float
    p_value: float
    p_method: str
    test_tasks: int
    seeds: int
    dataset: str
    protocol: str
    k_query: int
    p_value_holm: float
    seed_diff_sd: float | None
    seed_ci95_low: float | None
    seed_ci95_high: float | None
    seed_p_value: float | None
    seed_p_value_holm: float | None
    setting: Setting
    seed_diffs: tuple[float, ...]
    tuning: str = ""
    alike: bool = True

    COLUMNS: ClassVar = (
        *("algo_a", "algo_b", "n_way", "k_shot", "mode", "diff", "ci95_low", "ci95_high", "p_value", "test_tasks"),
        *("seeds", "dataset", "protocol", "k_query", "p_value_holm", "seed_diff_sd", "seed_ci95_low", "seed_ci95_high"),
        *("seed_p_value", "seed_p_value_holm", "verdict", "p_method", "test"),
    )

    @property
    def verdict(self) -> str:
        """What is shown, in words."""
        return str(self.judged)

    @property
    def test(self) -> str:
        """What is otherwise at test than in training, in words; empty for nothing."""
        return self.setting.shift.strip(" ()").removeprefix("test: ")

    @property
    def judged(self) -> Verdict:
        """What is shown."""
        found = verdict(
            self.algo_a, self.algo_b, self.diff, self.p_value_holm, self.seed_diffs,
            self.seed_p_value, self.seed_p_value_holm,
        )  # fmt: skip
        return replace(found, tuning=self.tuning, alike=self.alike)


def compare(arms: Iterable[Arm]) -> list[Comparison]:
    """Compare every pair of arms within every setting, in both test modes, over the seeds and tasks they share.

    Only ok runs count, and of those only seeds for which both recorded the same test tasks.
    """
    found: list[Comparison] = []
    for _, members in by_setting(arms):
        drawn = [
            comparison
            for mode in MODES
            for a, b in itertools.combinations(members, 2)
            if (comparison := _compare(a, b, mode)) is not None
        ]
        found += corrected(drawn)
    return found


def corrected(family: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons of one family with their p-values corrected, over tasks and over seeds each for itself."""
    over_tasks = holm([c.p_value for c in family])
    over_seeds = iter(holm([c.seed_p_value for c in family if c.seed_p_value is not None]))
    return [
        replace(c, p_value_holm=p, seed_p_value_holm=None if c.seed_p_value is None else next(over_seeds))
        for c, p in zip(family, over_tasks)
    ]


def _compare(a: Arm, b: Arm, mode: str) -> Comparison | None:
    column = MODES[mode]
    mine: dict[int, Any] = {}
    theirs: dict[int, Any] = {}
    for seed in a.ok.keys() & b.ok.keys():
        x, y = a.ok[seed].test_tasks, b.ok[seed].test_tasks
        accuracies = x[column].to_numpy(), y[column].to_numpy()
        if len(x) and x.task.equals(y.task) and np.isfinite(accuracies).all():
            mine[seed], theirs[seed] = accuracies
    if not mine:
        return None
    alike, labels_say = a.tuning == b.tuning, bool(a.trials) != bool(b.trials)
    tuning = "" if alike or labels_say else f" ({a.label} {a.tuning}, {b.label} {b.tuning})"
    return replace(compared(a.label, b.label, a.setting, mode, mine, theirs), tuning=tuning, alike=alike)


def compared(
    algo_a: str,
    algo_b: str,
    setting: Setting,
    mode: str,
    a: Mapping[int, Any],
    b: Mapping[int, Any],
    flips: int = FLIPS,
) -> Comparison:
    """Return the comparison of two algorithms from the accuracies of their test tasks by seed, not yet corrected."""
    d, s = paired_comparison(a, b, flips), setting
    over = d.over_seeds
    return Comparison(
        algo_a=algo_a,
        algo_b=algo_b,
        n_way=s.n_way,
        k_shot=s.k_shot,
        mode=mode,
        diff=d.diff,
        ci95_low=d.ci95_low,
        ci95_high=d.ci95_high,
        p_value=d.p_value,
        p_method=d.p_method,
        test_tasks=d.test_tasks,
        seeds=d.seeds,
        dataset=s.dataset,
        protocol=s.protocol,
        k_query=s.k_query,
        p_value_holm=d.p_value,
        seed_diff_sd=d.seed_sd,
        seed_ci95_low=over.ci95_low if over else None,
        seed_ci95_high=over.ci95_high if over else None,
        seed_p_value=over.p_value if over else None,
        seed_p_value_holm=over.p_value if over else None,
        setting=s,
        seed_diffs=d.seed_diffs,
    )
