"""The study of sine waves: its runs, and what it makes of a small study from end to end."""

import csv
import dataclasses
import itertools
import shutil

import numpy as np
import pytest
from asked import asked
from drawn import check_apart

from bench.records.run import load_runs
from bench.studies.sine import Sine
from bench.studies.sine.figures import error_figure, functions_figure
from bench.studies.sine.follow import DRAWN, ERROR_FILE, FUNCTION_FILE, STEPS, TASKS, follow, gather
from bench.studies.sine.tables import SineRow
from run_bench import main

SMALL = ["--meta-steps", "30", "--test-tasks", "40", "--val-tasks", "10", "--val-points", "1", "--device", "cpu"]


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def on_waves(**changes):
    return asked(**{"algos": None, "dataset": "sine"} | changes)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--study", "sine", "--dataset", "glyphs"], "--dataset 'glyphs': study sine is about sine; leave it out"),
        (["--study", "sine", "--vary", "inner_steps=1"], "study sine varies nothing but --seeds"),
        (["--study", "sine", "--k-shot", "5,10"], "k_shot 5,10; accepted in study sine: one value"),
        (["--study", "sine", "--n-way", "2"], "n_way 2: sine is a regression"),
    ],
)
def test_what_the_study_cannot_use_is_one_line_before_anything_is_trained(flags, words, tmp_path, capsys):
    assert main([*flags, "--device", "cpu", "--out", str(tmp_path)]) == 2
    stderr = capsys.readouterr().err
    assert words in stderr
    assert len(stderr.strip().splitlines()) == 1


def test_the_study_runs_everybody_on_the_same_tasks_and_adapts_alike_at_test():
    configs = Sine().configs(on_waves(grid={"seed": [0, 1]}))
    assert [(c.seed, c.algo) for c in configs] == list(
        itertools.product((0, 1), ("reptile", "fomaml", "maml", "joint"))
    )
    shared = {
        (c.meta_steps, c.meta_batch, c.n_way, c.k_shot, c.k_query, c.eval_k_query, c.eval_inner_steps, c.network,
         c.hyperparameters["inner_lr"])
        for c in configs
    }  # fmt: skip
    assert shared == {(30_000, 1, 1, 10, 40, 50, 32, "sine-mlp (activation=tanh)", 0.02)}
    reptile = configs[0]
    assert (reptile.meta_optimizer, reptile.meta_lr, reptile.meta_lr_schedule) == ("sgd", 0.1, "linear")
    assert (reptile.hyperparameters["inner_steps"], reptile.hyperparameters["inner_batch"]) == (5, 10)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    flags = ["--study", "sine", *SMALL, "--algos", "reptile,joint", "--out", str(out)]
    return main(flags), flags, out / "study-sine"


def test_a_small_study_from_end_to_end(finished):
    code, _, out = finished
    assert code == 0
    rows = table(out / "sine.csv")
    assert [(r["algo"], int(r["step"])) for r in rows] == list(itertools.product(("reptile", "joint"), STEPS))
    runs = {run.row.algo: run.row for run in load_runs(out)}
    assert len({row.stream_sha256 for row in runs.values()}) == 1
    for r in rows:  # weights read back from the checkpoint do what the run's own test saw them do
        row = runs[r["algo"]]
        if int(r["step"]) == 32:
            assert float(r["mse"]) == pytest.approx(row.test_error, rel=1e-5)
        if int(r["step"]) == 0:
            assert float(r["mse"]) == pytest.approx(row.error_before_adaptation, rel=1e-5)
    assert sorted(p.name for p in (out / "plots").iterdir()) == [
        "curves.png",
        "curves.svg",
        "mse.png",
        "mse.svg",
        "slides",
    ]
    assert "reptile - joint" in (out / "sine.md").read_text()
    assert "p (Holm)" in (out / "sine.md").read_text()
    assert "Missing" not in (out / "sine.md").read_text()
    shown = (out / "report.html").read_text(encoding="utf-8")
    assert shown.count('<img class="picture"') == 2
    assert "reptile - joint" in shown


