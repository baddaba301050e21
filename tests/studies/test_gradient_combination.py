"""Gradient combinations: their runs, what the theory says of them, the figure, a small study from end to end."""

import itertools
import json

import pytest
from arm_runs import TOY, made, read, wanted
from drawn import check_apart
from matplotlib.text import Text

from bench.studies.arms.cells import arm_of
from bench.studies.arms.tables import cell_rows
from bench.studies.gradient_combination import GradientCombination
from bench.studies.gradient_combination.combinations import COMBINATIONS, SEVEN
from bench.studies.gradient_combination.figure import draw, smoothed
from bench.studies.gradient_combination.page import theory_table
from run_bench import main


def test_minibatches_of_the_seven_arms_hold_every_image_of_a_task_once():
    configs = GradientCombination().configs(wanted())
    assert [c.hyperparameters["inner_steps"] for c in configs] == [1, 2, 2, 3, 3, 4, 4]
    for c in configs:
        images = c.n_way * (c.train_shots + c.k_query)
        assert images == c.hyperparameters["inner_steps"] * c.hyperparameters["inner_batch"]
    assert [c.meta_lr for c in configs] == [0.25, 0.125, 0.25, 0.25 / 3, 0.25, 0.0625, 0.25]
    assert {(c.meta_steps, c.meta_batch, c.meta_lr_schedule, c.k_shot) for c in configs} == {(40_000, 1, "linear", 5)}
    assert {c.hyperparameters["inner_lr"] for c in configs} == {0.075}
    assert {c.hyperparameters["tail"] for c in configs if c.algo == "foml"} == {"shared"}
    tests = {c.episodes[split] for c in configs for split in ("meta_val", "meta_test")}
    assert len(tests) == 1
    training = {(c.hyperparameters["inner_steps"], c.episodes["meta_train"]) for c in configs}
    assert len(training) == 4  # arms with equally many steps train on the same tasks


def test_all_combinations_of_the_official_commands_can_be_asked_for_and_the_outer_step_scales_them():
    names = ["g4", "g1_g2", "half_g1_g2"]
    configs = GradientCombination().configs(wanted(vary={"arm": names}, flags={"meta_lr": 1.0}, grid={"n_way": [10]}))
    assert [(c.algo, c.meta_lr) for c in configs] == [("reptile", 1.0), ("reptile", 0.5), ("foml", 1.0)]
    assert {c.hyperparameters["inner_batch"] for c in configs} == {50}
    assert len(COMBINATIONS) == 10
    assert len(SEVEN) == 7


def test_the_theory_of_each_arm_is_that_of_the_sum_of_its_gradients():
    rows = cell_rows(GradientCombination.cells(wanted()), {})
    lines = [line.split("|")[1:-1] for line in theory_table(rows).splitlines()[2:]]
    table = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}
    assert table["g1"] == ["1.00", "0", "0.00"]
    assert table["g4"] == ["1.00", "3.00 a", "0.225"]
    assert table["1/4 (g1+..+g4)"] == ["1.00", "1.50 a", "0.112"]
    assert table["1/2 (g1+g2)"] == ["1.00", "0.500 a", "0.0375"]


def test_seeds_are_runs_of_their_own_all_arms_before_the_next_seed():
    order = [c.seed for c in GradientCombination().configs(wanted(grid={"seed": [3, 1]}))]
    assert order == [3] * 7 + [1] * 7
    assert len(GradientCombination.cells(wanted(grid={"seed": [3, 1]}))[0].configs) == 2


def test_smoothing_is_a_centred_running_mean():
    assert smoothed([0, 3, 0, 3, 0], 3) == pytest.approx([0, 1, 2, 1, 0])
    assert smoothed([1, 2, 4], 1) == [1, 2, 4]
    assert smoothed(list(range(9)), 5) == pytest.approx(list(range(9)))


def test_the_figure_names_every_arm_and_cuts_nothing_off(tmp_path):
    cells = GradientCombination.cells(wanted())
    runs = made([c for cell in cells for c in cell.configs], tmp_path, lambda c: 0.9 if c.meta_lr > 0.1 else 0.86)
    drawn = draw([arm_of(cell, runs) for cell in cells])
    check_apart(drawn)
    names = drawn.axes[0].texts
    renderer = drawn.canvas.get_renderer()
    boxes = [Text.get_window_extent(text, renderer) for text in names]  # without the line to its place
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert {text.get_text() for text in names} == {COMBINATIONS[name].label for name in SEVEN}


def test_a_small_gradient_combination_from_end_to_end(tmp_path, capsys):
    flags = [
        "--study",
        "gradient-combination",
        *TOY,
        "--vary",
        "arm=g1,g2",
        "--meta-steps",
        "6",
        "--out",
        str(tmp_path),
    ]
    assert main(flags) == 0
    out = tmp_path / "study-gradient-combination"
    rows = {row["arm"]: row for row in read(out / "gradient-combination.csv")}
    assert {name: row["train_images_per_class"] for name, row in rows.items()} == {"g1": "5", "g2": "10"}
    for row in rows.values():
        assert 0 < float(row["test_acc"]) <= 1
        with (out / "runs" / row["run_ids"] / "run.json").open() as file:
            recorded = json.load(file)["row"]
        assert recorded["images_seen"] == 6 * 5 * int(row["train_images_per_class"])
        assert recorded["train_k_shot"] == int(row["train_images_per_class"]) - 1
    assert [(r["arm"], r["meta_step"]) for r in read(out / "curves.csv")] == [
        (arm, step) for arm in ("g1", "g2") for step in ("0", "3", "6")
    ]
    assert [r["mode"] for r in read(out / "differences.csv")] == ["plain", "transductive"]
    before = {path: path.read_bytes() for path in out.glob("*.*") if path.name != "config.toml"}
    for path in before:
        path.unlink()
    capsys.readouterr()
    assert main([*flags, "--report"]) == 0
    assert {path: path.read_bytes() for path in out.glob("*.*") if path.name != "config.toml"} == before
    assert "g2" in capsys.readouterr().out
