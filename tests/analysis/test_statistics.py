"""Intervals and tests: closed forms, independent references, and how often they are right on simulated tasks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from reference_stats import exact_sign_flip_p, step_down
from scipy import stats as reference

from bench.analysis.arms import Setting
from bench.analysis.comparison import compared, corrected
from bench.analysis.statistics import (
    SignFlip,
    holm,
    least_squares,
    paired_comparison,
    pareto_front,
    seed_test,
    sign_flip,
)
from bench.records.intervals import mean_ci95

IMAGES = 45  # query images per task: accuracies are multiples of 1/45


def simulated(rng: np.random.Generator, tasks: int, advantage: float = 0.0, level: float = 0.85) -> tuple:
    """Accuracies of two algorithms on the same tasks, which are of unequal difficulty."""
    hard = rng.normal(0, 0.08, tasks)
    a, b = (rng.binomial(IMAGES, np.clip(level + hard + extra, 0, 1)) / IMAGES for extra in (advantage, 0.0))
    return a, b


def test_mean_and_interval_of_two_values():
    """0.5 and 1: sd = 0.5 / sqrt 2, so that 1.96 sd / sqrt 2 = 0.49."""
    assert mean_ci95([0.5, 1.0]) == pytest.approx((0.75, 0.49), abs=1e-15)


def test_interval_of_one_value_is_unknown():
    mean, half = mean_ci95([0.5])
    assert mean == 0.5
    assert math.isnan(half)
    assert all(map(math.isnan, mean_ci95([])))


def test_single_precision_and_infinite_values_are_averaged_in_double_precision():
    values = np.array([0.1, 0.2, 0.4], dtype=np.float32)
    assert mean_ci95(values) == mean_ci95(values.astype(np.float64))
    mean, half = mean_ci95([math.inf, 1.0])
    assert (mean, math.isnan(half)) == (math.inf, True)


def test_interval_covers_the_true_mean_in_95_of_100_experiments():
    rng = np.random.default_rng(1)
    truth = 0.9
    covered = []
    for _ in range(2000):
        mean, half = mean_ci95(rng.binomial(5, truth, 200) / 5)
        covered.append(abs(mean - truth) <= half)
    assert 0.93 <= np.mean(covered) <= 0.965


def test_paired_interval_is_students():
    rng = np.random.default_rng(2)
    a, b = simulated(rng, 12)
    got = paired_comparison({0: a}, {0: b})
    low, high = reference.ttest_rel(a, b).confidence_interval(0.95)
    assert (got.ci95_low, got.ci95_high) == pytest.approx((low, high), rel=1e-12)
    assert got.diff == pytest.approx(float(np.mean(a) - np.mean(b)), abs=1e-15)
    assert (got.test_tasks, got.seeds, got.seed_sd) == (12, 1, None)


def test_paired_interval_covers_the_true_difference_in_95_of_100_experiments():
    rng = np.random.default_rng(3)
    truth, covered = 2 / IMAGES, []
    for _ in range(1500):
        hard = rng.uniform(0.3, 0.6, 100)
        a, b = (rng.binomial(IMAGES, hard + extra) / IMAGES for extra in (truth, 0.0))
        got = paired_comparison({0: a}, {0: b}, flips=10)
        covered.append(got.ci95_low <= truth <= got.ci95_high)
    assert 0.935 <= np.mean(covered) <= 0.965


def test_equal_algorithms_are_called_different_at_the_level():
    rng = np.random.default_rng(4)
    p = np.array(
        [paired_comparison({0: a}, {0: b}, flips=999).p_value for a, b in (simulated(rng, 150) for _ in range(1000))]
    )
    for level in (0.01, 0.05, 0.2):
        assert abs(np.mean(p <= level) - level) <= 4 * math.sqrt(level * (1 - level) / 1000)


def test_a_planted_difference_is_found_in_either_direction():
    a, b = simulated(np.random.default_rng(5), 2000, advantage=0.01)
    got, back = paired_comparison({0: a}, {0: b}), paired_comparison({0: b}, {0: a})
    assert 0 < got.ci95_low < 0.01 < got.ci95_high
    assert got.p_value < 0.001
    assert (back.diff, back.ci95_low, back.p_value) == (-got.diff, -got.ci95_high, got.p_value)


@pytest.mark.parametrize("d", [[0.2], [0.2, 0.2, 0.2], [0.2, -0.2, 0.4, 0.0], [0.1, 0.3, -0.1, 0.2, 0.7], [0.0, 0.0]])
def test_few_tasks_are_enumerated(d):
    """Against all sign vectors in whole fifths and tenths, where no rounding can break a tie."""
    tenths = [round(10 * x) for x in d]
    sums = [abs(sum(s * x for s, x in zip(signs, tenths))) for signs in itertools.product((-1, 1), repeat=len(d))]
    expected = np.mean([s >= abs(sum(tenths)) for s in sums])
    for odd in (1, math.pi):  # on a lattice, and not
        found = sign_flip(odd * np.array(d), 10, np.random.default_rng(0))
        assert (found.p_value, found.method) == (pytest.approx(expected, rel=1e-12), "exact")


def test_many_tasks_agree_with_an_independent_permutation_test():
    a, b = simulated(np.random.default_rng(6), 60, advantage=0.02)
    expected = reference.permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=40_000,
        rng=7,
        vectorized=True,
    )
    assert 0.01 < expected.pvalue < 0.9
    assert paired_comparison({0: a}, {0: b}, flips=40_000).p_value == pytest.approx(expected.pvalue, abs=0.012)


def test_grouping_equal_differences_keeps_the_exact_distribution():
    """30 equal differences d, 20 of them positive: the p-value is the two-sided sign test's, a binomial tail."""
    d = np.repeat([1 / IMAGES, -1 / IMAGES], [20, 10])
    expected = 2 * reference.binom.sf(19, 30, 0.5)
    assert sign_flip(d, 0, np.random.default_rng(8)) == SignFlip(pytest.approx(expected, rel=1e-11), "exact")
    sampled = sign_flip(math.pi * d, 200_000, np.random.default_rng(8))
    assert sampled == SignFlip(pytest.approx(expected, abs=4 * math.sqrt(expected / 200_000)), "sampled")


