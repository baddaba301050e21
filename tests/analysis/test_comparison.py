"""Arms and comparisons from runs made in memory: what belongs together, what it is called, what is averaged."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from made_runs import make_row

from bench.analysis.arms import Setting, arms, by_setting
from bench.analysis.comparison import compare
from bench.analysis.curves import adaptation, drawn_points
from bench.analysis.statistics import paired_comparison
from bench.records.columns import AdaptationPoint, TestTask
from bench.records.run import Run


def run_of(algo="alpha", seed=0, accuracies=None, adaptation=(), details=None, **columns):
    """A run in memory, whose tables are what reading them would have left behind."""
    run = Run(make_row(algo, seed, **columns), details or {}, Path("nowhere"))
    plain = accuracies or []
    vars(run)["test_tasks"] = TestTask.table([TestTask(i, x, x / 2) for i, x in enumerate(plain)])
    vars(run)["adaptation"] = tuple(adaptation)
    return run


def labels(runs):
    return [(arm.label, arm.place, len(arm.runs)) for arm in arms(runs)]


def test_seeds_of_one_configuration_are_one_arm():
    assert labels([run_of(seed=1), run_of("beta"), run_of(seed=0)]) == [
        ("alpha", "5-way 1-shot", 2),
        ("beta", "5-way 1-shot", 1),
    ]
    assert arms([]) == []


def test_what_every_run_has_of_its_own_makes_no_arm():
    """Seed and hyperparameters stand in the configuration too; the latter count as what they became in the run."""
    runs = [run_of(seed=s, details={"config": {"seed": s, "hyperparameters": {"inner_lr": s}}}) for s in range(3)]
    assert labels(runs) == [("alpha", "5-way 1-shot", 3)]


def test_a_run_that_failed_before_its_mode_was_known_is_not_told_apart_by_it():
    """A plugin that failed, was mended and ran: two codes, and nothing else to tell."""
    old = run_of(status="failed", step_mode=None, details={"config": {"code_sha256": "a"}})
    new = run_of(seed=1, step_mode="eager", details={"config": {"code_sha256": "b"}})
    assert [arm.label for arm in arms([old, new])] == ["alpha (code_sha256=a)", "alpha (code_sha256=b)"]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"inner_lr": 0.1}, {"inner_lr": 0.4}, ["alpha (inner_lr=0.1)", "alpha (inner_lr=0.4)"]),
        ({"inner_lr": 0.123456789}, {"inner_lr": 0.4}, ["alpha (inner_lr=0.123)", "alpha (inner_lr=0.4)"]),
        ({"inner_lr": 0.1231}, {"inner_lr": 0.1232}, ["alpha (inner_lr=0.1231)", "alpha (inner_lr=0.1232)"]),
        ({}, {"tuning_trials": 8, "inner_lr": 0.4}, ["alpha (tuned)", "alpha (untuned)"]),
        (
            {"inner_lr": 0.1, "meta_batch": 4},
            {"inner_lr": 0.4, "meta_batch": 8},
            ["alpha (meta_batch=4, inner_lr=0.1)", "alpha (meta_batch=8, inner_lr=0.4)"],
        ),
        (
            {"details": {"hyperparameters": {"outer": 1}}},
            {"details": {"hyperparameters": {"outer": 2}}},
            ["alpha (outer=1)", "alpha (outer=2)"],
        ),
        (
            {"details": {"config": {"precision": "x", "seed": 0, "algo": "alpha", "backbone_options": 1}}},
            {"details": {"config": {"precision": "y", "seed": 0, "algo": "gamma", "backbone_options": 2}}},
            ["alpha (precision=x)", "alpha (precision=y)"],
        ),
        # what an edited file holds where a table belongs counts as nothing
        ({"details": {"hyperparameters": 3, "config": "text"}}, {}, ["alpha"]),
        # a hyperparameter says more than the flag of the same name
        (
            {"details": {"hyperparameters": {"inner_steps": 3}}},
            {"details": {"hyperparameters": {"inner_steps": 5}}},
            ["alpha (inner_steps=3)", "alpha (inner_steps=5)"],
        ),
        # a value that only one of them has is named where it is
        ({"details": {"hyperparameters": {"outer": 1}}}, {}, ["alpha", "alpha (outer=1)"]),
    ],
)
def test_variants_are_named_by_what_differs(one, other, expected):
    assert [arm.label for arm in arms([run_of(**one), run_of(seed=1, **other)])] == expected


def test_the_order_in_which_values_were_written_makes_no_arm():
    written = ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    runs = [run_of(seed=seed, details={"hyperparameters": values}) for seed, values in enumerate(written)]
    assert labels(runs) == [("alpha", "5-way 1-shot", 2)]


def test_only_hashes_are_cut_short():
    runs = [run_of(inner_optimizer="a-very-long-name"), run_of(inner_optimizer="another-long-name")]
    assert [arm.label for arm in arms(runs)] == [
        "alpha (inner_optimizer=a-very-long-name)",
        "alpha (inner_optimizer=another-long-name)",
    ]


def test_failed_runs_that_contradict_each_other_stay_apart():
    assert len(arms([run_of(status="failed", inner_lr=0.1), run_of(status="failed", inner_lr=0.2)])) == 2


def test_only_rivals_of_one_name_and_one_setting_are_told_apart():
    runs = [run_of(inner_lr=0.1), run_of("beta", inner_lr=0.4), run_of(n_way=20, inner_lr=0.2)]
    assert [arm.label for arm in arms(runs)] == ["alpha", "beta", "alpha"]


def test_machines_are_named_for_all_of_a_setting():
    """Neither algorithm has two arms, yet their costs must not stand side by side unnamed."""
    runs = [run_of(device_name="slow"), run_of("beta", device_name="fast")]
    assert [arm.label for arm in arms(runs)] == ["alpha (device_name=slow)", "beta (device_name=fast)"]


def test_a_variant_on_another_machine_says_both():
    runs = [run_of(inner_lr=0.1, device_name="slow"), run_of(inner_lr=0.4, device_name="fast")]
    assert [arm.label for arm in arms(runs)] == [
        "alpha (inner_lr=0.1, device_name=slow)",
        "alpha (inner_lr=0.4, device_name=fast)",
    ]


def test_threads_are_named_among_runs_on_one_machine_only():
    runs = [
        run_of(device="cuda", device_name="H100", threads=1),
        run_of("beta", device="cpu", device_name="Xeon", threads=2),
    ]
    assert [arm.label for arm in arms(runs)] == ["alpha (device=cuda)", "beta (device=cpu)"]
    runs = [run_of(threads=1), run_of("beta", threads=2)]
    assert [arm.label for arm in arms(runs)] == ["alpha (threads=1)", "beta (threads=2)"]


def test_a_run_that_died_before_it_knew_its_machine_is_not_named_by_it():
    runs = [run_of(), run_of("beta", status="failed", device_name=None, threads=None)]
    assert [arm.label for arm in arms(runs)] == ["alpha", "beta"]


def test_a_failed_run_joins_the_first_arm_that_contradicts_nothing_it_knows():
    lr = [run_of(inner_lr=0.4, started_at="1"), run_of(inner_lr=0.2, started_at="2")]
    died = run_of(seed=5, status="failed", inner_lr=0.2, device_name=None, started_at="0")
    assert [(arm.label, [run.row.seed for run in arm.runs]) for arm in arms([died, *lr])] == [
        ("alpha (inner_lr=0.2)", [0, 5]),
        ("alpha (inner_lr=0.4)", [0]),
    ]
    lost = run_of(seed=5, status="failed", inner_lr=None, started_at="0")
    assert [[run.row.seed for run in arm.runs] for arm in arms([lost, *lr])] == [[0], [0, 5]]  # the arm begun first
    begun = run_of(seed=6, status="failed", details={"hyperparameters": {"only_here": 1}}, inner_lr=0.4)
    assert [[run.row.seed for run in arm.runs] for arm in arms([begun, *lr])] == [[0], [0, 6]]
    alone = run_of(seed=5, status="failed", inner_lr=0.9)
    assert len(arms([*lr, alone])) == 3


def test_results_of_another_version_of_the_harness_or_of_other_splits_are_named_and_not_mixed():
    """Two seeds, one made by each: two settings, and no pair."""
    for name, values in {"results": (1, 2), "data_code": ("0a", "0b")}.items():
        runs = [run_of(seed=seed, algo=algo, **{name: v}) for seed, v in enumerate(values) for algo in ("a", "b")]
        found = arms(runs)
        assert len(found) == 4
        assert {arm.place for arm in found} == {f"5-way 1-shot ({name}={value})" for value in values}
        assert all(len(arm.runs) == 1 for arm in found)
    old = [run_of(results=None), run_of(results=1, seed=1)]
    assert len(arms(old)) == 1, "rows of the first version do not say"


def test_settings_are_named_by_what_the_episode_leaves_out():
    data = "0123456789abcdef" * 4
    runs = [run_of(), run_of(data_sha256=data), run_of(n_way=20), run_of(dataset="other", data_sha256=data)]
    own = make_row().data_sha256[:12]
    assert {arm.place for arm in arms(runs)} == {
        "20-way 1-shot",
        f"5-way 1-shot (data_sha256={own})",
        "5-way 1-shot (data_sha256=0123456789ab)",
        "5-way 1-shot",
    }


def test_arms_stand_by_setting_then_label():
    runs = [
        run_of("b", n_way=20), run_of("a", n_way=20), run_of("c"), run_of("d", k_shot=5), run_of("e", dataset="a"),
        run_of("f", protocol="a"), run_of("g", k_query=1),
    ]  # fmt: skip
    found = arms(runs)
    assert "".join(arm.algo for arm in found) == "efgcdab"
    assert [[arm.algo for arm in members] for _, members in by_setting(found)] == [
        *(["e"], ["f"], ["g"], ["c"], ["d"]),
        ["a", "b"],
    ]
    assert [setting for setting, _ in by_setting(found)][-1] == found[-1].setting


def test_a_setting_is_ordered_by_numbers_not_by_digits():
    nine, ten = (Setting("d", "p", n_way, 1, 1, "b", None, None, None) for n_way in (9, 10))
    assert nine.order < ten.order
    assert ten.name == "10-way 1-shot"


def test_values_mean_spread_and_interval_over_seeds():
    """0.6, 0.8 and two that are not known: mean 0.7, sd 0.1 sqrt 2; half-widths 0.03 and 0.04 add up to 0.05 / 2."""
    known = ((0.6, 0.03), (0.8, 0.04), (None, None), (math.nan, math.nan))
    (arm,) = arms([run_of(seed=i, test_acc=acc, test_acc_ci95=half) for i, (acc, half) in enumerate(known)])
    assert arm.values("test_acc") == [0.6, 0.8]
    assert arm.mean("test_acc") == pytest.approx(0.7)
    assert arm.sd("test_acc") == pytest.approx(0.1 * math.sqrt(2))
    assert arm.ci95("test_acc") == pytest.approx(0.025)
    assert all(math.isnan(f("test_acc_transductive")) for f in (arm.mean, arm.sd, arm.ci95))
    (alone,) = arms([run_of(test_acc=0.5, test_acc_ci95=0.1)])
    assert (alone.mean("test_acc"), alone.ci95("test_acc")) == (0.5, 0.1)
    assert math.isnan(alone.sd("test_acc"))


def test_of_one_seed_the_latest_ok_run_counts():
    runs = [
        run_of(started_at=f"2026-01-0{day}", run_id=f"r{day}", status=status, test_acc=day / 10)
        for day, status in ((2, "ok"), (1, "ok"), (3, "failed"))
    ]
    (arm,) = arms(runs)
    assert arm.values("test_acc") == [0.2]
    assert [run.row.run_id for run in arm.runs] == ["r1", "r2", "r3"]


def test_of_runs_begun_at_once_the_name_decides():
    (arm,) = arms([run_of(run_id="b", test_acc=0.2), run_of(run_id="a", test_acc=0.1)])
    assert arm.values("test_acc") == [0.2]


def test_what_was_measured_and_where_it_stands():
    (accuracy,) = arms([run_of(test_acc=0.5)])
    assert (accuracy.measure, accuracy.tested) == (
        "accuracy",
        {"plain": "test_acc", "transductive": "test_acc_transductive"},
    )
    (error,) = arms([run_of(test_error=0.1, measure="mean squared error")])
    assert (error.measure, error.tested) == (
        "mean squared error",
        {"plain": "test_error", "transductive": "test_error_transductive"},
    )


def test_adaptation_is_the_mean_of_the_seeds_that_have_it_by_step_within_its_band():
    def points(*values):
        return [AdaptationPoint(*value, 0.01) for value in values]

    runs = [
        run_of(seed=0, adaptation=points(("plain", 1, 0.6), ("plain", 0, 0.2), ("transductive", 0, 0.9))),
        run_of(seed=1, adaptation=points(("plain", 0, 0.4), ("plain", 1, math.nan), ("plain", 2, None))),
        run_of(seed=2, status="failed", adaptation=points(("plain", 0, 1.0))),
    ]
    (arm,) = arms(runs)
    found = adaptation(arm, "plain")
    assert found == {0: (0, pytest.approx(0.3), 0.2, 0.4), 1: (1, 0.6, pytest.approx(0.59), pytest.approx(0.61))}
    assert adaptation(arm, "transductive") == {0: (0, 0.9, pytest.approx(0.89), pytest.approx(0.91))}
    assert [point.x for point in drawn_points(arm, "plain", 3)] == [1]
    assert drawn_points(arm, "transductive", 3) == []  # lost on the way, which is no level


def test_what_takes_no_steps_is_a_level_across_the_others():
    runs = [run_of(adaptation=[AdaptationPoint("plain", 0, 0.6, 0.01)])]
    (arm,) = arms(runs)
    assert [(point.x, point.mean) for point in drawn_points(arm, "plain", 5)] == [(1, 0.6), (5, 0.6)]
    assert [(point.x, point.mean) for point in drawn_points(arm, "plain", 0)] == [(1, 0.6)]


def test_comparisons_are_of_shared_seeds_in_both_modes():
    x, y = [0.5, 0.75, 1.0, 0.25], [0.5, 0.5, 0.75, 0.75]
    runs = [run_of("a", 0, x), run_of("a", 1, y), run_of("b", 1, x), run_of("b", 2, x), run_of("c", 1, y, n_way=20)]
    plain, transductive = compare(arms(runs))
    expected = paired_comparison({1: y}, {1: x})
    assert (plain.algo_a, plain.algo_b, plain.mode, transductive.mode) == ("a", "b", "plain", "transductive")
    assert (plain.n_way, plain.k_shot, plain.k_query) == (5, 1, 9)
    assert (plain.dataset, plain.protocol, plain.setting.backbone) == ("glyphs", "quick", "conv4")
    assert (plain.diff, plain.ci95_low, plain.ci95_high) == (expected.diff, expected.ci95_low, expected.ci95_high)
    assert (plain.p_value, plain.p_value_holm) == (expected.p_value, min(1.0, 2 * expected.p_value))
    assert (plain.test_tasks, plain.seeds, plain.seed_diffs, plain.seed_diff_sd) == (4, 1, expected.seed_diffs, None)
    assert transductive.diff == expected.diff / 2


@pytest.mark.parametrize("other", [[], [0.5], [0.5, math.nan], [0.5, math.inf]])
def test_what_cannot_be_paired_is_left_out(other):
    assert compare(arms([run_of("a", 0, [0.5, 0.6]), run_of("b", 0, other)])) == []


def test_a_seed_that_cannot_be_paired_does_not_hide_the_next():
    runs = [run_of("a", 0, [0.5]), run_of("b", 0, []), run_of("a", 1, [0.5]), run_of("b", 1, [0.25])]
    assert [(c.seeds, c.diff) for c in compare(arms(runs))] == [(1, 0.25), (1, 0.125)]


def test_several_seeds_fill_the_columns_over_seeds():
    x, y, z = [0.5, 0.75, 1.0], [0.5, 0.5, 0.5], [0.25, 0.5, 0.25]
    runs = [run_of("a", 0, x), run_of("a", 1, y), run_of("b", 0, y), run_of("b", 1, z)]
    plain, transductive = compare(arms(runs))
    expected = paired_comparison({0: x, 1: y}, {0: y, 1: z})
    over = expected.over_seeds
    assert (plain.seed_ci95_low, plain.seed_ci95_high, plain.seed_p_value) == (
        over.ci95_low,
        over.ci95_high,
        over.p_value,
    )
    assert plain.seed_diff_sd == expected.seed_sd
    assert plain.seed_p_value_holm == pytest.approx(min(1.0, 2 * over.p_value))
    assert transductive.seed_p_value == pytest.approx(over.p_value)
