"""Runs on a Ray cluster of three nodes on this machine: results, faults, and what is left behind.

Runs are stand-ins that do not import torch (``far_run.py``), but for one: what is tested is how they come and go.
"""

import dataclasses
import json
import re
import signal

import pytest
from commands import SMALL, prepare, run_bench, until
from places import PLUGINS

from bench.api import BenchError
from bench.records.run import load_runs
from bench.records.tuning import load_searches
from bench.system.forked import Forked

pytest.importorskip("ray", reason="Ray is not installed (requirements-ray.txt)")

import far_driver
import far_run

from bench.runs.launchers import node

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

STEPS = 40


def results(out):
    """What each finished run ended with, and how often it was begun anew."""
    found = {}
    for path in out.glob("runs/*/run.json"):
        record = json.loads(path.read_text())
        assert record["row"]["status"] == "ok"
        found[record["row"]["seed"]] = (record["result"], record["row"]["resumed"])
    return found


def expected(count, steps=STEPS):
    return {seed: far_run.chain(seed, steps) for seed in range(count)}


@pytest.fixture
def grid(nodes, tmp_path, monkeypatch):
    """Make runs by stand-ins in this process; what is said is in ``said``."""
    monkeypatch.setattr("bench.runs.runner.WORKER", "far_run")
    monkeypatch.setattr("bench.runs.launchers.shipping.plugins", None)

    def make(*algos, steps=STEPS, **options):
        return far_driver.grid(nodes.address, tmp_path, algos, steps, make.said.append, **options)

    make.said, make.out = [], tmp_path
    return make


def checkpoints(out):
    return list(out.glob("runs/*/checkpoint.pt"))


def test_runs_leave_what_they_leave_here_and_no_actor(grid, nodes):
    assert grid("quick", "fails", "crashes", "quick", steps=12) == 1
    runs = {run.row.seed: run.row for run in load_runs(grid.out)}
    assert [runs[n].status for n in range(4)] == ["ok", "failed", "failed", "ok"]
    assert runs[1].error == "boom"
    assert runs[2].error.startswith("the process was ended by SIGSEGV (on ")
    assert all(runs[n].host for n in (2,))
    assert {n for n, r in runs.items() if r.resumed} == set(), "what fails for its own reasons is not tried again"
    assert "3 runs at a time on 3 nodes of the Ray cluster" in grid.said
    assert any(line.endswith(": step 0 of 12") for line in grid.said), "with the name of the node in front"
    assert nodes.actors() == []
    assert grid("quick", "fails", "crashes", "quick", steps=12) == 1
    assert sum("(kept; --fresh runs it again)" in line for line in grid.said) == 2


def driver(nodes, out, *algos, steps=STEPS, **further):
    """Begin a command in a process of its own."""
    prepare()
    asked = {"address": nodes.address, "out": str(out), "algos": algos, "steps": steps, "log": str(out / "said")}
    return Forked("far_driver", json.dumps(asked | further), (), {})


def test_a_run_goes_on_from_its_checkpoint_where_its_node_was_killed(nodes, tmp_path):
    command = driver(nodes, tmp_path, "waits", "waits")
    until(lambda: len(checkpoints(tmp_path)) == 2)
    assert nodes.kill_one_with_a_run()
    (tmp_path / "go").touch()
    assert command.wait(120) == 0
    found = results(tmp_path)
    assert {seed: result for seed, (result, _) in found.items()} == expected(2)
    assert sum(resumed for _, resumed in found.values()) == 1
    assert "it goes on elsewhere from its last checkpoint" in (tmp_path / "said").read_text()
    attempts = [json.loads(p.read_text())["attempts"] for p in tmp_path.glob("runs/*/run.json")]
    lost = max(attempts, key=len)
    assert len(lost) == 2
    assert "ended" in lost[0]
    assert lost[1]["node"]


