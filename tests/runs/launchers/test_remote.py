"""A run on a node as the command sees it, and how many runs nodes have room for; no cluster is there."""

import importlib.metadata
from types import SimpleNamespace

import pytest

pytest.importorskip("ray", reason="Ray is not installed (requirements-ray.txt)")

from ray.exceptions import RayError

from bench.api import BenchError
from bench.runs.job import Job
from bench.runs.launchers import node, shipping
from bench.runs.launchers import nodes as nodes_module
from bench.runs.launchers.launcher import WORKER
from bench.runs.launchers.node import Look
from bench.runs.launchers.nodes import TRIES, Known, Nodes, Share
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
        remote._lost("the actor died")
        assert remote.poll() is None
    remote._take(look(files=[("checkpoint.pt", b"newer")]))
    remote._lost("the actor died")
    for _ in range(LOSSES - 1):
        assert remote.poll() is None
        remote._take(look())
        remote._lost("the actor died")
    assert remote.poll() == 1
    assert remote.why[0] == "failed"
    assert f"lost {LOSSES} times in a row without a newer checkpoint, at last far" in remote.why[1]
    assert remote.attempts[-1].keys() == {"host", "node", "started", "ended"}


def test_files_come_and_go_as_they_do_there_and_the_record_is_the_last(remote, monkeypatch):
    written = []
    write = remote._take.__globals__["write_atomic"]
    monkeypatch.setitem(remote._take.__globals__, "write_atomic", lambda p, c: (written.append(p.name), write(p, c)))
    remote._take(look(files=[("gone", b"x"), ("checkpoint.pt", b"1")]))
    assert remote.poll() is None
    remote._take(look(0, [("run.json", b"{}"), ("zz.csv", b"")], ["checkpoint.pt", "run.json", "zz.csv"]))
    assert written == ["checkpoint.pt", "gone", "checkpoint.pt", "zz.csv", "run.json"][-len(written) :]
    assert sorted(p.name for p in remote.job.folder.iterdir()) == ["checkpoint.pt", "run.json", "zz.csv"]
    assert remote.poll() == 0


def test_a_file_outside_the_folder_of_the_run_is_refused(remote):
    with pytest.raises(OSError, match="is no file of a run's folder"):
        remote._take(look(files=[("../x", b"")]))


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


def test_a_node_that_comes_later_without_a_package_leaves_the_others_alone(monkeypatch):
    nodes, said = asked(monkeypatch, by_pip=True)
    nodes.look(at_once=True)
    assert said == ["node b lacks higher: it makes no runs"]
    assert nodes.environment == {}
    assert nodes.room == 6


def test_a_node_that_cannot_answer_is_asked_again(monkeypatch):
    nodes, _ = asked(monkeypatch, by_pip=True)
    stand_in, failing = nodes_module.ray, [RayError("a hiccup")] * (TRIES - 1)
    monkeypatch.setattr(stand_in, "get", lambda reference: raised(failing.pop()) if failing else reference)
    nodes.wait()
    assert nodes.room == 12
    failing[:] = [RayError("never")] * 2 * TRIES
    nodes.known.clear()
    with pytest.raises(BenchError, match="cannot make runs: never"):
        nodes.wait()


def raised(error):
    raise error


def test_a_run_avoids_nodes_and_a_refused_one_makes_none():
    said = []
    nodes = Nodes(Share(1, 0, True), [], {}, said.append)
    nodes._there, nodes.known = {"a": SIX, "b": SIX}, {"a": Known("A", []), "b": Known("B", [])}
    assert nodes.freest([], {"a"}) == "b"
    assert nodes.freest(["b"], {"a"}) is None
    nodes.refuse("b", "too much to send")
    assert nodes.room == 1
    assert said == ["node B: too much to send; it makes no runs"]


def test_data_behind_links_to_folders_is_sent_each_folder_once(tmp_path):
    (tmp_path / "real" / "below").mkdir(parents=True)
    (tmp_path / "real" / "below" / "x.png").write_bytes(b"x")
    (tmp_path / "real" / ".hidden").write_bytes(b"no")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "set").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "around").symlink_to(tmp_path / "data")
    assert shipping.content({"root": tmp_path / "data", "none": None}, "a node") == {"root/set/below/x.png": b"x"}


def test_what_is_too_much_to_send_is_said(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"12345")
    monkeypatch.setattr(shipping, "MOST", 4)
    with pytest.raises(BenchError, match="are too much to send to far; put the data at that path on every node"):
        shipping.content({"root": tmp_path}, "far")


def test_versions_that_differ_are_named():
    assert node.difference({"torch": "1"}, {"torch": "2"}) == "has torch 1, this machine 2"
    assert node.difference({}, {"torch": "2"}) == "has torch none, this machine 2"
    assert node.difference({"torch": "2"}, {"torch": "2"}) == ""