def test_functions_are_those_of_the_same_waves_for_all_and_adapt_to_their_points(finished):
    _, _, out = finished
    per_run = [table(run.folder / FUNCTION_FILE) for run in load_runs(out)]
    waves = [[(p["task"], p["support"], p["x"], p["wave"]) for p in points] for points in per_run]
    assert waves[0] == waves[1]
    assert len(waves[0]) == TASKS * (10 + 50)
    grid = [float(p["x"]) for p in per_run[0] if p["task"] == "0" and p["support"] == "0"]
    np.testing.assert_allclose(grid, np.linspace(-5, 5, 50), atol=1e-6)
    for points in per_run:
        support = [p for p in points if p["support"] == "1"]
        errors = [sum((float(p[f"step_{s}"]) - float(p["wave"])) ** 2 for p in support) / len(support) for s in DRAWN]
        assert errors[-1] < errors[0]


def test_everything_is_rebuilt_from_what_is_committed(finished, capsys):
    """That is all but checkpoints; a folder of an earlier version, whose runs have other names, is read too."""
    _, flags, out = finished
    before = {name: (out / name).read_bytes() for name in ("sine.csv", "sine.md", "plots/curves.png", "plots/mse.png")}
    for checkpoint in out.glob("runs/*/checkpoint.pt"):
        checkpoint.unlink()
    for name in before:
        (out / name).unlink()
    assert main([*flags, "--report"]) == 0
    assert {name: (out / name).read_bytes() for name in before} == before
    runs = {f"earlier-{run.row.run_id}": run for run in load_runs(out)}
    budget = {"meta_steps": 30, "test_tasks": 40, "val_tasks": 10, "val_points": 1}
    wanted = Sine().configs(on_waves(algos=("joint", "reptile"), flags=budget, threads=7))
    found, missing = gather(wanted, runs)
    assert ([followed.run.row.algo for followed in found], missing) == (["joint", "reptile"], [])
    found, missing = gather(Sine().configs(on_waves(flags=budget | {"meta_lr": 0.5})), runs)
    assert (found, len(missing)) == ([], 4)
    assert "mse after" in capsys.readouterr().out


def test_a_table_of_a_run_that_was_altered_is_left_out(finished, tmp_path, caplog):
    _, _, out = finished
    shutil.copytree(out / "runs", tmp_path / "runs")
    run = next(run for run in load_runs(tmp_path) if follow(run) is not None)
    table = run.folder / ERROR_FILE
    table.write_text(table.read_text().replace("0.", "1.", 1))
    assert follow(run) is None
    assert f"{table}: ignored (not what was written" in caplog.text


def test_a_study_without_a_finished_run_says_so(tmp_path):
    assert "4 of 4 runs are missing: reptile seed 0 (not run), " in Sine().report(on_waves(), {}, tmp_path)
    assert (tmp_path / "plots" / "curves.png").exists()


def test_figures_show_every_function_and_cut_nothing_off(finished):
    _, _, out = finished
    (one, *_) = (followed for run in load_runs(out) if (followed := follow(run)))
    found = [
        dataclasses.replace(one, run=dataclasses.replace(one.run, row=dataclasses.replace(one.run.row, algo=algo)))
        for algo in ("fomaml", "joint", "maml", "reptile")
    ]
    rows = [
        SineRow(f.run.row.algo, 0, p.step, p.mse / (1 + i), 0.1, p.tasks, "x")
        for i, f in enumerate(found)
        for p in f.errors
    ]
    for drawn in (functions_figure(found), error_figure(rows)):
        check_apart(drawn)
    panels = functions_figure(found).axes
    assert len(panels) == 4 * TASKS
    assert all(len(panel.get_lines()) == 2 + len(DRAWN) for panel in panels)
    (axes,) = error_figure(rows).axes
    assert [list(line.get_xdata()) for line in axes.get_lines()] == [list(STEPS)] * 4
    assert axes.get_yscale() == "log"
