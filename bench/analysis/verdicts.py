"""The words of a verdict on two arms, which are decided here and nowhere else."""

from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.05
"""Of the corrected p-values."""


@dataclass(frozen=True)
class Verdict:
    """What a comparison shows: which label is better, empty where no difference is shown, and what restricts that.

    Without a restriction it holds of the algorithms, else only of the models trained here.
    """

    better: str
    worse: str
    restriction: str = ""

    @property
    def shown(self) -> bool:
        """Whether a difference is shown."""
        return bool(self.better)

    @property
    def settled(self) -> bool:
        """Whether the verdict is that one of the two is better, and nothing more."""
        return self.shown and not self.restriction

    def __str__(self) -> str:
        """Return the verdict in words."""
        return f"{self.better} better{self.restriction}" if self.shown else "no difference shown"


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
    seeds = len(seed_diffs)
    if seeds == 1:
        return Verdict(better, worse, " (one seed)")
    if not all(d * diff > 0 for d in seed_diffs):
        return Verdict(better, worse, " on average, seeds disagree")
    these = f" with these {seeds} seeds"
    if seed_p_value is None or seed_p_value_holm is None:
        return Verdict(better, worse, f"{these}; their spread is not known")
    if not seed_p_value < LEVEL:
        return Verdict(better, worse, f"{these}; the interval over seeds includes 0")
    return Verdict(better, worse, "" if seed_p_value_holm < LEVEL else f"{these}; not over seeds after correction")
