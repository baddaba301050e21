"""Sine waves: which tasks are drawn, gradients against plain loops, joint training, the command and the study."""

import csv
import dataclasses
import itertools
import json
import math
import shutil

import higher
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import batches, loop_over_tasks, relative_error
from matplotlib.backends.backend_agg import FigureCanvasAgg
from reference_streams import chi_square, reference_bits, threshold

from bench.api import BenchError, Episode
from bench.network.model import Classifier, build_network
from bench.records.run import load_runs
from bench.registry import DATASETS, create_algorithm, create_backbone
from bench.runs.worker import finite
from bench.studies import sine as study
from bench.studies.study import Request
from bench.tasks.stream import TaskStream
from bench.training.contract import Diverged
from bench.training.evaluate import Evaluation
from run_bench import main

CPU = torch.device("cpu")
WAVES = DATASETS.get("sine")().load(None, None)
EPISODE = Episode(n_way=1, k_shot=10, k_query=40)


class DoubleStream(TaskStream):
    dtype = torch.float64


def make_stream(split="meta_train", seed=0, episode=EPISODE, rotation="none", kind=DoubleStream):
    return kind(WAVES.pool(split, rotation, CPU), episode, seed)


# Which tasks are drawn.


def reference_wave(key, number, shots, queries):
    """One task from the definition: x and y of support, then of query."""
    a = 0.1 + 4.9 * ((reference_bits(key, number, 0, 1)[0] >> 1) + 0.5) / 2**31
    b = 2 * np.pi * ((reference_bits(key, number, 1, 1)[0] >> 1) + 0.5) / 2**31
    keys = reference_bits(key, number, 2, 50)
    points = sorted(range(50), key=lambda i: (keys[i], i))[: shots + (0 if queries == 50 else queries)]
    chosen = points[:shots], range(50) if queries == 50 else points[shots:]
    places = [np.linspace(-5, 5, 50)[list(part)] for part in chosen]
    return [(x, a * np.sin(x + b)) for x in places]


@pytest.mark.parametrize("episode", [EPISODE, Episode(1, 5, 10), Episode(1, 10, 50)])
def test_waves_equal_the_numpy_reference(episode):
    stream = make_stream(seed=7, episode=episode)
    for number in (0, 255, 256, 2**32 + 5):
        task = stream.batch(number, 1)
        sets = reference_wave(stream.key, number, episode.k_shot, episode.k_query)
        for examples, (x, y) in zip((task.support, task.query), sets, strict=True):
            assert examples.x.shape == (1, len(x), 1)
            np.testing.assert_allclose(examples.x[0, :, 0].numpy(), x, rtol=0, atol=1e-14)
            np.testing.assert_allclose(examples.y[0].numpy(), y, rtol=0, atol=1e-13)


def test_waves_do_not_depend_on_how_they_are_asked_for_nor_on_rotation():
    whole = make_stream(kind=TaskStream).batch(250, 12)
    stream = make_stream(kind=TaskStream, rotation="pooled")
    stream.batch(1000, 3)
    for start, count in ((250, 1), (253, 7), (261, 1)):
        part, here = stream.batch(start, count), slice(start - 250, start - 250 + count)
        assert torch.equal(part.query.y, whole.query.y[here])
        assert torch.equal(part.support.x, whole.support.x[here])
        assert torch.equal(part.support.orders(3, 50), whole.support.orders(3, 50)[here])
    assert whole.support.x.dtype == whole.support.y.dtype == torch.float32


def test_other_seeds_and_splits_have_other_waves():
    streams = [make_stream(), make_stream(seed=1), make_stream("meta_val"), make_stream("meta_test")]
    assert len({stream.digest(20) for stream in streams}) == 4
    drawn = [tuple(stream.batch(0, 20).support.y.flatten().tolist()) for stream in streams]
    assert len(set(drawn)) == 4


