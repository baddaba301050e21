"""The words of a verdict on two arms, which are decided here and nowhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

LEVEL = 0.05
"""Of the corrected p-values."""
FEWEST_SEEDS = 3
"""With fewer nothing is said of the algorithms: a test over tasks tells of two trained models."""


@dataclass(frozen=True)
class Verdict:
    """What a comparison shows: which label is better, empty where no difference is shown, and what restricts that.

    Without a restriction it holds of the algorithms, else only of the models trained here. ``few`` says that they are
    too few to speak of the algorithms at all. ``alike`` says that both had the same tuning; where they had not and
    their labels do not say so, ``tuning`` tells it, in brackets.
    """

    better: str
    worse: str
    restriction: str = ""
    few: bool = False
    tuning: str = ""
    alike: bool = True

    @property
    def shown(self) -> bool:
        """Whether a difference is shown."""
        return bool(self.better)

    @property
    def settled(self) -> bool:
        """Whether the verdict is that one of the two is better, and nothing more."""
        return self.shown and not self.restriction and self.alike

    def __str__(self) -> str:
        """Return the verdict in words."""
        if not self.shown:
            return f"no difference shown{self.tuning}"
        return f"{self.better} {'scores higher' if self.few else 'better'}{self.restriction}{self.tuning}"

    def over(self, beaten: Sequence[str]) -> str:
        """Return the verdict as a sentence on several that the better one beats in the same way."""
        restriction = (
            f",{self.restriction}" if self.restriction.startswith((" with", " on average")) else self.restriction
        )
        how = "scores higher" if self.few else "is better"
        return f"{self.better} {how} than {listed(beaten)}{restriction}{self.tuning}."


def sentences(pairs: Iterable[tuple[str, str, float, Verdict]]) -> list[str]:
    """Return the verdicts on all pairs, those of one label in one sentence where they have the same restriction.

    Args:
        pairs: the labels of each, accuracy of the first minus that of the second, and its verdict.
    """
    shown: dict[Verdict, list[str]] = {}
    open_: dict[str, list[str]] = {}
    pairs = list(pairs)
    often = Counter(label for a, b, _, found in pairs if not found.shown for label in (a, b))
    for a, b, diff, found in pairs:
        if found.shown:
            shown.setdefault(replace(found, worse=""), []).append(f"{found.worse} by {abs(diff):.4f}")
        else:
            one, other = (a, b) if often[a] >= often[b] else (b, a)
            open_.setdefault(one, []).append(other + found.tuning)
    told = [found.over(beaten) for found, beaten in shown.items()]
    return told + [f"No difference shown between {a} and {listed(others, 'or')}." for a, others in open_.items()]


def listed(names: Sequence[str], word: str = "and") -> str:
    """Return names as one says them."""
    return f"{', '.join(names[:-1])} {word} {names[-1]}" if len(names) > 1 else names[0]


def verdict(
    algo_a: str,
    algo_b: str,
    diff: float,
    p_value_holm: float,
    seed_diffs: Sequence[float],
    seed_p_value: float | None,
    seed_p_value_holm: float | None,
) -> Verdict:
    """Return what is shown at the 5% level after correction; ``diff`` is accuracy of a minus accuracy of b.

    Nothing is without the test over tasks. That one algorithm is better, and not only the models at hand, takes seeds
    that agree and the test over seeds besides: with few seeds, seeds agree by chance (three in one of four cases),
    however sure the test over tasks is of each model.
    """
    if not p_value_holm < LEVEL:
        return Verdict("", "")
    better, worse = (algo_a, algo_b) if diff > 0 else (algo_b, algo_a)
    seeds, agree = len(seed_diffs), all(d * diff > 0 for d in seed_diffs)
    if seeds < FEWEST_SEEDS:
        count = {1: "one training", 2: "two trainings"}[seeds]
        return Verdict(better, worse, f" on these test tasks ({count} each{'' if agree else ', which disagree'})", True)
    if not agree:
        return Verdict(better, worse, " on average, seeds disagree")
    these = f" with these {seeds} seeds"
    if seed_p_value is None or seed_p_value_holm is None:
        return Verdict(better, worse, f"{these}; their spread is not known")
    if not seed_p_value < LEVEL:
        return Verdict(better, worse, f"{these}; the interval over seeds includes 0")
    return Verdict(better, worse, "" if seed_p_value_holm < LEVEL else f"{these}; not over seeds after correction")
