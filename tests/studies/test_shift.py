"""The study of shift: what it asks, its tests of stored weights against ordinary runs, and its losses on paper."""

import csv
import dataclasses

import numpy as np
import pytest
from asked import asked
from commands import SMALL, run_bench
from drawn import check_apart
from made_runs import make_run
from places import PLUGINS, TOY

from bench.api import BenchError
from bench.cli.verify import verify
from bench.records.run import add_tables, load_runs
from bench.registry import load_plugin
from bench.studies.shift import DistributionShift
from bench.studies.shift.figure import draw
from bench.studies.shift.losses import losses
from bench.studies.shift.retest import TASKS_FILE, TESTS_FILE, ShiftTask, ShiftTest, measured
from bench.studies.shift.shifts import families, wanted_runs, wanted_shifts
from bench.tasks.corruption import CORRUPTIONS
from run_bench import main

SHIFTS = PLUGINS / "toy_shifts.py"
FLAGS = [*SMALL, "--plugin", str(SHIFTS), "--threads", "1", "--adaptation-tasks", "0", "--algos", "fomaml,reptile"]
VARIED = ["--vary", "test_corruption=noise", "--vary", "test_n_way=8", "--vary", "test_dataset=toy-other"]
ASKED = {
    "test_corruption=noise:2": ["--test-corruption", "noise:2"],
    "test_n_way=8": ["--test-n-way", "8"],
    "test_dataset=toy-other": ["--test-dataset", "toy-other"],
}
load_plugin(TOY)
load_plugin(SHIFTS)


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    return run_bench("--study", "shift", *FLAGS, *VARIED, "--out", out), out / "study-shift"


def test_a_run_is_one_training_and_every_test_is_that_of_an_ordinary_run(finished, tmp_path):
    done, out = finished
    assert done.returncode == 0, done.stderr
    runs = {run.row.algo: run for run in load_runs(out)}
    assert set(runs) == {"fomaml", "reptile"}
    assert len(list(out.glob("runs/*"))) == 2
    for test, flags in ASKED.items():
        alone = run_bench(*FLAGS, "--algos", "reptile", *flags, "--out", tmp_path / test)
        assert alone.returncode == 0, alone.stderr
        for ordinary in load_runs(tmp_path / test):
            mine = measured(runs[ordinary.row.algo])[test]
            wanted = ordinary.test_tasks[["acc", "acc_transductive"]].to_numpy()
            np.testing.assert_array_equal(np.array([mine[task] for task in range(len(wanted))]), wanted)
            assert verify(tmp_path / test, tmp_path, tmp_path, 20, seed=1)[0] == 0
            assert ordinary.row.stream_sha256 == runs[ordinary.row.algo].row.stream_sha256


def test_all_algorithms_faced_the_same_test_tasks(finished):
    _, out = finished
    one, other = (table(run.folder / TESTS_FILE) for run in load_runs(out))
    assert one == other
    streams = {row["test"]: row["test_stream_sha256"] for row in one}
    assert len({streams[f"test_corruption=noise:{strength}"] for strength in range(1, 6)}) == 1
    assert len(set(streams.values())) == 3


def test_the_study_leaves_its_tables_and_a_picture_per_family(finished):
    _, out = finished
    rows = table(out / "shift.csv")
    assert {row["family"] for row in rows} == {"noise", "test_n_way", "test_dataset"}
    for row in rows:
        assert float(row["lost_ci95_low"]) <= float(row["lost"]) <= float(row["lost_ci95_high"])
    assert {p.name for p in (out / "plots").glob("*.png")} == {"noise.png", "test_n_way.png", "test_dataset.png"}
    page = (out / "shift.md").read_text()
    assert page.startswith("# Accuracy under shift")
    assert "**Missing**" not in page
    assert (out / "report.html").is_file()


def test_only_what_is_missing_is_tested_again(finished):
    """One run lost the lines of one test; made-up ones of another, which it has, stay."""
    _, out = finished
    run, untouched = load_runs(out)
    before = {path: path.stat().st_mtime_ns for path in untouched.folder.iterdir()}
    wanted = measured(run)["test_dataset=toy-other"]
    lines = [line for line in run.table(TASKS_FILE, ShiftTask) if line.test != "test_dataset=toy-other"]
    made_up = [dataclasses.replace(line, acc=0.125) if line.test == "test_n_way=8" else line for line in lines]
    tests = [line for line in run.table(TESTS_FILE, ShiftTest) if line.test != "test_dataset=toy-other"]
    add_tables(run, {TASKS_FILE: (ShiftTask, made_up), TESTS_FILE: (ShiftTest, tests)})
    again = run_bench("--study", "shift", *FLAGS, *VARIED, "--out", out.parent)
    assert again.stdout.count("kept; --fresh runs it again") == 2, again.stderr
    found = measured(load_runs(out)[0])
    assert found["test_dataset=toy-other"] == wanted
    assert {plain for plain, _ in found["test_n_way=8"].values()} == {0.125}
    assert {path: path.stat().st_mtime_ns for path in untouched.folder.iterdir()} == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--vary", "test_corruption=fog"], "unknown corruption in --vary test_corruption 'fog'"),
        (["--vary", "corruption=noise"], "unknown setting in --vary of study shift 'corruption'"),
        (["--vary", "test_n_way=two"], "--vary test_n_way 'two'; accepted: a whole number"),
        (["--vary", "test_n_way=99"], "n_way 99: toy/meta_test has 15 classes; accepted: 2 to 15"),
        (["--vary", "test_dataset=toy-sized"], "test_dataset 'toy-sized' has inputs of the shape (1, 32, 32)"),
        (["--test-corruption", "noise:1"], "test_corruption 'noise:1': study shift decides it"),
        (["--n-way", "5,10"], "n_way 5,10; accepted in study shift: one value"),
    ],
)
def test_what_the_study_cannot_use_is_one_line_before_anything_is_trained(flags, words, tmp_path, capsys):
    assert main(["--study", "shift", *FLAGS, *flags, "--out", str(tmp_path)]) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text]
    assert words in line
    assert not list(tmp_path.glob("**/run.json"))


