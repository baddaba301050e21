"""A run on a node as the command sees it, and how many runs nodes have room for; no cluster is there."""

import importlib.metadata
from types import SimpleNamespace

import pytest

pytest.importorskip("ray", reason="Ray is not installed (requirements-ray.txt)")

from ray.exceptions import ActorDiedError, OutOfMemoryError

from bench.api import BenchError
from bench.runs.job import Job
from bench.runs.launchers import node
from bench.runs.launchers.launcher import WORKER
from bench.runs.launchers.node import Look
from bench.runs.launchers.nodes import Known, Nodes, Share
from bench.runs.launchers.options import Options
from bench.runs.launchers.ray import Ray
from bench.runs.launchers.remote import LOSSES, Remote
from bench.settings.config import RunConfig

SIX = {"CPU": 6.0, "GPU": 2.0}


@pytest.fixture
def remote(tmp_path):
    launcher = SimpleNamespace(workers=[], said=lambda *_: None, say=lambda line: None, place=lambda worker: None)
    launcher.let_go = lambda actor: None
    job = Job(RunConfig(algo="a", device="cpu"), tmp_path, tmp_path, (), "", "now", 0.0)
    launcher.workers.append(worker := Remote(launcher, job, WORKER))
    return worker


def look(code=None, files=(), names=()):
    told = {name: ((1, len(content)), content) for name, content in files}
    return Look("far", "now", code, told, names, (), [{"host": "far", "node": "1", "started": "then"}])


def test_a_run_is_given_up_that_is_lost_again_and_again_without_a_newer_checkpoint(remote):
    for _ in range(LOSSES - 1):
        remote._take(look())
        remote._lost(ActorDiedError())
        assert remote.poll() is None
    remote._take(look(files=[("checkpoint.pt", b"newer")]))
    remote._lost(ActorDiedError())
    for _ in range(LOSSES - 1):
        assert remote.poll() is None
        remote._take(look())
        remote._lost(ActorDiedError())
    assert remote.poll() == 1
    assert remote.why[0] == "failed"
    assert f"lost {LOSSES} times in a row without a newer checkpoint, at last far" in remote.why[1]
    assert remote.attempts[-1].keys() == {"host", "node", "started", "ended"}


def test_a_node_without_memory_is_told_as_that_and_the_run_not_tried_again(remote):
    remote._take(look())
    remote._lost(OutOfMemoryError("Task was killed due to the node running low on memory."))
    assert remote.poll() == 1
    assert remote.why[0] == "oom"
    assert remote.why[1].startswith("the node far ran out of memory")


def test_files_come_and_go_as_they_do_there_and_the_record_is_the_last(remote, monkeypatch):
    written = []
    write = remote._take.__globals__["write_atomic"]
    monkeypatch.setitem(remote._take.__globals__, "write_atomic", lambda p, c: (written.append(p.name), write(p, c)))
    remote._take(look(files=[("gone", b"x"), ("checkpoint.pt", b"1")]))
    assert remote.poll() is None
    remote._take(look(0, [("run.json", b"{}"), ("zz.csv", b"")], ["checkpoint.pt", "run.json", "zz.csv"]))
    assert written == ["gone", "checkpoint.pt", "zz.csv", "run.json"] or written[-1] == "run.json"
    assert sorted(p.name for p in remote.job.folder.iterdir()) == ["checkpoint.pt", "run.json", "zz.csv"]
    assert remote.poll() == 0


def test_a_file_outside_the_folder_of_the_run_is_refused(remote):
    with pytest.raises(OSError, match="is no file of a run's folder"):
        remote._take(look(files=[("../x", b"")]))


def test_a_signal_ends_a_run_that_has_not_begun_and_is_handed_to_one_that_has(remote):
    sent = []
    remote._take(look())
    remote._actor = SimpleNamespace(signal=SimpleNamespace(remote=sent.append), look=None)
    remote._look, remote._next = None, float("inf")
    remote.send_signal(2)
    assert sent == [], "not in the middle of a handler"
    assert remote.poll() is None
    assert sent == [2]
    remote._begun = False
    remote.send_signal(15)
    assert remote.poll() == 130


