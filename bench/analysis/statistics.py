"""Intervals and tests over tasks and over seeds: how sure an accuracy is, and whether two algorithms differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import next_fast_len
from scipy.special import stdtr, stdtrit

FLIPS = 20_000
_ENUMERATED = 12  # so few differences have 2**12 signings, which are all looked at
_FINEST = 10_000  # images a task, of which accuracies are fractions; real numbers are not as near to fractions as these
_LARGEST = 2**26  # cosines that an exact p-value may take, a second or two
_LEAST = 1e-12  # p-value that rounding lets one tell from zero

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of a minus accuracy of b on the same tasks.

    ``ci95_*`` and ``p_value`` count tasks: they tell how the models trained here would compare on further tasks of the
    same classes. They take the models as given, and all tasks of a seed share one model; what training again would
    change is in ``seed_diffs``, one mean difference per seed, and in ``over_seeds``, which counts those alone.
    """

    diff: float
    ci95_low: float
    ci95_high: float
    p_value: float
    p_method: str
    test_tasks: int
    """Pairs in all, over all seeds."""
    seeds: int
    seed_diffs: tuple[float, ...]

    @property
    def seed_sd(self) -> float | None:
        """Standard deviation of the difference between seeds, None for one seed."""
        return float(np.std(self.seed_diffs, ddof=1)) if self.seeds > 1 else None

    @property
    def over_seeds(self) -> SeedTest | None:
        """Interval and p-value that cover the training of new models, None where seeds do not tell."""
        return seed_test(self.seed_diffs)


@dataclass(frozen=True)
class SeedTest:
    """Student's 95% interval and two-sided p-value of the mean over seeds, on ``seeds - 1`` degrees of freedom."""

    ci95_low: float
    ci95_high: float
    p_value: float


def seed_test(seed_diffs: ArrayLike) -> SeedTest | None:
    """Test whether the mean of the seeds' differences is zero, every seed being one observation.

    Each seed trains its own models and draws its own test tasks, so that seeds are independent and their spread holds
    both training and tasks. Few seeds make it wide: with two, the interval is 12.7 standard errors to either side.

    Returns:
        None for fewer than two seeds, and where all have the same difference but zero: a spread of nothing comes
        from too few tasks, and would make any difference certain.
    """
    x = np.asarray(seed_diffs, dtype=np.float64)
    if x.size < 2:
        return None
    mean, error = float(x.mean()), float(x.std(ddof=1)) / math.sqrt(x.size)
    if error <= 1e-12:  # equal but for rounding
        return SeedTest(0.0, 0.0, 1.0) if abs(mean) <= 1e-12 else None
    half = float(stdtrit(x.size - 1, 0.975)) * error
    return SeedTest(mean - half, mean + half, float(2 * stdtr(x.size - 1, -abs(mean) / error)))


def paired_comparison(
    a: Mapping[int, ArrayLike], b: Mapping[int, ArrayLike], flips: int = FLIPS, rng_seed: int = 0
) -> PairedDifference:
    """Compare two algorithms on the tasks they share.

    Args:
        a, b: accuracy of every test task by seed, each ``[tasks]``; entry i of both is the same task. Seeds that only
            one of them has are left out.
        flips: signings that the p-value is drawn from where it cannot be had exactly.
        rng_seed: seeds a generator of its own, so that the same accuracies always give the same p-value.
    Returns:
        The mean difference over all tasks of all shared seeds, its paired t interval (NaN for a single task) and
        the two-sided p-value of the sign-flip test (``sign_flip``).
    Raises:
        ValueError: no shared seed, different numbers of tasks, or an accuracy that is not finite.
    """
    seeds = sorted(set(a) & set(b))
    if not seeds:
        raise ValueError(f"no seed in common: {sorted(a)} and {sorted(b)}")
    by_seed = []
    for seed in seeds:
        x, y = np.asarray(a[seed], dtype=np.float64), np.asarray(b[seed], dtype=np.float64)
        if x.shape != y.shape or x.ndim != 1 or not x.size:
            raise ValueError(f"seed {seed}: accuracies of shape {x.shape} and {y.shape} cannot be paired")
        by_seed.append(x - y)
    d = np.concatenate(by_seed)
    if not np.isfinite(d).all():
        raise ValueError("an accuracy is not finite")
    diff = float(d.mean())
    half = float(stdtrit(d.size - 1, 0.975) * d.std(ddof=1)) / math.sqrt(d.size) if d.size > 1 else math.nan
    test = sign_flip(d, flips, np.random.default_rng(rng_seed))
    means = tuple(float(x.mean()) for x in by_seed)
    return PairedDifference(diff, diff - half, diff + half, test.p_value, test.method, d.size, len(seeds), means)


@dataclass(frozen=True)
class SignFlip:
    """The two-sided p-value of a mean difference, and how it was found: ``exact`` or ``sampled``."""

    p_value: float
    method: str