def test_left_to_itself_the_study_tests_every_corruption_ways_shots_and_the_other_characters():
    request = asked(algos=None, dataset="omniglot")
    configs = wanted_runs(request)
    shifts = wanted_shifts(request, configs[0])
    assert {(c.n_way, c.k_shot, c.test_dataset, c.test_corruption) for c in configs} == {(5, 1, None, None)}
    numbers = {name: [s.value for s in shifts if s.family == name] for name in families(configs[0])}
    assert numbers == {
        **{kind: [1, 2, 3, 4, 5] for kind in CORRUPTIONS.names()},
        "test_n_way": [2, 10, 20],
        "test_k_shot": [2, 5, 10],
        "test_dataset": ["glyphs"],
    }


@pytest.fixture
def on_paper(tmp_path):
    """Runs of two algorithms: alpha loses 0.1 on every task under noise 1 and 0.2 under noise 2, beta nothing, 0.4."""
    request = asked(algos=("fomaml", "maml"), grid={"seed": [0, 1]}, vary={"test_corruption": ["noise"]})
    configs, lost = wanted_runs(request), {"fomaml": (0.1, 0.2), "maml": (0.0, 0.4)}
    for config in configs:
        make_run(tmp_path, config.algo, config.seed, 0.8, tasks=50, run_id=config.run_id)
    for run in load_runs(tmp_path):
        kinds = [f"test_corruption=noise:{strength}" for strength in (1, 2)]
        lines = [
            ShiftTask(kind, task, acc - less, acc - less)
            for kind, less in zip(kinds, lost[run.row.algo])
            for task, acc in enumerate(run.test_tasks.acc)
        ]
        tests = [ShiftTest(kind, 50, "stream", "data", None) for kind in kinds]
        add_tables(run, {TASKS_FILE: (ShiftTask, lines), TESTS_FILE: (ShiftTest, tests)})
    runs = {run.row.run_id: run for run in load_runs(tmp_path)}
    shifts = [shift for shift in wanted_shifts(request, configs[0]) if shift.value in (1, 2)]
    return configs, shifts, runs


def test_losses_and_their_differences_are_those_on_paper(on_paper):
    configs, shifts, runs = on_paper
    found = losses(configs, shifts, {"noise": 0}, runs)
    assert found.missing == []
    plain = {(row.algo, row.value): row for row in found.rows if row.mode == "plain"}
    lost = {key: row.lost for key, row in plain.items()}
    assert lost == pytest.approx(
        {("fomaml", "0"): 0, ("fomaml", "1"): 0.1, ("fomaml", "2"): 0.2, ("maml", "0"): 0, ("maml", "1"): 0,
         ("maml", "2"): 0.4}
    )  # fmt: skip
    for row in plain.values():
        assert row.lost_ci95_high - row.lost_ci95_low == pytest.approx(0, abs=1e-9)
        assert (row.test_tasks, row.seeds) == (100, 2)
        assert row.acc_ci95 > 0.005
    diffs = {d.value: d for d in found.differences if d.mode == "plain"}
    assert {value: d.diff for value, d in diffs.items()} == pytest.approx({"1": 0.1, "2": -0.2})
    assert all(d.p_value_holm < 1e-10 and d.test_tasks == 100 for d in diffs.values())


def test_a_test_that_is_missing_or_not_finite_is_named_and_left_out(on_paper):
    configs, shifts, runs = on_paper
    further = dataclasses.replace(shifts[0], value=3, fields={"test_corruption": "noise:3"})
    found = losses(configs, [*shifts, further], {"noise": 0}, runs)
    assert found.missing == ["fomaml under test_corruption=noise:3", "maml under test_corruption=noise:3"]
    alone = losses(configs, shifts, {"noise": 0}, {n: run for n, run in runs.items() if run.row.algo == "maml"})
    assert alone.missing == ["fomaml (no finished run)"]
    assert alone.differences == []


def test_pictures_keep_words_apart(on_paper):
    configs, shifts, runs = on_paper
    found = losses(configs, shifts, {"noise": 0}, runs)
    rows = [row for row in found.rows if row.mode == "plain"]
    known = families(configs[0])
    check_apart(draw(known["noise"], rows))
    names = {"0": "omniglot", "1": "glyphs", "2": "glyphs"}
    by_data = [dataclasses.replace(row, value=names[row.value]) for row in rows if row.value != "2"]
    check_apart(draw(dataclasses.replace(known["test_dataset"], unshifted="omniglot"), by_data))
    check_apart(draw(known["noise"], []))


def test_a_study_of_a_regression_is_refused_where_images_are_corrupted(tmp_path, capsys):
    flags = ["--study", "shift", "--dataset", "sine", "--backbone", "sine-mlp", "--n-way", "1", "--device", "cpu"]
    flags += ["--algos", "fomaml"]
    assert main([*flags, "--vary", "test_corruption=noise", "--out", str(tmp_path)]) == 2
    assert "sine has no images" in capsys.readouterr().err


def test_the_study_says_what_it_is(tmp_path):
    text = DistributionShift().report(asked(vary={"test_corruption": ["blur"]}), {}, tmp_path)
    assert "3 results are missing" in text
    with pytest.raises(BenchError):
        wanted_runs(asked(flags={"test_n_way": 3}))