def test_p_value_is_never_zero_and_counts_the_data_itself():
    a = np.full(500, 1.0)
    assert paired_comparison({0: a}, {0: a - 0.2}).p_value == 1e-12
    assert paired_comparison({0: a}, {0: a - 0.2 * math.pi}, flips=9_999).p_value == 1 / 10_000


def test_identical_accuracies_differ_by_nothing():
    a, _ = simulated(np.random.default_rng(9), 50)
    got = paired_comparison({0: a}, {0: a})
    assert (got.diff, got.ci95_low, got.ci95_high, got.p_value) == (0, 0, 0, 1)


def test_only_shared_seeds_count_and_seeds_are_pooled_over_tasks():
    rng = np.random.default_rng(10)
    (a0, b0), (a1, b1), (a2, b2) = (simulated(rng, n) for n in (30, 30, 20))
    got = paired_comparison({0: a0, 1: a1, 2: a2}, {2: b2, 1: b1, 5: b0})
    pooled = np.concatenate([a1 - b1, a2 - b2])
    assert got.diff == pytest.approx(pooled.mean(), abs=1e-15)
    assert (got.test_tasks, got.seeds) == (50, 2)
    assert got.seed_diffs == pytest.approx([np.mean(a1 - b1), np.mean(a2 - b2)], abs=1e-15)
    assert got.seed_sd == pytest.approx(abs(got.seed_diffs[0] - got.seed_diffs[1]) / math.sqrt(2))


