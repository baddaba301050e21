"""The whole command on toy data: files, columns, repetition, failures, interrupts, wrong usage."""

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import SMALL, run_bench, start, table, until
from made_runs import make_run
from places import PLUGINS, REPOSITORY

from bench.records.intervals import mean_ci95
from bench.system.console import unstyled
from run_bench import LOADING

SPEC_COLUMNS = """
    algo dataset protocol n_way k_shot k_query seed backbone device device_name meta_batch meta_steps inner_steps
    inner_lr inner_optimizer eval_inner_steps meta_optimizer meta_lr tasks_seen images_seen stream_sha256 test_tasks
    test_acc test_acc_ci95 test_acc_transductive test_acc_transductive_ci95 train_s eval_s setup_s step_ms_median
    step_ms_p95 tasks_per_s peak_mem_mib peak_mem_reserved_mib status error run_id torch_version git_commit started_at
""".split()  # noqa: SIM905  # as in SPEC 7
CURVE_COLUMNS = "run_id algo seed meta_step tasks_seen train_s val_acc val_acc_ci95 query_loss".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Three algorithms, two seeds, two at a time, as users start them; the folder's modules must not get in the way."""
    where = tmp_path_factory.mktemp("cli")
    for name in ("bench", "datasets", "algorithms"):
        (where / name).mkdir()
        (where / name / "__init__.py").write_text("raise SystemExit('the wrong one')")
    grid = ("--algos", "reptile,fomaml,maml", "--seeds", "0,1", "--jobs", "2")
    done = run_bench(*SMALL, *grid, "--out", "out", cwd=where, fresh=True)
    assert done.returncode == 0, done.stderr
    return where / "out", done


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_two_runs_on_a_gpu_are_forked_from_what_has_touched_no_card(tmp_path):
    flags = ("--algos", "reptile,maml", "--jobs", "2", "--device", "cuda", "--out", tmp_path)
    done = run_bench(*SMALL, *flags, fresh=True)
    assert done.returncode == 0, done.stderr
    assert {(row["status"], row["device"]) for row in table(tmp_path / "summary.csv")} == {("ok", "cuda")}


def test_one_row_per_run_on_identical_streams(finished):
    out, _ = finished
    rows = table(out / "summary.csv")
    assert list(rows[0])[: len(SPEC_COLUMNS)] == SPEC_COLUMNS
    assert [(r["algo"], r["seed"], r["status"]) for r in rows] == [
        (algo, seed, "ok") for seed in "01" for algo in ("reptile", "fomaml", "maml")
    ]
    for seed in "01":
        same = [r for r in rows if r["seed"] == seed]
        assert len({(r["stream_sha256"], r["tasks_seen"], r["images_seen"]) for r in same}) == 1
    assert len({r["stream_sha256"] for r in rows}) == 2
    assert {(r["tasks_seen"], r["images_seen"]) for r in rows} == {("48", str(48 * 5 * 10))}
    assert all(float(r["train_s"]) > 0 and float(r["setup_s"]) > 0 and float(r["step_ms_median"]) > 0 for r in rows)


def test_table_figures_follow_from_the_accuracies_of_the_test_tasks(finished):
    out, _ = finished
    for row in table(out / "summary.csv"):
        tasks = table(out / "runs" / row["run_id"] / "test_tasks.csv")
        assert len(tasks) == int(row["test_tasks"]) == 60
        for column, result in (("acc", "test_acc"), ("acc_transductive", "test_acc_transductive")):
            mean, ci95 = mean_ci95([float(t[column]) for t in tasks])
            assert float(row[result]) == mean
            assert float(row[result + "_ci95"]) == ci95


def test_learning_is_seen_in_the_curve_and_in_adaptation(finished):
    out, _ = finished
    curves = table(out / "curves.csv")
    assert list(curves[0]) == CURVE_COLUMNS
    assert [int(p["meta_step"]) for p in curves[:4]] == [0, 4, 8, 12]
    for row in table(out / "summary.csv"):
        assert float(row["test_acc_transductive"]) > 0.3  # chance is 0.2, give or take 0.02
        assert abs(float(row["acc_before_adaptation"]) - 0.2) < 0.15
        steps = table(out / "runs" / row["run_id"] / "adaptation.csv")
        for mode in ("plain", "transductive"):
            assert [int(s["step"]) for s in steps if s["mode"] == mode] == [0, 1, 2, 3, 5, 10, 20, 50]
        assert {s["tasks"] for s in steps} == {"60"}