def waves(n):
    """Amplitude and phase of n tasks, worked out from their points: y = a cos(b) sin(x) + a sin(b) cos(x)."""
    tasks = make_stream().batch(0, n).together()
    x, y = tasks.x[..., 0], tasks.y
    design = torch.stack([x.sin(), x.cos()], dim=-1)
    c, s = torch.linalg.lstsq(design, y[..., None]).solution[..., 0].T
    return (c.square() + s.square()).sqrt(), torch.atan2(s, c) % (2 * math.pi)


def test_amplitude_and_phase_are_uniform_over_their_ranges_and_independent():
    """Kolmogorov and Smirnov's distance stays below its 99.99% point, 2.23 / sqrt(n)."""
    n = 4000
    amplitude, phase = waves(n)
    shares = (amplitude - 0.1) / 4.9, phase / (2 * math.pi)
    expected = torch.arange(1, n + 1, dtype=torch.float64) / n
    for share in shares:
        assert -1e-9 <= share.min() < 0.01
        assert 0.99 < share.max() <= 1 + 1e-9
        assert (share.sort().values - expected).abs().max() < 2.23 / math.sqrt(n)
    cells = (shares[0] * 5).long().clamp(0, 4) * 5 + (shares[1] * 5).long().clamp(0, 4)
    assert chi_square(cells, 25) < threshold(25)


def test_points_are_of_the_grid_drawn_equally_often_and_never_in_both_sets():
    tasks = make_stream(episode=Episode(1, 10, 25)).batch(0, 1000)
    grid = torch.linspace(-5, 5, 50, dtype=torch.float64)
    both = torch.cat([tasks.support.x, tasks.query.x], dim=1)[..., 0]
    place = torch.searchsorted(grid, both - 1e-6)
    torch.testing.assert_close(grid[place], both, rtol=0, atol=1e-12)
    assert (place.sort(dim=1).values.diff(dim=1) > 0).all()
    assert chi_square(place[:, :10], 50) < threshold(50)
    assert chi_square(place[:, 0], 50) < threshold(50)


