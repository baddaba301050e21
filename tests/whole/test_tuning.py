"""``--tune``: an equal search, resumed, shared, refused where it makes no sense, and blind to meta-test."""

import concurrent.futures
import contextlib
import json
import os
import signal
import tomllib
from pathlib import Path

import pytest
from commands import SMALL, run_bench, start, table, until
from places import PLUGINS

from bench.cli import command
from bench.records.tuning import load_searches

ARGS = [*SMALL, "--plugin", str(PLUGINS / "ranged.py"), "--threads", "1"]


def made(out):
    """Return of every search what must not depend on how it came about.

    How soon it is seen that a trial has diverged depends on when its process looks.
    """
    return {
        s.algo: [
            {
                k: v
                for k, v in vars(t).items()
                if k != "seconds" and (t.state != "diverged" or k in ("number", "values"))
            }
            for t in s.trials
        ]
        for s in load_searches(out)
    }


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned") / "out"
    done = run_bench(*ARGS, "--algos", "ranged,protonet", "--seeds", "0", "--tune", "5", "--out", out)
    assert done.returncode == 0, done
    return out, done


def test_every_algorithm_has_the_same_trials_on_the_same_tasks_and_the_first_is_the_protocols(tuned):
    out, done = tuned
    assert "searching meta_lr, inner_lr, inner_steps, fuse" in done.stdout
    assert "searching meta_lr alone: protonet declares no range of its own" in done.stdout
    ranged, protonet = sorted(load_searches(out), key=lambda s: s.algo, reverse=True)
    for search in (ranged, protonet):
        assert [t.number for t in search.trials] == list(range(5))
        assert search.default.state == "complete"
    assert ranged.default.values == {"meta_lr": 0.004, "inner_lr": 0.1, "inner_steps": 2, "fuse": "whole"}
    assert protonet.default.values == {"meta_lr": 0.004}
    whole = [t for s in (ranged, protonet) for t in s.trials if t.state == "complete"]
    assert len({t.stream_sha256 for t in whole}) == 1
    assert {t.meta_steps for t in whole} == {12}


def test_bad_trials_cost_little_and_failed_ones_say_why(tuned):
    trials = [t for s in load_searches(tuned[0]) for t in s.trials]
    assert {t.meta_steps for t in trials if t.state == "pruned"} <= {4}
    assert "pruned" in {t.state for t in trials}
    for trial in (t for t in trials if t.values.get("fuse", "whole") != "whole"):
        assert trial.state == {"nan": "diverged", "raises": "failed"}[trial.values["fuse"]]
        assert trial.error.startswith(
            {"nan": "query loss is nan", "raises": "RuntimeError: blown"}[trial.values["fuse"]]
        )


def test_the_best_settings_make_the_runs_whose_rows_say_what_that_cost(tuned):
    out, _ = tuned
    searches = {s.algo: s for s in load_searches(out)}
    rows = table(out / "summary.csv")
    assert sorted((r["algo"], r["seed"]) for r in rows) == [(a, s) for a in ("protonet", "ranged") for s in "0"]
    for row in rows:
        search = searches[row["algo"]]
        assert float(row["meta_lr"]) == search.best.values["meta_lr"]
        assert (int(row["tuning_trials"]), int(row["tuning_steps"])) == (5, sum(t.meta_steps for t in search.trials))
        assert float(row["tuning_s"]) == pytest.approx(search.seconds, abs=1e-3)
        assert row["stream_sha256"] not in {t.stream_sha256 for t in search.trials}
    lines = table(out / "tuning.csv")
    assert len(lines) == 10
    assert sum(int(line["chosen"]) for line in lines) == 2
    assert "## Tuning" in (out / "summary.md").read_text()
    assert (out / "plots" / "tuning.png").exists()


def test_the_command_given_again_makes_nothing_and_a_larger_number_only_what_is_missing(tuned, tmp_path):
    out, before = tuned[0], made(tuned[0])
    config = tomllib.loads((out / "config.toml").read_text())
    assert (config["tune"], config["resolved"]) == ("5", False)
    done = run_bench("--config", out / "config.toml", "--threads", "1")
    assert done.returncode == 0, done
    assert ": started" not in done.stdout
    assert made(out) == before
    run_bench(*ARGS, "--algos", "protonet", "--seeds", "0", "--tune", "6", "--out", out)
    assert made(out)["protonet"][:5] == before["protonet"]
    assert len(made(out)["protonet"]) == 6
    run_bench(*ARGS, "--algos", "protonet", "--seeds", "0", "--tune", "5", "--out", out)
    assert made(out)["protonet"] == before["protonet"]


