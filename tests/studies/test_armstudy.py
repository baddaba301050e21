"""Studies of arms: which runs gradient-combination and overlap ask for, what they make of made-up and of real runs."""

import csv
import dataclasses
import itertools
import json

import numpy as np
import pytest
from asked import asked
from made_runs import make_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from places import PLUGINS

from bench.api import BenchError
from bench.records.run import load_runs
from bench.records.stats import holm, paired_comparison
from bench.report.drawing.panels import spread
from bench.runs.worker import stream_plan
from bench.settings.protocols import Override
from bench.studies import gradient_combination, overlap
from bench.studies.armstudy import arm_of, cell_rows, differences, run_of
from bench.studies.gradient_combination import COMBINATIONS, SEVEN, GradientCombination, smoothed, theory_table
from bench.studies.overlap import ARMS, AXES, Overlap
from run_bench import main

BOTH = {"gradient-combination": gradient_combination, "overlap": overlap}
TOY = (
    *("--plugin", str(PLUGINS / "toy_data.py"), "--dataset", "toy", "--device", "cpu", "--threads", "1"),
    *("--set", "backbone=one-layer", "--val-points", "2", "--val-tasks", "4", "--test-tasks", "20"),
)


def wanted(**changes):
    return asked(**{"algos": None} | changes)


def made(configs, out, level=lambda config: 0.9):
    """Finished runs of the configurations, of accuracies near ``level``."""
    for config in configs:
        known = {f.name for f in dataclasses.fields(config)} - {"hyperparameters", "code", "algo", "seed"}
        facts = {n: getattr(config, n) for n in known & {"n_way", "k_shot", "k_query", "meta_steps", "meta_lr"}}
        make_run(out, config.algo, config.seed, level(config), run_id=config.run_id, **facts)
    return {run.row.run_id: run for run in load_runs(out)}


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
    tests = {stream_plan(c)[split] for c in configs for split in ("meta_val", "meta_test")}
    assert len(tests) == 1
    training = {(c.hyperparameters["inner_steps"], stream_plan(c)["meta_train"]) for c in configs}
    assert len(training) == 4  # arms with equally many steps train on the same tasks


def test_all_combinations_of_the_official_commands_can_be_asked_for_and_the_outer_step_scales_them():
    names = ["g4", "g1_g2", "half_g1_g2"]
    configs = GradientCombination().configs(wanted(vary={"arm": names}, flags={"meta_lr": 1.0}, grid={"n_way": [10]}))
    assert [(c.algo, c.meta_lr) for c in configs] == [("reptile", 1.0), ("reptile", 0.5), ("foml", 1.0)]
    assert {c.hyperparameters["inner_batch"] for c in configs} == {50}
    assert len(COMBINATIONS) == 10
    assert len(SEVEN) == 7


def test_the_theory_of_each_arm_is_that_of_the_sum_of_its_gradients():
    rows = cell_rows(gradient_combination.cells(wanted()), {})
    lines = [line.split("|")[1:-1] for line in theory_table(rows).splitlines()[2:]]
    table = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}
    assert table["g1"] == ["1.00", "0", "0.00"]
    assert table["g4"] == ["1.00", "3.00 a", "0.225"]
    assert table["1/4 (g1+..+g4)"] == ["1.00", "1.50 a", "0.112"]
    assert table["1/2 (g1+g2)"] == ["1.00", "0.500 a", "0.0375"]


def test_overlap_varies_one_setting_at_a_time_on_the_same_tasks_for_all_arms():
    cells = overlap.cells(wanted())
    configs = Overlap().configs(wanted())
    assert len(cells) == len(ARMS) * sum(len(axis.values) for axis in AXES)
    assert len(configs) == len(ARMS) * (sum(len(axis.values) for axis in AXES) - (len(AXES) - 1))  # one base for all
    for members in overlap._points(cells).values():
        assert len({stream_plan(c)["meta_train"] for cell in members for c in cell.configs}) == 1

    def settings(c):
        return c.hyperparameters["inner_steps"], c.hyperparameters["inner_batch"], c.meta_lr

    assert all(sum(a != b for a, b in zip(settings(c), (4, 25, 0.25))) <= 1 for c in configs)
    for cell in cells:
        assert settings(cell.configs[0])[[a.name for a in AXES].index(cell.axis)] == cell.value
    images = {c.n_way * (c.train_shots + c.k_query) for c in configs}
    assert images == {100}
    tails = {
        cell.value: cell.configs[0].n_way * cell.configs[0].k_query for cell in cells if cell.axis == "inner_batch"
    }
    assert tails == {10: 10, 25: 25, 50: 50, 100: 50}, "as large as a minibatch, and half of the images at most"
    assert [overlap.once(next(c for c in cells if c.axis == axis.name)) for axis in AXES] == [4, 25, None]