@pytest.mark.parametrize(
    ("episode", "words"),
    [
        (Episode(5, 10, 40), "n_way 5: sine is a regression of one target; accepted: 1"),
        (Episode(1, 11, 40), "more than the 50 points"),
        (Episode(1, 51, 50), "more than the 50 points"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused_in_words(episode, words):
    with pytest.raises(BenchError, match=words):
        make_stream(episode=episode)


# What the algorithms compute on them.


@pytest.fixture(scope="module", params=["relu", "tanh"])
def task_loss(request):
    backbone = create_backbone("sine-mlp", activation=request.param)
    network = build_network(backbone, WAVES.shape, 1, seed=0).double()
    return Classifier(network, objective=WAVES.objective)


def squared(network, x, y):
    return F.mse_loss(network(x)[:, 0], y)


def maml_of_one_task(lr, steps, second_order):
    def of_one_task(network, support, query, t):
        optimizer = torch.optim.SGD(network.parameters(), lr=lr)
        context = higher.innerloop_ctx(
            network, optimizer, copy_initial_weights=False, track_higher_grads=second_order
        )  # fmt: skip
        with context as (fast, inner):
            for _ in range(steps):
                inner.step(squared(fast, *support))
            wanted = network.parameters() if second_order else fast.parameters()
            grads = torch.autograd.grad(squared(fast, *query), list(wanted), materialize_grads=True)
        return dict(zip(dict(network.named_parameters()), grads))

    return of_one_task


def reptile_of_one_task(lr, batches_of):
    def of_one_task(network, support, query, t):
        x, y = torch.cat([support[0], query[0]]), torch.cat([support[1], query[1]])
        optimizer = torch.optim.SGD(network.parameters(), lr=lr)
        with higher.innerloop_ctx(network, optimizer, track_higher_grads=False) as (fast, inner):
            for batch in batches_of(t):
                inner.step(squared(fast, x[batch], y[batch]))
            pairs = zip(network.named_parameters(), fast.parameters())
            return {name: (before - after).detach() for (name, before), after in pairs}

    return of_one_task


@pytest.mark.parametrize("name", ["reptile", "fomaml", "maml"])
@pytest.mark.parametrize("steps", [1, 5])
def test_vectorised_equals_a_per_task_higher_loop(name, steps, task_loss):
    tasks = make_stream().batch(0, 4)
    further = {"inner_batch": 10} if name == "reptile" else {}
    algorithm = create_algorithm(name, inner_lr=0.02, inner_steps=steps, **further)
    got = algorithm.meta_grad(task_loss, task_loss.weights, tasks)
    if name == "reptile":
        of_one_task = reptile_of_one_task(0.02, batches(tasks, 10, steps))
    else:
        of_one_task = maml_of_one_task(0.02, steps, name == "maml")
    assert relative_error(got.grads, loop_over_tasks(task_loss.network, tasks, of_one_task)) < 1e-12


def test_loss_is_the_mean_squared_error_of_every_task(task_loss):
    tasks = make_stream().batch(0, 3)
    fast = {n: w.expand(3, *w.shape) for n, w in task_loss.weights.items()}
    with torch.no_grad():
        expected = [squared(task_loss.network, tasks.query.x[t], tasks.query.y[t]) for t in range(3)]
    torch.testing.assert_close(task_loss(fast, tasks.query), torch.stack(expected))


@pytest.mark.parametrize("size", [10, None])
@pytest.mark.parametrize(("steps", "agrees"), [(1, True), (2, False), (5, False)])
def test_reptile_is_joint_training_with_one_inner_step_and_not_with_more(size, steps, agrees, task_loss):
    """w_0 - w_1 = inner_lr dL/dw_0 on the same minibatch: the question of supervised-reptile's issue 20."""
    tasks = make_stream().batch(0, 4)
    slow, rate = task_loss.weights, 0.02
    joint = create_algorithm("joint", train_batch=size).meta_grad(task_loss, slow, tasks)
    reptile = create_algorithm("reptile", inner_lr=rate, inner_steps=steps, inner_batch=size)
    got = reptile.meta_grad(task_loss, slow, tasks)
    # To the scale of several steps: what more of them change is their direction.
    expected = {name: steps * rate * g for name, g in joint.grads.items()}
    error = relative_error(got.grads, expected)
    assert error < 1e-12 if agrees else error > 0.01


def test_joint_training_follows_the_gradient_of_one_loss_over_all_points_of_all_tasks(task_loss):
    tasks = make_stream().batch(0, 4)
    everything = tasks.together()
    loss = squared(task_loss.network, everything.x.flatten(0, 1), everything.y.flatten())
    names = [name for name, _ in task_loss.network.named_parameters()]
    expected = dict(zip(names, torch.autograd.grad(loss, list(task_loss.network.parameters()))))
    got = create_algorithm("joint").meta_grad(task_loss, task_loss.weights, tasks)
    assert relative_error(got.grads, expected) < 1e-12
    torch.testing.assert_close(got.query_loss.mean(), loss.detach())


# The command and the study.


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


SMALL = ["--meta-steps", "30", "--test-tasks", "40", "--val-tasks", "10", "--val-points", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    out = tmp_path_factory.mktemp("sine")
    flags = ["--dataset", "sine", "--backbone", "sine-mlp", "--n-way", "1", "--k-shot", "10", "--k-query", "20"]
    flags += ["--eval-k-query", "30", "--set", "fomaml.inner_lr=0.01"]
    code = main([*SMALL, *flags, "--algos", "fomaml", "--out", str(out)])
    return code, out


def test_the_ordinary_command_records_errors_and_leaves_accuracies_empty(ordinary):
    code, out = ordinary
    assert code == 0
    (row,) = table(out / "summary.csv")
    assert (row["status"], row["measure"], row["dataset"]) == ("ok", "mse", "sine")
    assert not any(row[c] for c in ("test_acc", "test_acc_ci95", "test_acc_transductive", "acc_before_adaptation"))
    assert float(row["test_error"]) > 0
    assert float(row["error_before_adaptation"]) > 0
    errors = [float(t["error"]) for t in table(out / "runs" / row["run_id"] / "test_tasks.csv")]
    assert float(row["test_error"]) == pytest.approx(sum(errors) / 40, rel=1e-12)
    assert row["test_error"] == row["test_error_transductive"]  # the network looks at one point at a time
    curve = table(out / "curves.csv")
    assert [(p["val_acc"], float(p["val_error"]) > 0) for p in curve] == [("", True), ("", True)]
    steps = table(out / "runs" / row["run_id"] / "adaptation.csv")
    assert [int(p["step"]) for p in steps if p["mode"] == "plain"] == [0, 1, 2, 3, 5, 10, 20, 50]
    assert not any(p["acc"] for p in steps)
    for name in ("summary.md", "comparisons.csv"):
        assert (out / name).exists()
    assert sorted(p.stem for p in (out / "plots").glob("*.png")) == ["peak_memory", "step_time"], "none of accuracies"


def test_the_ordinary_tables_name_the_measure(ordinary, capsys):
    _, out = ordinary
    assert main(["--report", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    (row,) = table(out / "summary.csv")
    shown = f"{float(row['test_error']):.4f}"
    assert "mse" in printed
    assert shown in printed
    text = (out / "summary.md").read_text()
    assert shown in text
    assert "## Mean squared error (mse) on meta-test" in text
    assert "## Mean squared error (mse) after adaptation steps" in text
    assert "query points in training" in text
    words = text.partition("Environment")[0].replace("made of accuracies only", "").lower()
    assert not any(word in words for word in ("accurac", "rotation", "image", "per class"))
    assert "Paired differences are made of accuracies only" in text


def test_an_error_that_is_not_finite_is_divergence():
    fine = Evaluation({"plain": {0: np.array([1.0, 2.0]), 32: np.array([0.5, 1e300])}})
    assert finite(fine) is fine
    with pytest.raises(Diverged, match="not finite on 1 of 2 test tasks after 32 adaptation steps; try a lower inner"):
        finite(Evaluation({"plain": {0: np.array([1.0, 2.0]), 32: np.array([0.5, np.inf])}}))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dataset", "sine", "--backbone", "sine-mlp"], "n_way 5: sine is a regression of one target; accepted: 1"),
        (["--dataset", "sine", "--n-way", "1"], "backbone conv4 cannot be built for sine, whose inputs have the shape"),
        (["--study", "sine", "--dataset", "glyphs"], "--dataset 'glyphs': study sine is about sine; leave it out"),
        (["--study", "sine", "--vary", "inner_steps=1"], "study sine varies nothing but --seeds"),
        (["--study", "sine", "--k-shot", "5,10"], "k_shot 5,10; accepted in study sine: one value"),
        (["--study", "sine", "--n-way", "2"], "n_way 2: sine is a regression"),
    ],
)
def test_what_does_not_fit_is_one_line_before_anything_is_trained(flags, words, tmp_path, capsys):
    assert main([*flags, "--device", "cpu", "--out", str(tmp_path)]) == 2
    stderr = capsys.readouterr().err
    assert words in stderr
    assert len(stderr.strip().splitlines()) == 1


def asked(**changes):
    return Request(**{"algos": None, "dataset": "sine", "device": "cpu", "threads": 1} | changes)


def test_the_study_runs_everybody_on_the_same_tasks_and_adapts_alike_at_test():
    configs = study.Sine().configs(asked(grid={"seed": [0, 1]}))
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
    assert [(r["algo"], int(r["step"])) for r in rows] == list(itertools.product(("reptile", "joint"), study.STEPS))
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
    per_run = [table(run.folder / study.FUNCTION_FILE) for run in load_runs(out)]
    waves = [[(p["task"], p["support"], p["x"], p["wave"]) for p in points] for points in per_run]
    assert waves[0] == waves[1]
    assert len(waves[0]) == study.TASKS * (10 + 50)
    grid = [float(p["x"]) for p in per_run[0] if p["task"] == "0" and p["support"] == "0"]
    np.testing.assert_allclose(grid, np.linspace(-5, 5, 50), atol=1e-6)
    for points in per_run:
        support = [p for p in points if p["support"] == "1"]
        errors = [
            sum((float(p[f"step_{s}"]) - float(p["wave"])) ** 2 for p in support) / len(support) for s in study.DRAWN
        ]
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
    wanted = study.Sine().configs(asked(algos=("joint", "reptile"), flags=budget, threads=7))
    assert [run.row.algo for run in study.chosen(wanted, runs)] == ["joint", "reptile"]
    assert not study.chosen(study.Sine().configs(asked(flags=budget | {"meta_lr": 0.5})), runs)
    assert "mse after" in capsys.readouterr().out


def test_a_table_of_a_run_that_was_altered_is_left_out(finished, tmp_path, caplog):
    _, _, out = finished
    shutil.copytree(out / "runs", tmp_path / "runs")
    run = next(run for run in load_runs(tmp_path) if study.follow(run) is not None)
    table = run.folder / study.ERROR_FILE
    table.write_text(table.read_text().replace("0.", "1.", 1))
    assert study.follow(run) is None
    assert f"{table}: ignored (not what was written" in caplog.text


def test_a_study_without_a_finished_run_says_so(tmp_path):
    assert "4 of 4 runs are missing: reptile seed 0 (not run), " in study.Sine().report(asked(), {}, tmp_path)
    assert (tmp_path / "plots" / "curves.png").exists()


def test_figures_show_every_function_and_cut_nothing_off(finished):
    _, _, out = finished
    (one, *_) = (followed for run in load_runs(out) if (followed := study.follow(run)))
    found = [
        dataclasses.replace(one, run=dataclasses.replace(one.run, row=dataclasses.replace(one.run.row, algo=algo)))
        for algo in ("fomaml", "joint", "maml", "reptile")
    ]
    rows = [
        study.SineRow(f.run.row.algo, 0, p.step, p.mse / (1 + i), 0.1, p.tasks, "x")
        for i, f in enumerate(found)
        for p in f.errors
    ]
    for drawn in (study.functions_figure(found), study.error_figure(rows)):
        canvas = FigureCanvasAgg(drawn)
        canvas.draw()
        boxes = [a.get_tightbbox(canvas.get_renderer()) for a in drawn.axes]
        boxes += [legend.get_window_extent(canvas.get_renderer()) for legend in drawn.legends]
        assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= drawn.bbox.x1 and b.y1 <= drawn.bbox.y1 for b in boxes)
        for a, b in itertools.combinations(boxes, 2):
            assert not a.shrunk(0.98, 0.98).overlaps(b.shrunk(0.98, 0.98))
    panels = study.functions_figure(found).axes
    assert len(panels) == 4 * study.TASKS
    assert all(len(panel.get_lines()) == 2 + len(study.DRAWN) for panel in panels)
    (axes,) = study.error_figure(rows).axes
    assert [list(line.get_xdata()) for line in axes.get_lines()] == [list(study.STEPS)] * 4
    assert axes.get_yscale() == "log"


def test_record_of_a_regression_names_data_and_hash(ordinary):
    _, out = ordinary
    (path,) = out.glob("runs/*/run.json")
    data = json.loads(path.read_text())["data"]
    assert data["name"] == "sine"
    assert data["pipeline"].startswith("sine 1: y = a sin(x + b)")
    assert data["sha256"] == WAVES.sha256
