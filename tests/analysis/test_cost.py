"""What a score costs: a front only where training times differ by more than they vary."""

import pytest
from made_runs import make_run

from bench.analysis import cost
from bench.analysis.arms import arms
from bench.records.run import load_runs


def points_of(out):
    return cost.points(arms(load_runs(out)))


def labels(found):
    return [point.arm.label for point in found]


def test_one_seed_is_as_uncertain_as_its_steps(tmp_path):
    """p95 is 1.5 times the median: 90 s may be 60 or 135 s."""
    make_run(tmp_path, "one", train_s=90.0, step_ms_median=100.0, step_ms_p95=150.0)
    assert [point.noise for point in points_of(tmp_path)] == [pytest.approx((60.0, 135.0))]


def test_three_seeds_say_themselves_how_times_vary(tmp_path):
    for seed, train_s in enumerate((90.0, 84.0, 99.0)):
        make_run(tmp_path, "one", seed, train_s=train_s, step_ms_median=100.0, step_ms_p95=300.0)
    (point,) = points_of(tmp_path)
    assert (point.train_s, point.noise) == (pytest.approx(91.0), (84.0, 99.0))
    for algo, times in (("close", (98.0, 120.0, 110.0)), ("far", (100.0, 120.0, 110.0))):
        for seed, train_s in enumerate(times):
            make_run(tmp_path, algo, seed, 0.95, train_s=train_s)
    found = {point.arm.label: point for point in points_of(tmp_path)}
    assert cost.front([found["one"], found["close"]]) == []
    assert labels(cost.front([found["far"], found["one"]])) == ["one", "far"]


@pytest.mark.parametrize(("p95", "expected"), [(125.0, ["quick", "slow"]), (150.0, [])])
def test_a_front_needs_times_that_differ_by_more_than_their_noise(tmp_path, p95, expected):
    """100 and 200 s: with 1.25 up to 125 and from 160 s on, with 1.5 up to 150 and from 133 s on."""
    for algo, train_s, acc in (("quick", 100.0, 0.7), ("slow", 200.0, 0.9)):
        make_run(tmp_path, algo, train_s=train_s, test_acc=acc, step_ms_median=100.0, step_ms_p95=p95)
    found = points_of(tmp_path)
    assert labels(cost.front(found)) == expected
    why = "" if expected else "No Pareto front: training times do not differ by more than their noise."
    assert cost.why_no_front(found) == why


def test_without_a_price_there_is_no_front_either(tmp_path):
    for algo, train_s, acc in (("quick", 10.0, 0.9), ("slow", 200.0, 0.7)):
        make_run(tmp_path, algo, train_s=train_s, test_acc=acc)
    found = points_of(tmp_path)
    assert cost.front(found) == []
    assert "quick scores best, and none is faster" in cost.why_no_front(found)
    assert cost.why_no_front(found[:1]) == ""


def test_of_times_whose_noise_is_not_known_nothing_is_said(tmp_path):
    for algo, train_s, acc in (("quick", 1.0, 0.7), ("slow", 200.0, 0.9)):
        make_run(tmp_path, algo, train_s=train_s, test_acc=acc, step_ms_p95=None)
    assert "do not differ by more than their noise" in cost.why_no_front(points_of(tmp_path))
