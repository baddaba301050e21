"""Time to accuracy: the first point that is there, nothing between points, and a miss that no average hides."""

from __future__ import annotations

import csv
import math

import pytest
from made_runs import make_row, make_run

from bench.analysis.arms import arms
from bench.analysis.time_to_accuracy import THRESHOLDS, of_arm, reached_by, spacing, time_to_accuracy
from bench.records.columns import CurvePoint
from bench.records.run import load_runs, write_run
from bench.report.drawing.pictures import FIGURES
from bench.report.words.costs import times, told
from bench.report.write import write_report


def curved(out, seed, accuracies, seconds=10.0, algo="alpha", **changes):
    """A run validated every 100 steps of 8 tasks, with these accuracies."""
    train_s = seconds * (len(accuracies) - 1)
    row = make_row(algo, seed, train_s=train_s, test_acc=0.9, run_id=f"{algo}-{seed}", **changes)
    points = [CurvePoint(100 * i, 800 * i, seconds * i, acc, 0.01, 1.0) for i, acc in enumerate(accuracies)]
    write_run(out / "runs" / row.run_id, row, {"config": {}, "hyperparameters": {}}, points, [], [])


def arm_of(out):
    (arm,) = arms(load_runs(out))
    return arm


def test_the_first_point_at_or_above_counts_and_nothing_is_interpolated(tmp_path):
    """0.95 on paper, here the mean of floats just below it; falling again later takes nothing back."""
    curved(tmp_path, 0, [0.2, 0.89, math.nextafter(0.95, 0), 0.93, 0.975])
    lines = {line.threshold: line for line in reached_by(load_runs(tmp_path)[0])}
    assert tuple(lines) == THRESHOLDS == (0.90, 0.95, 0.97, 0.98)
    found = {t: (x.reached, x.meta_step, x.tasks_seen, x.train_s) for t, x in lines.items()}
    assert found[0.90] == found[0.95] == (1, 200, 1600, 20.0)
    assert found[0.97] == (1, 400, 3200, 40.0)
    assert found[0.98] == (0, None, None, None)
    assert {line.best_val_acc for line in lines.values()} == {0.975}


def test_a_median_needs_every_seed(tmp_path):
    for seed, (curve, seconds) in enumerate(
        (([0.2, 0.96], 10.0), ([0.2, 0.91, 0.96], 20.0), ([0.2, 0.92, 0.94], 25.0))
    ):
        curved(tmp_path, seed, curve, seconds)
    found = {one.threshold: one for one in of_arm(arm_of(tmp_path))}
    assert (found[0.90].median_s, found[0.90].median_tasks, found[0.90].hits) == (20.0, 800, 3)
    assert (found[0.95].median_s, found[0.95].median_tasks, found[0.95].hits) == (None, None, 2)
    assert [told(found[t]) for t in THRESHOLDS] == [
        *("20.0 s (800 tasks)", "2 of 3 seeds", "not reached (best 0.960)", "not reached (best 0.960)")
    ]
    assert found[0.95].full_s == (10.0, 40.0, 50.0)


def test_a_seed_that_diverged_is_a_miss_and_one_that_crashed_is_not_counted(tmp_path):
    curved(tmp_path, 0, [0.2, 0.92])
    make_run(tmp_path, seed=1, status="diverged", run_id="b", error="loss is nan")
    make_run(tmp_path, seed=2, status="oom", run_id="c", error="out of memory")
    assert told(of_arm(arm_of(tmp_path))[0]) == "1 of 2 seeds"
    assert {line.run_id for line in time_to_accuracy(load_runs(tmp_path))} == {"alpha-0", "b"}


def test_how_coarse_the_points_are(tmp_path):
    curved(tmp_path, 0, [0.2, 0.5, 0.6], 10.0)
    curved(tmp_path, 1, [0.2, 0.5, 0.6], 14.0)
    assert spacing(arm_of(tmp_path)) == (100, 12.0)
    assert "100 steps (12.0 s)" in "".join(times(arms(load_runs(tmp_path))))


@pytest.mark.parametrize("value", [None, math.nan])
def test_runs_without_validation_accuracies_have_no_section(tmp_path, value):
    curved(tmp_path, 0, [value, value])
    assert times(arms(load_runs(tmp_path))) == []
    assert time_to_accuracy(load_runs(tmp_path)) == []


def test_different_devices_are_told_apart(tmp_path):
    curved(tmp_path, 0, [0.2, 0.99])
    assert "**Times on different" not in "".join(times(arms(load_runs(tmp_path))))
    curved(tmp_path, 0, [0.2, 0.99], 1.0, "beta", device="cuda", device_name="Card")
    text = "".join(times(arms(load_runs(tmp_path))))
    assert "**Times on different devices are not comparable.**" in text
    assert "alpha (device=cpu)" in text
    assert "beta (device=cuda)" in text


@pytest.mark.usefixtures("blank_pictures")
def test_the_file_has_a_row_per_run_and_threshold(tmp_path):
    curved(tmp_path, 0, [0.2, 0.96])
    curved(tmp_path, 1, [0.2, 0.80])
    write_report(tmp_path)
    with (tmp_path / "time_to_accuracy.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert ",".join(rows[0]) == "run_id,algo,seed,threshold,reached,meta_step,tasks_seen,train_s,best_val_acc"
    assert [list(row.values()) for row in rows if row["threshold"] == "0.95"] == [
        ["alpha-0", "alpha", "0", "0.95", "1", "100", "800", "10.0", "0.96"],
        ["alpha-1", "alpha", "1", "0.95", "0", "", "", "", "0.8"],
    ]
    assert len(rows) == 8
    text = (tmp_path / "summary.md").read_text()
    assert "## Time to accuracy" in text
    assert "time_to_accuracy.png" in text


def test_the_figure_shows_a_miss_hollow_at_the_end_of_the_run(tmp_path):
    curved(tmp_path, 0, [0.2, 0.96, 0.94])
    curved(tmp_path, 0, [0.2, 0.99], algo="beta")
    axes = FIGURES["time_to_accuracy"](arms(load_runs(tmp_path))).axes[0]
    marks = [
        (*line.get_xydata()[0], line.get_markerfacecolor() == "white") for line in axes.get_lines()[: len(THRESHOLDS)]
    ]
    assert [(x, hollow) for x, _, hollow in marks] == [(10, False), (10, False), (20, True), (20, True)]
    assert [text.get_text() for text in axes.texts[:4]] == ["10.0 s", "10.0 s", "not reached", "not reached"]
    assert axes.get_xlim()[0] == 0


def test_what_nobody_reached_is_named_once(tmp_path):
    curved(tmp_path, 0, [0.2, 0.96, 0.94])
    axes = FIGURES["time_to_accuracy"](arms(load_runs(tmp_path))).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.90", "0.95"]
    assert axes.get_title().endswith("\nreached by none: 0.97, 0.98")