def test_a_command_that_was_killed_finds_what_goes_on_without_it(nodes, tmp_path):
    first = driver(nodes, tmp_path, *["waits"] * 3)
    until(lambda: len(checkpoints(tmp_path)) == 3)
    first.kill()
    first.wait(60)
    assert len(nodes.actors()) == 3, "they go on"
    (tmp_path / "go").touch()
    second = driver(nodes, tmp_path, *["waits"] * 3)
    assert second.wait(120) == 0
    assert {seed: result for seed, (result, _) in results(tmp_path).items()} == expected(3)
    assert {resumed for _, resumed in results(tmp_path).values()} == {0}, "none was begun anew"
    assert (tmp_path / "said").read_text().count("where an earlier command has begun it") == 3
    assert nodes.actors() == []


def test_runs_that_nobody_comes_back_for_leave_the_cluster(nodes, tmp_path):
    first = driver(nodes, tmp_path, "a", steps=2000, idle_s=4.0)
    until(lambda: checkpoints(tmp_path))
    first.kill()
    first.wait(60)
    until(lambda: nodes.actors() == [])


def test_ctrl_c_saves_and_leaves_no_actor(nodes, tmp_path):
    command = driver(nodes, tmp_path, "a", "b", steps=2000)
    until(lambda: len(checkpoints(tmp_path)) == 2)
    command.send_signal(signal.SIGINT)
    assert command.wait(60) == 130
    assert {run.row.status for run in load_runs(tmp_path)} == {"interrupted"}
    for path in checkpoints(tmp_path):
        step, value, _ = json.loads(path.read_text())
        assert value == far_run.chain(int(path.parent.name.split("-s")[-1].split("-")[0]), step)
    assert nodes.actors() == []


def test_other_versions_are_refused_before_anything_is_run(grid, monkeypatch):
    monkeypatch.setattr(node, "versions", lambda: {**VERSIONS, "torch": "0.1"})
    words = f"has torch {VERSIONS['torch']}, this machine 0.1; accepted: the same on all nodes"
    with pytest.raises(BenchError, match=re.escape(words)):
        grid("a")
    assert not list(grid.out.glob("runs/*"))


VERSIONS = node.versions()


def test_accuracies_are_those_of_this_machine_to_the_last_bit(nodes, tmp_path):
    args = [*SMALL, "--algos", "maml", "--seeds", "0,1", "--threads", "1"]
    far = ["--launcher", "ray", "--ray-address", nodes.address]
    ends = [run_bench(*args, "--out", tmp_path / name, *further) for name, further in (("here", []), ("far", far))]
    assert [done.returncode for done in ends] == [0, 0], ends[1].stderr
    here, there = (sorted(load_runs(tmp_path / name), key=lambda run: run.row.seed) for name in ("here", "far"))
    assert [run.row.run_id for run in here] == [run.row.run_id for run in there]
    for one, other in zip(here, there):
        assert one.row.git_commit == other.row.git_commit
        assert one.details["weights"] == other.details["weights"]
        assert [dataclasses.replace(p, train_s=0.0) for p in one.curve] == [
            dataclasses.replace(p, train_s=0.0) for p in other.curve
        ]
        for name in ("test_tasks.csv", "adaptation.csv"):
            assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()
        assert sorted(p.name for p in one.folder.iterdir()) == sorted(p.name for p in other.folder.iterdir())
        assert other.details["attempts"][-1]["ended"] == "ok"
    assert nodes.actors() == []
    assert 'launcher = "ray"' in (tmp_path / "far" / "config.toml").read_text()


def test_trials_ask_from_afar_and_come_out_as_here(nodes, tmp_path):
    args = [*SMALL, "--plugin", str(PLUGINS / "ranged.py"), "--algos", "ranged", "--threads", "1", "--tune", "2"]
    far = ["--launcher", "ray", "--ray-address", nodes.address]
    ends = [run_bench(*args, "--out", tmp_path / name, *further) for name, further in (("here", []), ("far", far))]
    assert [done.returncode for done in ends] == [0, 0], ends[1].stderr
    here, there = ((load_searches(tmp_path / name)[0]).trials for name in ("here", "far"))
    told = [(trial.number, trial.values, trial.state, trial.score, trial.stream_sha256) for trial in here]
    assert told == [(trial.number, trial.values, trial.state, trial.score, trial.stream_sha256) for trial in there]
    assert not list(tmp_path.glob("far/**/scores.json"))