def descendants(pid):
    with contextlib.suppress(FileNotFoundError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            yield child
            yield from descendants(child)


def test_a_search_killed_in_the_middle_goes_on_to_the_same_trials_and_settings(tuned, tmp_path):
    expected, out = made(tuned[0]), tmp_path / "out"
    args = [*ARGS, "--plugin", PLUGINS / "often.py", "--algos", "ranged", "--seeds", "0", "--tune", "4"]
    for trial in (0, 2):
        process = start(*args, "--out", out)
        until(lambda n=trial: list(out.glob(f"tuning/ranged-*/runs/*-tune-{n}-*/checkpoint.pt")))
        for pid in (*descendants(process.pid), process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(60)
    done = run_bench(*args, "--out", out)
    assert done.returncode == 0, done
    assert made(out)["ranged"] == expected["ranged"][:4]
    complete = [t for t in load_searches(tuned[0])[1].trials[:4] if t.state == "complete"]
    best = max(complete, key=lambda t: t.score)
    assert [float(row["meta_lr"]) for row in table(out / "summary.csv")] == [best.values["meta_lr"]]


def test_two_commands_at_once_share_the_trials(tmp_path):
    args = [*ARGS, "--algos", "fomaml", "--tune", "3", "--out", tmp_path / "out"]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        ends = list(pool.map(lambda jobs: run_bench(*args, "--jobs", jobs), "12"))
    assert [done.returncode for done in ends] == [0, 0], ends
    told = [line for done in ends for line in done.stdout.splitlines() if line.startswith("[fomaml trial")]
    for number in range(3):
        assert len([line for line in told if f"trial {number}," in line and ": started" in line]) == 1, told
    (search,) = load_searches(tmp_path / "out")
    assert [t.number for t in search.trials] == list(range(3))
    assert len(table(tmp_path / "out" / "summary.csv")) == 1


def test_no_trial_draws_from_meta_test(tmp_path):
    args = [*ARGS, "--algos", "fomaml", "--tune", "2", "--out", tmp_path / "out"]
    done = run_bench(*args, "--dataset", "sealed")
    assert done.returncode == 1, done
    (search,) = load_searches(tmp_path / "out")
    assert {t.state for t in search.trials} <= {"complete", "pruned"}
    (row,) = table(tmp_path / "out" / "summary.csv")
    assert row["error"] == "RuntimeError: meta-test is sealed"


def test_an_algorithm_whose_trials_all_fail_has_no_run_and_the_others_have_theirs(tmp_path):
    args = [*ARGS, "--algos", "blown,fomaml", "--set", "blown.fuse=raises", "--tune", "1", "--tune-steps", "4"]
    done = run_bench(*args, "--out", tmp_path / "out")
    assert done.returncode == 1, done
    assert "none of 1 trial ended well; trial 0: RuntimeError: blown" in done.stderr
    assert [row["algo"] for row in table(tmp_path / "out" / "summary.csv")] == ["fomaml"]
    assert json.loads(next((tmp_path / "out").glob("tuning/fomaml-*/tuning.json")).read_text())["meta_steps"] == 4


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--tune", "0"], "--tune 0; accepted: 1 or more"),
        (["--tune", "two"], "--tune 'two'; accepted: a whole number"),
        (["--tune-steps", "5"], "--tune-steps 5: says how long a trial of --tune is; add --tune N"),
        (["--tune", "2", "--tune-steps", "0"], "--tune-steps 0; accepted: 1 or more"),
        (["--tune", "2", "--study", "cost"], "--tune 2 with --study: a search belongs to a comparison"),
        (["--tune", "2", "--report"], "--tune 2 with --report: a search belongs to a comparison"),
        (["--tune", "2", "--seeds", "0,4294967295"], "--seeds 4294967295: with --tune this is the seed of the trials"),
        (["--tune", "2", "--meta-lr", "0.1"], "--tune: flags and --set fix all that could be searched of protonet"),
        (["--set", "protonet.tuning_trials=20"], "unknown field in --set 'tuning_trials'"),
    ],
)
def test_what_makes_no_sense_is_one_line(flags, words, tmp_path, capsys):
    assert command.main([*ARGS, "--algos", "protonet", "--out", str(tmp_path), *flags]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]  # a busy machine is told of in front
    assert not list(tmp_path.glob("tuning/*/runs"))


def test_without_optuna_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert command.main([*ARGS, "--tune", "2", "--out", str(tmp_path / "out")]) == 2
    assert "--tune needs Optuna; `pip install -r requirements-tune.txt` installs it" in capsys.readouterr().err
