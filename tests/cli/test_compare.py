"""``bench.compare``: the command from Python."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from commands import table
from places import TOY

import bench
from bench.api import BenchError
from bench.cli.compare import warn_if_busy
from bench.cli.plan import stated_s
from bench.records.run import load_runs
from bench.settings.config import RunConfig
from bench.settings.protocols import Override, load_protocol
from bench.studies.study import Request
from bench.system.console import Console

BUDGET = {
    "plugin": TOY,
    "dataset": "toy",
    "backbone": "one-layer",
    "device": "cpu",
    "threads": 1,
    "meta_steps": 3,
    "meta_batch": 2,
    "test_tasks": 10,
    "val_tasks": 4,
    "val_points": 1,
    "adaptation_tasks": 0,
}


@pytest.fixture(autouse=True)
def _blank(blank_pictures):
    """Nobody looks at the pictures."""


def test_it_runs_what_the_command_runs_and_returns_what_follows(tmp_path, capsys):
    flags = {**BUDGET, "k_shot": [1, 2], "set": ["maml.inner_lr=0.2"]}
    results = bench.compare(algos=["reptile", "maml"], out=tmp_path, **flags)
    told = capsys.readouterr().out
    assert [line for line in told.splitlines() if line.startswith("[4/4] maml")], "progress is told"
    assert [(r.row.algo, r.row.k_shot, r.row.status) for r in results.runs] == [
        (algo, k_shot, "ok") for k_shot in (1, 2) for algo in ("reptile", "maml")
    ]
    assert {r.row.inner_lr for r in results.runs if r.row.algo == "maml"} == {0.2}
    assert [row["run_id"] for row in table(tmp_path / "summary.csv")] == list(results.summary.run_id)
    assert len(results.table) == len(results.arms) == 4
    assert "5-way 2-shot" in repr(results)
    assert "<table" in results._repr_html_()
    assert results.runs[0].details["command"].startswith("python run_bench.py --algos=reptile,maml")

    again = bench.compare(algos="reptile,maml", out=str(tmp_path), **flags)
    assert capsys.readouterr().out.count("(kept; --fresh runs it again)") == 4
    assert [run.row for run in again.runs] == [run.row for run in results.runs]
    from_file = bench.compare(config=tmp_path / "config.toml", out=tmp_path)
    assert [run.row for run in from_file.runs] == [run.row for run in results.runs]
    only_read = bench.compare(report=True, out=tmp_path)
    assert [run.row for run in only_read.runs] == [run.row for run in results.runs]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"n_wayy": 5}, r"unknown flag of compare 'n_wayy'\. Did you mean 'n_way'\?"),
        ({"study": "cost"}, "unknown flag of compare 'study'"),
        ({"n_way": "five"}, "--n-way 'five'; accepted: a whole number"),
        ({"fresh": "yes"}, "fresh is 'yes'; accepted: true or false"),
        ({"algos": ["mamll"]}, "Did you mean 'maml'"),
    ],
)
def test_wrong_flags_are_one_line_before_anything_is_trained(flags, words, tmp_path):
    with pytest.raises(BenchError, match=words):
        bench.compare(**{"out": tmp_path, **flags})
    assert not list(tmp_path.glob("runs/*"))


def test_a_run_that_fails_is_among_the_results(tmp_path):
    plugins = [TOY, TOY.with_name("troubled.py")]
    results = bench.compare(["raises"], out=tmp_path, quiet=True, **{**BUDGET, "plugin": plugins, "meta_steps": 9})
    assert [(run.row.status, run.ok) for run in results.runs] == [("failed", False)]
    assert [run.row for run in load_runs(tmp_path)] == [run.row for run in results.runs]
    assert results.outcomes == ()


def test_it_runs_outside_the_main_thread_where_no_signal_arrives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = {**BUDGET, "out": tmp_path, "log_file": "told.log"}
    with ThreadPoolExecutor(1) as pool:
        results = pool.submit(bench.compare, ["reptile"], **flags).result()
    assert [run.row.status for run in results.runs] == ["ok"]
    assert "reptile" in (tmp_path / "told.log").read_text()


def test_only_runs_of_the_protocol_as_it_is_have_its_time():
    """Of the protocol that states one, on the CPU; kernels are the machine's to choose."""
    configs = [RunConfig(algo="maml", protocol="quick")]
    asked = Request(
        algos=None, dataset="auto", device="cpu", threads=2, flags={"kernels": "eager"}, grid={"seed": [0, 1]}
    )
    assert stated_s(asked, configs) == load_protocol("quick").run_s > 0
    for change in (
        {"flags": {"meta_steps": 5}},
        {"grid": {"n_way": [20]}},
        {"sets": [Override("maml", "inner_steps", "9")]},
        {"device": "cuda"},
    ):
        assert stated_s(dataclasses.replace(asked, **change), configs) is None
    assert stated_s(asked, [RunConfig(algo="maml", protocol="matched")]) is None
    assert stated_s(asked, []) is None


def test_the_whole_time_that_a_protocol_states_is_the_one_of_its_summary():
    """10 to 13 minutes for the three algorithms that README's first command compares."""
    assert 12.5 < 3 * load_protocol("quick").run_s / 60 < 13.5
    assert "10 to 13 minutes" in load_protocol("quick").summary


@pytest.mark.parametrize(
    ("load", "threads", "warned"), [(1.5, 2, True), (0.2, 2, False), (0.9, 1, False), (2.0, 1, True)]
)
def test_a_busy_machine_is_told_where_there_are_fewer_cores_than_threads(load, threads, warned, monkeypatch, capsys):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    warn_if_busy(Console(), SimpleNamespace(load=load), threads)
    assert (f"others use {load:.1f} of 2 cores" in capsys.readouterr().err) == warned