@pytest.mark.parametrize(
    ("share", "runs"),
    [
        (Share(1, 0, False), 6), (Share(4, 0, False), 1), (Share(7, 0, False), 0), (Share(0.5, 0, False), 12),
        (Share(1, 1, False), 2), (Share(1, 0.25, False), 6), (Share(0.1, 0.3, False), 6), (Share(1, 2, False), 1),
        (Share(1, 3, False), 0), (Share(1, 0, True), 1), (Share(7, 0, True), 0),
    ],
)  # fmt: skip
def test_a_node_has_room_for_what_its_cpus_and_gpus_allow(share, runs):
    assert share.runs(SIX) == runs


def test_a_run_for_itself_goes_where_none_of_ours_is():
    nodes = Nodes(Share(1, 0, True), [], {}, print)
    nodes._there = {"a": SIX, "b": SIX, "c": SIX}
    nodes.known = {"a": Known("A", []), "b": Known("B", []), "c": Known("C", [], "has torch 1, this machine 2")}
    assert nodes.room == 2
    assert nodes.freest(["a"]) == "b"
    assert nodes.freest(["a", "b"]) is None
    assert not nodes.all_usable


class TwoNodes:
    """Stands in for ``ray``: one node has all packages, the other lacks one until it comes by the environment."""

    def __init__(self, by_pip):
        self.by_pip, self.asked = by_pip, []

    def nodes(self):
        return [{"NodeID": name, "Alive": True, "Resources": SIX} for name in ("a", "b")]

    def remote(self, function):
        def options(scheduling_strategy, runtime_env, **_):
            name = scheduling_strategy.node_id
            self.asked.append((name, runtime_env))
            lacks = [] if name == "a" or (runtime_env and self.by_pip) else ["higher"]
            return SimpleNamespace(remote=lambda roots, names: (name, (), (), tuple(lacks)))

        return SimpleNamespace(options=options)

    def wait(self, references, **_):
        return references, []

    def get(self, reference):
        return reference


def asked(monkeypatch, by_pip):
    monkeypatch.setattr("bench.runs.launchers.nodes.ray", TwoNodes(by_pip))
    monkeypatch.setattr("bench.runs.launchers.nodes.NodeAffinitySchedulingStrategy", lambda i, soft: named(i))
    said = []
    return Nodes(Share(1, 0, False), [], {}, said.append), said


def named(ident):
    return SimpleNamespace(node_id=ident)


def test_what_a_node_lacks_comes_by_pip_pinned_to_all(monkeypatch):
    nodes, said = asked(monkeypatch, by_pip=True)
    nodes.wait()
    assert said == ["node b lacks higher: the nodes install what runs need by pip, in our versions"]
    assert nodes.environment == {"pip": list(node.pins().values())}
    assert nodes.room == 12


def test_a_node_that_lacks_it_even_then_is_refused(monkeypatch):
    nodes, _ = asked(monkeypatch, by_pip=False)
    with pytest.raises(BenchError, match="node b lacks higher; accepted: the same on all nodes"):
        nodes.wait()


def test_pins_are_what_requirements_name_in_the_versions_that_are_here():
    pins = node.pins()
    assert {"torch", "higher", "torchvision"} <= pins.keys()
    assert "ray" not in pins
    assert pins["higher"] == f"higher=={importlib.metadata.version('higher')}"
    assert "+" not in pins["torch"]


def test_a_node_for_itself_gives_a_run_as_many_threads_as_the_smallest_that_makes_runs(monkeypatch):
    nodes = [{"Alive": cpus != 8, "Resources": {"CPU": cpus} if cpus else {}} for cpus in (0, 1.0, 6.0, 4.0, 8)]
    monkeypatch.setattr("bench.runs.launchers.ray.ray", SimpleNamespace(nodes=lambda: nodes))
    launcher = Ray(Options("ray", cpus=2.0, exclusive=True))
    assert launcher.threads == 2, "nothing is known yet"
    launcher._joined = True
    assert launcher.threads == 4


def test_versions_that_differ_are_named():
    assert node.difference({"torch": "1"}, {"torch": "2"}) == "has torch 1, this machine 2"
    assert node.difference({}, {"torch": "2"}) == "has torch none, this machine 2"
    assert node.difference({"torch": "2"}, {"torch": "2"}) == ""