def test_seeds_are_runs_of_their_own_all_arms_before_the_next_seed():
    order = [c.seed for c in GradientCombination().configs(wanted(grid={"seed": [3, 1]}))]
    assert order == [3] * 7 + [1] * 7
    assert len(gradient_combination.cells(wanted(grid={"seed": [3, 1]}))[0].configs) == 2


REFUSED = [
    (
        "gradient-combination",
        {"vary": {"arms": ["g1"]}},
        "unknown setting in --vary of study gradient",
    ),
    ("gradient-combination", {"vary": {"arm": ["g5"]}}, "'g5'. Did you mean 'g4'? Accepted: g1, g1_g2"),
    (
        "gradient-combination",
        {"algos": ("maml",)},
        "--algos maml: study gradient-combination has",
    ),
    ("gradient-combination", {"grid": {"k_query": [3]}}, "k_query 3: study gradient-combination decides it"),
    ("gradient-combination", {"sets": [Override(None, "inner_steps", "3")]}, "inner_steps '3': study gradient"),
    ("gradient-combination", {"grid": {"n_way": [5, 10]}}, "n_way 5,10; accepted in study gradient-combination: one"),
    ("overlap", {"vary": {"inner_step": ["1"]}}, "Did you mean 'inner_steps'?"),
    ("overlap", {"vary": {"inner_batch": ["all"]}}, "--vary inner_batch 'all'; accepted: a whole number"),
    ("overlap", {"vary": {"inner_steps": ["0"]}}, "inner_steps 0; accepted: 1 or more"),
    ("overlap", {"vary": {"arm": ["cycle"]}}, "Did you mean 'cycling'?"),
    ("overlap", {"sets": [Override("foml", "tail", "shared")]}, "tail 'shared': study overlap decides it"),
    ("overlap", {"flags": {"train_k_shot": 0}}, "train_k_shot 0; accepted: 1 or more"),
]


@pytest.mark.parametrize(("study", "changes", "words"), REFUSED, ids=[f"{s}: {w}" for s, _, w in REFUSED])
def test_a_request_that_a_study_cannot_use_is_refused_in_one_line(study, changes, words):
    with pytest.raises(BenchError) as caught:
        BOTH[study].cells(wanted(**changes))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_move_as_little_as_keeps_them_apart():
    assert spread([0.0, 0.0, 1.0], 0.2) == pytest.approx([-0.1, 0.1, 1.0])
    assert spread([0.0, 0.1, 0.2, 5.0], 1.0) == pytest.approx([-0.9, 0.1, 1.1, 5.0])
    assert spread([], 1.0) == []


def test_smoothing_is_a_centred_running_mean():
    assert smoothed([0, 3, 0, 3, 0], 3) == pytest.approx([0, 1, 2, 1, 0])
    assert smoothed([1, 2, 4], 1) == [1, 2, 4]
    assert smoothed(list(range(9)), 5) == pytest.approx(list(range(9)))


def test_accuracies_pool_seeds_and_differences_are_paired_and_corrected_over_all_points(tmp_path):
    request = wanted(grid={"seed": [0, 1]}, vary={"inner_steps": ["2", "6"], "arm": ["reptile", "cycling"]})
    runs = made(Overlap().configs(request), tmp_path, lambda c: 0.8 if c.algo == "foml" else 0.9)
    cells = overlap.cells(request)
    row = cell_rows(cells, runs)[1]
    assert (row.arm, row.axis, row.value, row.seeds, row.status) == ("cycling", "inner_steps", 2, 2, "ok")
    by_seed = {c.seed: runs[c.run_id].test_tasks.acc.to_numpy() for c in cells[1].configs}
    assert row.test_acc == pytest.approx(np.mean([acc.mean() for acc in by_seed.values()]))
    assert row.test_tasks == 400
    groups = list(overlap._points(cells).values())
    found = differences(groups, runs)
    assert [len(group) for group in found] == [2, 2]  # a pair in two modes at each of two points
    flat = [c for group in found for c in group]
    assert [c.p_value_holm for c in flat] == holm([c.p_value for c in flat])
    others = {c.seed: runs[c.run_id].test_tasks.acc.to_numpy() for c in cells[0].configs}
    expected = paired_comparison(others, by_seed)
    got = next(c for c in found[0] if c.mode == "plain")
    sign = 1 if got.algo_a == ARMS["reptile"].label else -1
    assert sign * got.diff == pytest.approx(expected.diff)