def test_every_file_is_there_and_the_terminal_says_where(finished):
    out, done = finished
    for name in ("summary.csv", "summary.md", "curves.csv", "comparisons.csv"):
        assert (out / name).stat().st_size > 0
    wanted = {"accuracy_vs_tasks", "accuracy_vs_wallclock", "step_time", "peak_memory", "accuracy_vs_cost"}
    assert wanted <= {p.stem for p in (out / "plots").glob("*.png")}
    for folder in (out / "runs").iterdir():
        assert {"run.json", "curve.csv", "test_tasks.csv", "checkpoint.pt"} <= {p.name for p in folder.iterdir()}
    assert len(re.findall(r"^\[\d/6\] .* seed \d on toy: [01]\.\d{4} plain", done.stdout, re.MULTILINE)) == 6
    assert str(out) in done.stdout
    assert "it/s" not in done.stderr, "no progress bars where there is no terminal"


def test_run_json_holds_what_repeats_the_run(finished):
    out, _ = finished
    for path in out.glob("runs/*/run.json"):
        record = json.loads(path.read_text())
        assert {"config", "hyperparameters", "environment", "data", "command", "row"} <= set(record)
        assert "--seeds 0,1" in record["command"]
        assert record["environment"]["versions"]["torch"]
        assert record["config"]["meta_steps"] == 12