def test_the_same_accuracies_give_the_same_p_value():
    a, b = simulated(np.random.default_rng(11), 300, advantage=0.004)
    np.random.seed(0)  # noqa: NPY002  # the global generator must not matter
    first = paired_comparison({0: a}, {0: b})
    assert paired_comparison({0: a}, {0: b}) == first


@pytest.mark.parametrize(
    ("a", "b", "word"),
    [
        ({0: [1.0]}, {1: [1.0]}, "no seed in common"),
        ({0: [1.0, 1.0]}, {0: [1.0]}, "cannot be paired"),
        ({0: []}, {0: []}, "cannot be paired"),
        ({0: [math.nan]}, {0: [1.0]}, "not finite"),
    ],
)
def test_what_cannot_be_paired_is_refused(a, b, word):
    with pytest.raises(ValueError, match=word):
        paired_comparison(a, b)


def test_holm_on_paper():
    """Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.04, then never falling: 0.06 at the end."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_family_error():
    rng = np.random.default_rng(12)
    errors = [min(holm(list(rng.uniform(size=6)))) < 0.05 for _ in range(4000)]
    assert 0.035 <= np.mean(errors) <= 0.062


def test_holm_agrees_with_its_definition_ties_included():
    rng = np.random.default_rng(13)
    for n in range(1, 12):
        p = np.round(rng.uniform(0, 0.4, n), 1).tolist()
        assert holm(p) == pytest.approx(step_down(p), abs=1e-15)


@pytest.mark.parametrize(("tasks", "advantage"), [(13, 0.05), (40, 0.03), (400, 0.0), (400, 0.012), (3000, 0.004)])
def test_five_images_a_task_give_the_exact_distribution_ties_and_zeros_included(tasks, advantage):
    """With 5 query images most differences are 0 or one fifth; against a convolution over whole fifths."""
    rng = np.random.default_rng(14)
    hard = rng.uniform(-0.1, 0.1, tasks)
    a, b = (rng.binomial(5, 0.85 + hard + extra) / 5 for extra in (advantage, 0.0))
    assert np.mean(a == b) > 0.2
    expected = exact_sign_flip_p(a, b, 0.2)
    assert sign_flip(a - b, 0, np.random.default_rng(15)) == SignFlip(pytest.approx(expected, abs=2e-12), "exact")


def test_five_images_a_task_are_called_different_at_the_level():
    rng = np.random.default_rng(16)
    hard = rng.uniform(-0.1, 0.1, (1000, 150))
    a, b = rng.binomial(5, 0.85 + hard) / 5, rng.binomial(5, 0.85 + hard) / 5
    p = np.array([paired_comparison({0: x}, {0: y}, flips=999).p_value for x, y in zip(a, b)])
    for level in (0.01, 0.05, 0.2):
        rate = np.mean(p <= level)
        assert level / 2 <= rate <= level + 4 * math.sqrt(level * (1 - level) / 1000)


# Tasks within seeds: what several seeds are for. A seed's models are better or worse than the algorithm is on average.

SEED_SD = 0.01
SETTING = Setting("made", "made", 5, 1, 1, "none", 1, "none", None)


def hierarchical(rng, experiments, seeds, tasks, effect=0.0, seed_sd=SEED_SD, algorithms=2):
    """Accuracies ``[algorithms, experiments, seeds, tasks]`` of 5 images a task, the first better by ``effect``.

    Nothing is clipped, so that ``effect`` is the true mean difference over all trainings and all tasks.
    """
    hard = rng.uniform(-0.15, 0.15, (experiments, seeds, tasks))  # shared by the algorithms
    trained = rng.normal(0, seed_sd, (algorithms, experiments, seeds, 1))
    trained[0] += effect
    return rng.binomial(5, 0.7 + hard + trained) / 5


def comparison_of(a, b, flips=999):
    return compared("a", "b", SETTING, "plain", dict(enumerate(a)), dict(enumerate(b)), flips)


def test_the_test_over_seeds_is_students():
    diffs = [0.012, 0.003, 0.009, 0.016]
    expected = reference.ttest_1samp(diffs, 0)
    low, high = expected.confidence_interval(0.95)
    got = seed_test(diffs)
    assert (got.ci95_low, got.ci95_high, got.p_value) == pytest.approx((low, high, expected.pvalue), rel=1e-12)
    mirrored = seed_test([-d for d in diffs])
    assert (mirrored.ci95_low, mirrored.p_value) == pytest.approx((-high, expected.pvalue))


def test_two_seeds_are_almost_nothing():
    """0.01 and 0.02 on one degree of freedom: t = 3, whose p-value is 2 arctan(1/3) / pi."""
    got = seed_test([0.01, 0.02])
    assert got.p_value == pytest.approx(2 * math.atan(1 / 3) / math.pi)
    assert got.ci95_low < 0 < got.ci95_high


def test_seeds_that_do_not_tell():
    assert seed_test([0.1]) is None
    assert seed_test([]) is None
    assert seed_test([0.8 - 0.6, 0.2, 0.4 - 0.2]) is None  # equal on paper: no spread is no certainty
    same = seed_test([0.0, 0.0, 0.0])
    assert (same.ci95_low, same.ci95_high, same.p_value) == (0, 0, 1)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_over_seeds_covers_the_algorithms_true_difference(seeds):
    """95 of 100, where the interval over tasks, which takes models as given, covers it far less often."""
    truth, experiments, tasks = 0.02, 2000, 200
    a, b = hierarchical(np.random.default_rng(20 + seeds), experiments, seeds, tasks, truth)
    d = a - b  # [experiments, seeds, tasks]
    intervals = [seed_test(x) for x in d.mean(axis=2)]
    covered = np.mean([i.ci95_low <= truth <= i.ci95_high for i in intervals if i])
    assert sum(i is None for i in intervals) < experiments / 50  # two seeds that tie to the last task
    assert abs(covered - 0.95) <= 4 * math.sqrt(0.95 * 0.05 / experiments)
    pooled = d.reshape(experiments, -1)
    half = reference.t.ppf(0.975, pooled.shape[1] - 1) * pooled.std(axis=1, ddof=1) / math.sqrt(pooled.shape[1])
    assert np.mean(np.abs(pooled.mean(axis=1) - truth) <= half) < 0.9


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_equal_algorithms_are_called_better_at_most_at_the_level(seeds):
    """Tasks alone, and even all seeds agreeing, would find a winner among equals far too often."""
    experiments = 500
    a, b = hierarchical(np.random.default_rng(30 + seeds), experiments, seeds, 1000, seed_sd=0.02)
    found = [comparison_of(x, y) for x, y in zip(a, b)]
    tasks_alone = np.mean([c.p_value < 0.05 for c in found])
    agreeing = np.mean([c.p_value < 0.05 and len({d > 0 for d in c.seed_diffs}) == 1 for c in found])
    better = np.mean([c.verdict in ("a better", "b better") for c in found])
    assert tasks_alone > 0.4
    assert agreeing > 0.8 * 2 ** (1 - seeds) * tasks_alone  # equals agree in one of 2^(seeds - 1) cases
    assert better <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / experiments)


def test_the_family_of_a_setting_errs_at_most_at_the_level():
    """Three equal algorithms, three comparisons that share their runs: any winner at all in one of twenty."""
    experiments = 800
    runs = hierarchical(np.random.default_rng(40), experiments, 3, 200, seed_sd=0.04, algorithms=3)
    wrong = []
    for i in range(experiments):
        pairs = itertools.combinations(range(3), 2)
        family = corrected([comparison_of(runs[one, i], runs[other, i], 199) for one, other in pairs])
        wrong.append(any(c.verdict in ("a better", "b better") for c in family))
    assert np.mean(wrong) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / experiments)


def test_a_planted_difference_between_algorithms_is_found_over_seeds():
    a, b = hierarchical(np.random.default_rng(50), 60, 5, 1000, effect=0.04, seed_sd=0.005)
    verdicts = [comparison_of(x, y).verdict for x, y in zip(a, b)]
    assert np.mean([verdict == "a better" for verdict in verdicts]) > 0.9
    assert not any(verdict.startswith("b better") for verdict in verdicts)


def test_families_are_corrected_over_tasks_and_over_seeds_each_for_itself():
    """Two comparisons over seeds and one of a single seed: 3 p-values over tasks, 2 over seeds."""
    a, b = hierarchical(np.random.default_rng(51), 2, 3, 100, effect=0.03)
    family = [comparison_of(a[0], b[0]), comparison_of(a[1], b[1]), comparison_of(a[0][:1], b[0][:1])]
    got = corrected(family)
    assert [c.p_value_holm for c in got] == pytest.approx(step_down([c.p_value for c in family]))
    assert [c.seed_p_value_holm for c in got[:2]] == pytest.approx(step_down([c.seed_p_value for c in family[:2]]))
    assert (got[2].seed_p_value, got[2].seed_p_value_holm, got[2].seed_ci95_low) == (None, None, None)


def test_pareto_front_on_paper():
    exact = [(c, c) for c in (3.0, 1.0, 2.0, 2.0, 4.0)]
    assert pareto_front(exact, [0.9, 0.5, 0.7, 0.6, 0.9]) == [
        1,
        2,
        0,
    ]  # (2, 0.6) loses to (2, 0.7), (4, 0.9) to (3, 0.9)
    assert pareto_front([(1.0, 1.0), (1.0, 1.0)], [0.5, 0.5]) == [0]
    assert pareto_front([], []) == []


def test_a_pareto_front_takes_costs_whose_ranges_overlap_for_equal():
    """The middle one is no cheaper than the best, nor the first than the middle one, but than the best it is."""
    cost, gain = [(1.0, 2.0), (1.5, 3.5), (3.0, 4.0)], [0.7, 0.8, 0.9]
    assert pareto_front(cost, gain) == [0, 2]
    assert pareto_front([(1.0, 3.0), (1.5, 3.5), (3.0, 4.0)], gain) == [2]
    assert pareto_front([(0.0, math.inf), (1.0, 1.0)], [0.7, 0.8]) == [1]  # nothing is known of the first


def test_least_squares_on_paper():
    """(0, 1), (1, 3), (2, 2) around (1, 2): slope 1/2, and of the variance 2 a residual of 3/2 is left."""
    line = least_squares([0, 1, 2], [1, 3, 2])
    assert (line.slope, line.at_zero, line.r2) == pytest.approx((0.5, 1.5, 0.25))
    assert line.at(4) == pytest.approx(3.5)


def test_lines_that_explain_all_or_nothing_that_can_be_known():
    through = least_squares([1, 2, 3], [5, 7, 9])
    assert (through.slope, through.at_zero, through.r2) == pytest.approx((2, 3, 1))
    level = least_squares([1, 2, 4], [3, 3, 3])
    assert (level.slope, level.at_zero, level.r2) == (0, 3, 1)
    two = least_squares([1, 3], [1, 2])
    assert (two.slope, two.at_zero, two.r2) == (0.5, 0.5, None)
    assert least_squares([2, 2, 2], [1, 2, 3]) is None
    assert least_squares([2], [1]) is None
    assert least_squares([], []) is None


def test_single_precision_is_compared_in_double_precision():
    """0.1 in single precision is no exact multiple of anything: sums of squares would differ in the seventh digit."""
    x, y = (np.array(v, dtype=np.float32) for v in ([0.1, 0.7, 0.3], [0.2, 0.3, 0.9]))
    wide = [v.astype(np.float64) for v in (x, y)]
    assert seed_test(x) == seed_test(wide[0])
    assert paired_comparison({0: x}, {0: y}) == paired_comparison({0: wide[0]}, {0: wide[1]})
    assert least_squares(x, y) == least_squares(*wide)