def test_a_pair_of_runs_that_stands_at_several_points_counts_once_in_the_correction(tmp_path):
    request = wanted(vary={"inner_steps": ["4", "6"], "inner_batch": ["25", "50"], "arm": ["reptile", "cycling"]})
    runs = made(Overlap().configs(request), tmp_path, lambda c: 0.8 if c.algo == "foml" else 0.802)
    found = dict(zip((points := overlap._points(overlap.cells(request))), differences(points.values(), runs)))
    base, again = found["inner_steps", 4], found["inner_batch", 25]
    assert [c.p_value_holm for c in base] == [c.p_value_holm for c in again]
    once = [*base, *found["inner_steps", 6], *found["inner_batch", 50]]
    assert [c.p_value_holm for c in once] == holm([c.p_value for c in once])
    assert max(c.p_value_holm for c in once) > 0, "or the correction is not seen"


def test_a_report_finds_runs_of_older_code_with_the_same_settings_and_no_others(tmp_path):
    (config,) = GradientCombination().configs(wanted(vary={"arm": ["g2"]}))
    runs = made([config], tmp_path)
    assert run_of(config, runs) is runs[config.run_id]
    folder = (tmp_path / "runs" / config.run_id).rename(tmp_path / "runs" / "of-old")
    record = json.loads((folder / "run.json").read_text()) | {"schema": 1}  # which had no seal

    def found(**changes):
        then = dataclasses.asdict(config) | {"code": "older"} | changes
        del then["adaptation_tasks"]  # a setting of later days
        record["config"], record["row"]["run_id"] = then, "of-old"
        (folder / "run.json").write_text(json.dumps(record))
        return run_of(config, {run.row.run_id: run for run in load_runs(tmp_path)})

    assert found().row.run_id == "of-old"
    older = {name: value for name, value in config.hyperparameters.items() if name != "replacement"}  # of later days
    assert found(hyperparameters=older).row.run_id == "of-old"
    assert found(threads=config.threads + 1).row.run_id == "of-old"
    assert found(hyperparameters={"inner_steps": 2}) is None, "tail has not its default"
    assert found(meta_lr=0.5) is None
    assert found(hyperparameters={"inner_steps": 3}) is None
    assert found(algo="reptile") is None
    assert found(seed=1) is None


@pytest.mark.parametrize("study", BOTH)
def test_figures_show_every_arm_and_cut_nothing_off(study, tmp_path):
    request, module = wanted(), BOTH[study]
    cells = module.cells(request)
    runs = made([c for cell in cells for c in cell.configs], tmp_path, lambda c: 0.9 if c.meta_lr > 0.1 else 0.86)
    if study == "overlap":
        drawn = module.figure(cells, cell_rows(cells, runs))
    else:
        drawn = module.figure([arm_of(cell, runs) for cell in cells])
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [a.get_tightbbox(renderer) for a in drawn.axes] + [x.get_window_extent(renderer) for x in drawn.legends]
    assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= drawn.bbox.x1 and b.y1 <= drawn.bbox.y1 for b in boxes)
    for i, one in enumerate(boxes):
        assert not any(one.shrunk(0.98, 0.98).overlaps(other.shrunk(0.98, 0.98)) for other in boxes[i + 1 :])
    texts = [Text.get_window_extent(t, renderer) for t in drawn.axes[0].texts]  # without the line to its place
    assert not any(a.overlaps(b) for a, b in itertools.combinations(texts, 2))
    if study == "overlap":
        assert [len(panel.containers) for panel in drawn.axes] == [len(ARMS)] * 3
    else:
        assert {t.get_text() for t in drawn.axes[0].texts} == {COMBINATIONS[name].arm.label for name in SEVEN}


@pytest.mark.parametrize("study", BOTH)
def test_a_study_without_results_says_so(study, tmp_path):
    chosen = {"gradient-combination": GradientCombination, "overlap": Overlap}[study]()
    assert "results are missing" in chosen.report(wanted(), {}, tmp_path)
    assert "not run" in (tmp_path / f"{study}.md").read_text()
    assert (tmp_path / "plots" / f"{study}.png").exists()


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


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


def test_a_small_overlap_from_end_to_end(tmp_path):
    """With minibatches of all 100 images, cycling and drawing anew are the same run to the last bit."""
    vary = ["--vary", "arm=cycling,replacement", "--vary", "inner_batch=100"]
    assert main(["--study", "overlap", *TOY, *vary, "--meta-steps", "3", "--out", str(tmp_path)]) == 0
    cycling, replacement = read(tmp_path / "study-overlap" / "overlap.csv")
    assert (cycling["arm"], replacement["arm"]) == ("cycling", "replacement")
    assert cycling["run_ids"] != replacement["run_ids"]
    same = ("test_acc", "test_acc_transductive", "stream_sha256", "train_images_per_class")
    assert [cycling[c] for c in same] == [replacement[c] for c in same]
    assert cycling["train_images_per_class"] == "20"