def test_finished_runs_are_kept_and_fresh_ones_repeat_them_bit_for_bit(finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    args = [*SMALL, "--algos", "reptile", "--seeds", "0", "--out", out]
    before = next(r for r in table(out / "summary.csv") if (r["algo"], r["seed"]) == ("reptile", "0"))
    again = run_bench(*args)
    assert again.returncode == 0
    assert "(kept; --fresh runs it again)" in again.stdout
    kept = next(r for r in table(out / "summary.csv") if r["run_id"] == before["run_id"])
    assert kept == before

    fresh = run_bench(*args, "--fresh")
    assert fresh.returncode == 0, fresh.stderr
    after = next(r for r in table(out / "summary.csv") if r["run_id"] == before["run_id"])
    assert after["started_at"] != before["started_at"]
    same = ("test_acc", "test_acc_ci95", "test_acc_transductive", "stream_sha256", "acc_before_adaptation")
    assert [after[c] for c in same] == [before[c] for c in same]
    for name in ("test_tasks.csv", "adaptation.csv"):
        assert (out / "runs" / before["run_id"] / name).read_bytes() == (
            finished[0] / "runs" / before["run_id"] / name
        ).read_bytes()
    (aside,) = (out / "set-aside").iterdir()
    assert json.loads((aside / "run.json").read_text())["row"]["started_at"] == before["started_at"]


def test_report_rebuilds_tables_and_plots_without_running(finished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    before = {
        name: (out / name).read_bytes() for name in ("summary.csv", "curves.csv", "comparisons.csv", "summary.md")
    }
    for path in (*out.glob("*.csv"), *out.glob("plots/*.*")):
        path.unlink()
    done = run_bench("--report", "--out", out, drawn=True)
    assert done.returncode == 0, done.stderr
    assert {name: (out / name).read_bytes() for name in before} == before
    assert (out / "plots" / "accuracy_vs_cost.png").exists()


def test_failed_runs_are_recorded_and_the_others_finish(tmp_path):
    plugin = ["--plugin", str(PLUGINS / "troubled.py")]
    done = run_bench(*SMALL, *plugin, "--algos", "raises,nan,killed,crashes,misnamed,hungry,fomaml", "--out", tmp_path)
    assert done.returncode == 1
    rows = {r["algo"]: r for r in table(tmp_path / "summary.csv")}
    assert {name: row["status"] for name, row in rows.items()} == {
        "raises": "failed", "nan": "diverged", "killed": "oom", "crashes": "failed", "misnamed": "failed",
        "hungry": "ok", "fomaml": "ok",
    }  # fmt: skip
    assert "boom" in rows["raises"]["error"]
    assert "query loss is nan" in rows["nan"]["error"]
    assert "SIGKILL" in rows["killed"]["error"]
    assert "ended by SIGSEGV" in rows["crashes"]["error"]
    assert "named like the slow weights" in rows["misnamed"]["error"]
    assert (tmp_path / "plots" / "accuracy_vs_tasks.png").exists()
    columns = ("task_chunk", "oom_retries", "precision", "step_mode")
    assert [rows["hungry"][c] for c in columns] == ["2", "1", "float32", "eager"]
    assert [rows["fomaml"][c] for c in columns] == ["4", "0", "float32", "eager"]
    assert "out of memory with 4 tasks at once; going on with 2" in done.stderr
    record = json.loads((tmp_path / "runs" / rows["fomaml"]["run_id"] / "run.json").read_text())
    assert record["meta_step"] == {"mode": "eager", "reason": "CPU"}


def test_an_interrupted_run_is_saved_and_continued_to_the_same_bits(tmp_path):
    plugin = ["--plugin", str(PLUGINS / "troubled.py"), "--algos", "patient", "--meta-steps", "24"]
    whole = run_bench(*SMALL, *plugin, "--out", tmp_path / "whole")
    assert whole.returncode == 0
    out = tmp_path / "parts"
    out.mkdir()
    (out / "wait").touch()
    process = start(*SMALL, *plugin, "--out", out)
    until((out / "waiting").exists)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    (first,) = table(out / "summary.csv")
    assert first["status"] == "interrupted"
    assert 0 < int(first["tasks_seen"]) < 96
    (out / "wait").unlink()
    done = run_bench(*SMALL, *plugin, "--out", out)
    assert done.returncode == 0, done.stderr
    (row,) = table(out / "summary.csv")
    assert row["resumed"] == "1"
    done_at = int(first["tasks_seen"]) // 4
    assert re.search(rf"goes on after meta-step {done_at} of 24, where it was stopped$", done.stdout, re.MULTILINE)
    (expected,) = table(tmp_path / "whole" / "summary.csv")
    for column in ("test_acc", "test_acc_transductive", "stream_sha256", "tasks_seen", "run_id", "status"):
        assert row[column] == expected[column]
    ends = [(d / "runs" / row["run_id"] / "test_tasks.csv").read_bytes() for d in (out, tmp_path / "whole")]
    assert ends[0] == ends[1]


def test_a_second_signal_leaves_at_once(tmp_path):
    """In the middle of a step that takes ten minutes."""
    plugin = ["--plugin", PLUGINS / "troubled.py", "--algos", "slow"]
    process = start(*SMALL, *plugin, "--out", tmp_path)
    until(lambda: list(tmp_path.glob("in-step")))
    process.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert process.poll() is None, "the first signal waits for the step"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    assert [r["status"] for r in table(tmp_path / "summary.csv")] == ["interrupted"]


def test_a_signal_while_a_worker_starts_stops_the_comparison(tmp_path):
    """Before it can handle signals itself: it is still importing torch."""
    command = [sys.executable, str(REPOSITORY / "run_bench.py"), *SMALL, "--algos", "maml,fomaml", "--out", tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: any(lock.stat().st_size for lock in (tmp_path / "locks").glob("maml*")))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert [(r["algo"], r["status"]) for r in table(tmp_path / "summary.csv")] == [("maml", "interrupted")]


def test_ctrl_c_while_torch_is_imported_is_one_line(tmp_path):
    """Even if what is imported swallows the exception that it would be."""
    (tmp_path / "torch.py").write_text(
        "import pathlib, time\n"
        f"pathlib.Path({str(tmp_path / 'importing')!r}).touch()\n"
        "try:\n    time.sleep(60)\nexcept BaseException:\n    time.sleep(60)\n"
    )
    command = [sys.executable, str(REPOSITORY / "run_bench.py"), "--list"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    until((tmp_path / "importing").exists)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    begun, *rest = stderr.splitlines()  # the first before torch is there
    assert begun == f"run_bench.py: {LOADING}"
    assert rest == ["run_bench.py: interrupted before anything was begun"]


WRONG = [
    (["--set", "maml.inner_lr=0.1", "--set", "maml.inner_lr=0.2"], "maml.inner_lr is given twice, as 0.1 and as 0.2"),
    (["--meta-steps", "3", "--set", "meta_steps=5"], "meta_steps is given twice, as 3 and as 5 (--set); accepted: one"),
    (["--algos", "mamll"], "Did you mean 'maml'?"),
    (["--algos", "maml,,fomaml"], "--algos 'maml,,fomaml'"),
    (["--dataset", "omniglott"], "unknown dataset 'omniglott'. Did you mean 'omniglot'? Accepted: auto, "),
    (["--protocol", "papper"], "Did you mean 'paper'?"),
    (["--backbone", "conv5"], "unknown backbone 'conv5'. Did you mean 'conv4'? Accepted: conv4"),
    (["--n-way", "x"], "--n-way 'x'; accepted: a whole number"),
    (["--n-way", "5,0"], "n_way 0; accepted: 1 or more"),
    (["--n-way", "121"], "toy/meta_train has 120 classes"),
    (["--k-shot", "15"], "20 images per class"),
    (["--seeds", "-1"], "seed -1; accepted: 0 or more"),
    (["--seeds", "4294967296"], "seed 4294967296; accepted: 4294967295 or less"),
    (["--meta-steps", "2147483648"], "meta_steps 2147483648; accepted: 2147483647 or less"),
    (["--threads", "0"], "threads 0; accepted: 1 or more"),
    (["--threads", "1025"], "threads 1025; accepted: 1024 or less"),
    (["--data-root", "run_bench.py"], "--data-root 'run_bench.py' is not a folder"),
    (["--meta-steps", "2.5"], "--meta-steps '2.5'; accepted: a whole number"),
    (["--meta-lr", "inf"], "accepted: finite numbers"),
    (["--set", "reptile.inner_lrr=1"], "Did you mean 'inner_lr'?"),
    (["--set", "inner_lr=-0.1"], "inner_lr -0.1; accepted: 0 or more"),
    (["--set", "inner_lr=fast"], "inner_lr 'fast'; accepted: a number"),
    (["--set", "reptile.inner_optimizer=rmsprop"], "accepted: sgd, momentum, adam"),
    (["--meta-step", "5"], "unknown flag '--meta-step'"),
    (["--plugin", "nowhere.py"], "is not a file"),
    (["--report", "--out", "nothing-here"], "no finished run"),
    (["--device", "gpu"], "unknown device 'gpu'. Did you mean 'cpu'? Accepted: auto, cpu, cuda"),
    (["--precision", "tf32"], "precision 'tf32' is something only a GPU has; accepted on a CPU: float32, bf16"),
    (["--precision", "fp16"], "precision 'fp16'; accepted: float32, tf32x3, tf32, bf16"),
    (["--cuda-graph", "on"], "cuda_graph 'on'; accepted: auto, off"),
    (["--data-root", "nowhere", "--dataset", "toy2"], "unknown dataset 'toy2'"),
    (["--data-root", "~no-such-user/x"], "--data-root '~no-such-user/x': "),
    (["--out", "~no-such-user/x"], "--out '~no-such-user/x': "),
    (["--task-chunk", "foo"], "--task-chunk 'foo'; accepted: a whole number or auto"),
    (["--set", "task_chunk=foo"], "task_chunk 'foo'; accepted: a whole number or auto"),
    (["--eval-inner-steps", "foo"], "--eval-inner-steps 'foo'; accepted: a whole number or none"),
    (["--jobs", "0"], "--jobs 0; accepted: 1 or more"),
    (["--study", "cost", "--jobs", "2"], "--jobs 2: study 'cost' measures time; accepted: 1"),
    (["--jobs", "two"], "--jobs 'two'; accepted: a whole number"),
    (["--run-timeout", "0"], "--run-timeout '0'; accepted: a number above 0"),
    (["--run-timeout", "nan"], "accepted: finite numbers"),
    (["--run-timeout", "soon"], "--run-timeout 'soon'; accepted: a number or none"),
]


@pytest.mark.parametrize(("args", "words"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_wrong_usage_is_one_line_and_status_2_before_anything_is_trained(args, words, tmp_path, monkeypatch, capsys):
    from bench.cli import command as module

    monkeypatch.chdir(tmp_path)
    Path("run_bench.py").touch()
    try:
        status = module.main([*SMALL, "--out", "out", *args])
    except SystemExit as leaving:
        status = leaving.code
    stdout, stderr = capsys.readouterr()
    assert status == 2
    assert words in stderr
    assert len(stderr.strip().splitlines()) == 1
    assert not stdout
    assert not list(tmp_path.glob("**/run.json"))


def test_sigterm_while_tables_are_written_is_an_interrupt_too(tmp_path, monkeypatch, capsys):
    from bench.cli import command as module
    from bench.cli import compare as comparison

    make_run(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(comparison, "write_report", lambda out, **_: os.kill(os.getpid(), signal.SIGTERM))
    assert module.main(["--report", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "run_bench.py: interrupted; the same command continues\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_tables_that_cannot_be_written_after_the_runs_are_a_failure_and_not_wrong_usage(tmp_path, monkeypatch, capsys):
    from bench.cli import command as module
    from bench.cli import compare as comparison

    def full(out, **_):
        raise OSError(28, "No space left on device", "summary.csv")

    make_run(tmp_path)
    monkeypatch.setattr(comparison, "run_all", lambda *args: 0)
    monkeypatch.setattr(comparison, "write_report", full)
    line = "run_bench.py: No space left on device: summary.csv"
    kept = "; what has finished is kept, the same command goes on from there"
    assert module.main([*SMALL, "--algos", "maml", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == line + kept
    assert module.main(["--report", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == line


@pytest.mark.parametrize(("args", "threads"), [([], 4), (["--jobs", "2"], 2), (["--jobs", "9"], 1),
                                              (["--jobs", "2", "--threads", "3"], 3)])  # fmt: skip
def test_runs_beside_each_other_share_the_cores_unless_told_otherwise(args, threads, tmp_path, monkeypatch):
    from bench.cli import command as module
    from bench.cli import compare as comparison

    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    given = []
    monkeypatch.setattr(comparison, "run_all", lambda configs, *rest: given.extend(configs) or 130)
    assert module.main([*SMALL, "--algos", "maml", "--out", str(tmp_path), *args]) == 130
    assert [config.threads for config in given] == [threads]


def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    done = run_bench(*SMALL, "--device", "cuda", "--out", tmp_path, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 2
    assert "finds no GPU here" in done.stderr


def test_a_plugin_that_raises_or_registers_a_taken_name_is_refused(tmp_path):
    for name, code, words in (
        ("raising", "raise ValueError('not today')", "failed on import: ValueError: not today"),
        (
            "twice",
            "from algorithms.maml import MAML\nfrom bench.registry import register_algorithm\n"
            "@register_algorithm('maml')\nclass Mine(MAML): pass\n",
            "algorithm 'maml' is registered twice",
        ),
    ):
        path = tmp_path / f"{name}.py"
        path.write_text(code)
        done = run_bench("--plugin", path, "--out", tmp_path / "out")
        assert done.returncode == 2
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_help_shows_every_flag_of_the_specification():
    done = run_bench("--help")
    assert done.returncode == 0
    flags = """--algos --dataset --data-root --n-way --k-shot --k-query --seeds --protocol --meta-steps --meta-batch
        --test-tasks --set --device --out --fresh --plugin --list --report"""
    assert not [flag for flag in flags.split() if flag not in done.stdout]
    assert "[5]" in done.stdout
    text = " ".join(done.stdout.split())
    assert "rule of the meta-step (sgd, adam) [adam]" in text
    assert "network (one of conv4, conv4-gap," in text


def test_list_names_everything_with_settings_and_papers():
    done = run_bench("--list", "--plugin", PLUGINS / "three_kinds.py")
    assert done.returncode == 0, done.stderr
    words = "reptile fomaml maml protonet omniglot glyphs conv4 mlp quick matched paper 1703.03400 inner_lr=0.1"
    assert not [word for word in words.split() if word not in done.stdout]
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    settings = " ".join(done.stdout.partition("\nprotocol ")[2].split())
    assert "reptile, n_way=20: meta_steps=200000, inner_steps=10, inner_batch=20, inner_lr=0.0005" in settings
    assert "all: meta_steps=3000, meta_batch=4, meta_optimizer=adam" in settings


def test_plugins_of_all_three_kinds_run_in_the_comparison(tmp_path):
    plugin = ["--plugin", str(PLUGINS / "three_kinds.py"), "--algos", "toy-meta-sgd,toy-anil,toy-protonet"]
    done = run_bench(*SMALL, *plugin, "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {r["algo"]: r for r in table(tmp_path / "summary.csv")}
    assert len({r["stream_sha256"] for r in rows.values()}) == 1
    assert (
        rows["toy-protonet"]["inner_steps"]
        == rows["toy-protonet"]["inner_lr"]
        == rows["toy-protonet"]["eval_inner_steps"]
        == ""
    )
    assert all(float(r["test_acc"]) > 0.25 for r in rows.values())
    assert np.isfinite([float(r["peak_mem_mib"]) for r in rows.values()]).all()


def on_a_terminal(columns, *args):
    """Return what a command writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = start(*args, stdout=theirs, stderr=theirs)
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):  # that nobody holds the other end any more
        while part := os.read(ours, 65536):
            text += part
    os.close(ours)
    assert process.wait(60) == 0, text.decode()
    return text.decode()


def test_a_terminal_sees_a_bar_with_rate_accuracy_and_time_left(tmp_path):
    """On a terminal of 100 columns; the line of the finished run and the table take its place."""
    text = on_a_terminal(100, *SMALL, "--meta-steps", "200", "--algos", "fomaml", "--out", tmp_path)
    frames = text.replace("\x1b[A", "\r").replace("\n", "\r").split("\r")
    bars = [frame for frame in frames if "training" in frame and "|" in frame]
    rate = r"\[1/1\] fomaml 5w1s s0 training +\d+% \|.*\| +[\d.]+ steps/s, \d\d:\d\d left, val [01]\.\d{3}"
    assert any(re.search(rate, frame) for frame in bars), bars[-3:]
    assert all(len(frame) <= 100 for frame in bars)
    assert any(re.match(r"\[1/1\] fomaml 5-way 1-shot seed 0 .*[01]\.\d{4}", frame) for frame in frames)
    assert not any("started" in frame for frame in frames)  # which the bar says


def test_80_columns_break_no_word_and_end_with_the_verdicts_and_the_page(tmp_path):
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "from bench.registry import ALGORITHMS, register_algorithm\n"
        "for name in ('reptile_warmness', 'a_name_that_is_longer_than_a_column'):\n"
        "    register_algorithm(name)(type('Own', (ALGORITHMS.get('fomaml'),), {'__module__': __name__}))\n"
    )
    out, log = tmp_path / "out", tmp_path / "log"
    algos = "maml,reptile_warmness,a_name_that_is_longer_than_a_column"
    flags = ("--plugin", plugin, "--algos", algos, "--seeds", "0,1", "--out", out, "--log-file", log)
    text = unstyled(on_a_terminal(80, *SMALL, *flags))
    frames = [frame.strip() for frame in text.replace("\x1b[A", "\r").replace("\n", "\r").split("\r")]
    bars = [frame for frame in frames if "|" in frame]
    assert {frame.split()[1] for frame in bars} == {"maml", "reptile_warmness", "a_name_that_is.."}
    assert min(len(frame.partition("|")[2].rpartition("|")[0]) for frame in bars) >= 20
    lines = [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")]
    assert max(map(len, lines)) <= max(80, len(f"open {out}/report.html"))
    words = {word for line in lines for word in line.split()}
    said = [line.split(" ", 2)[2] for line in log.read_text().splitlines() if "started" not in line]
    assert {word for line in said for word in line.split()} <= words
    *_, verdicts, last = "\n".join(lines).strip().split("\n\n")
    assert last.split() == ["open", f"{out}/report.html"]
    assert " ".join(verdicts.split()).startswith("5-way 1-shot, transductive: Highest mean accuracy: ")