def sign_flip(differences: Floats, flips: int, rng: np.random.Generator) -> SignFlip:
    """Test whether a mean difference is zero: how often random signs give a sum as far from zero.

    If a and b were equally good, every difference would as likely have had the other sign. Accuracies are whole numbers
    of images out of a fixed number, so that their differences are whole multiples of a unit; the distribution of the
    sum over all signings is then known and the value is exact. It is no smaller than 1e-12, which is what rounding
    leaves of it. Differences that have no such unit have up to 12 signings counted; beyond, ``flips`` are drawn, and
    the value is (k + 1) / (flips + 1), which is never zero and never too small on average.
    """
    size = np.round(np.abs(differences[differences != 0]), 12)  # 0.8 - 0.6 and 0.4 - 0.2 are one value
    observed = abs(float(np.sum(differences)))
    if (p := _on_a_lattice(size, observed)) is not None:
        return SignFlip(p, "exact")
    as_far = observed - 1e-9 * float(size.sum())  # rounding must not break ties
    if size.size <= _ENUMERATED:
        signings = np.arange(2**size.size)[:, None] >> np.arange(size.size) & 1  # [2^n, n]
        sums = (2 * signings - 1) @ size
        return SignFlip(float(np.mean(np.abs(sums) >= as_far)), "exact")
    sums = np.zeros(flips)
    for value, count in zip(*np.unique(size, return_counts=True)):  # of n equal ones, a binomial number is positive
        sums += value * (2 * rng.binomial(count, 0.5, flips) - count)
    return SignFlip((int(np.sum(np.abs(sums) >= as_far)) + 1) / (flips + 1), "sampled")


def _on_a_lattice(sizes: Floats, observed: float) -> float | None:
    """Return the exact p-value of absolute differences that are multiples of one unit, None where there is none.

    With signs drawn, the positive ones sum to T = sum of k B over the whole numbers k, each B being 0 or 1 evenly. Its
    distribution is the product of the summands' characteristic functions, (1 + exp(i k t)) / 2, transformed back.
    """
    values, counts = np.unique(sizes, return_counts=True)
    unit = 1
    for value in values:
        near = Fraction(float(value)).limit_denominator(_FINEST)
        unit = math.lcm(unit, near.denominator)
        if unit > _FINEST or abs(near - Fraction(float(value))) > 1e-10:
            return None
    steps = np.rint(values * unit).astype(np.int64)
    reach = int(steps @ counts)
    if reach * len(steps) > _LARGEST:
        return None
    length = next_fast_len(reach + 1, real=True)
    half = np.pi * np.arange(length // 2 + 1) / length
    spectrum = np.exp(-1j * (half * reach % (2 * np.pi)))
    for step, count in zip(steps, counts):
        spectrum *= np.cos(half * step) ** count
    chances = np.fft.irfft(spectrum, length)[: reach + 1]  # of T = 0 .. reach
    far = np.abs(2 * np.arange(reach + 1) - reach) >= round(observed * unit)
    return min(1.0, max(_LEAST, float(chances[far].sum())))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979), in the given order.

    Calling those below 0.05 differences errs in at most one of twenty families, whatever their dependence.
    """
    n = len(p_values)
    corrected = [0.0] * n
    largest = 0.0
    for rank, i in enumerate(sorted(range(n), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (n - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def pareto_front(cost: Sequence[tuple[float, float]], gain: Sequence[float]) -> list[int]:
    """Return the places, by rising cost, of the points of which none gains more for a cost that is not higher.

    Costs are ranges, low to high, and differ only where their ranges do not overlap. From the highest gain down, a
    point belongs to the front where its cost is lower than that of all points of the front before it. So any two of
    the front differ in cost, and each other point has one of the front that gains as much and does not cost more.
    """
    found: list[int] = []
    for i in sorted(range(len(cost)), key=lambda i: (-gain[i], sum(cost[i]), i)):
        if not found or cost[i][1] < cost[found[-1]][0]:
            found.append(i)
    return found[::-1]


@dataclass(frozen=True)
class Line:
    """A straight line through points, and the share of their variance that it explains (None for two points)."""

    slope: float
    at_zero: float
    r2: float | None

    def at(self, x: float) -> float:
        """Return the height of the line at ``x``."""
        return self.at_zero + self.slope * x


def least_squares(xs: Sequence[float], ys: Sequence[float]) -> Line | None:
    """Return the line with the least squared vertical distances; None without two different ``xs``.

    ``r2`` is 1 where every point lies on the line, a level one too, and not known for two points, which any line fits.
    """
    x, y = np.asarray(xs, dtype=np.float64), np.asarray(ys, dtype=np.float64)
    if len(set(xs)) < 2:
        return None
    dx, dy = x - x.mean(), y - y.mean()
    slope = float((dx * dy).sum() / (dx * dx).sum())
    left, total = float(((dy - slope * dx) ** 2).sum()), float((dy * dy).sum())
    r2 = None if x.size < 3 else 1 - left / total if total else 1.0
    return Line(slope, float(y.mean() - slope * x.mean()), r2)
