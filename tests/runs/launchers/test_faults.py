"""What goes wrong between a command and an actor, by stand-ins for both ends of Ray; no cluster is there."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import uncounted, until
from places import REPOSITORY

pytest.importorskip("ray", reason="Ray is not installed (requirements-ray.txt)")

from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    OutOfMemoryError,
)

from bench.runs.job import Job
from bench.runs.launchers import left
from bench.runs.launchers import remote as remote_module
from bench.runs.launchers.launcher import WORKER
from bench.runs.launchers.left import name_of
from bench.runs.launchers.node import Look
from bench.runs.launchers.options import Options
from bench.runs.launchers.ray import Ray
from bench.runs.launchers.remote import LOSSES, SILENT_S, Remote
from bench.settings.config import RunConfig

AWAY = ActorUnavailableError("the network", None)
UNSCHEDULABLE = ActorUnschedulableError("its node has gone")
NEVER = object()  # no answer comes


def look(code=None, **files):
    told = {name.replace("_", "."): ((1, 1), content) for name, content in files.items()}
    return Look("far", "now", code, told, list(told), (), [{"host": "far", "node": "1", "started": "then"}])


class Far:
    """An actor that answers what it is given, one after the other, and keeps what it was asked."""

    def __init__(self):
        self.asked, self.answers, self.killed = [], [], 0

    def __getattr__(self, method):
        def asked(*args):
            self.asked.append((method, *args[:1]))
            return self.answers.pop(0) if self.answers else NEVER

        return SimpleNamespace(remote=asked)


@pytest.fixture
def far(monkeypatch):
    """Stand in for Ray, with a clock that is set by hand."""
    actor, now = Far(), [0.0]

    def get(reference):
        if isinstance(reference, Exception):
            raise reference
        return reference

    def kill(_):
        actor.killed += 1

    monkeypatch.setattr(
        remote_module,
        "ray",
        SimpleNamespace(wait=lambda refs, timeout: ([r for r in refs if r is not NEVER], []), get=get, kill=kill),
    )
    monkeypatch.setattr(remote_module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda s: None))
    actor.now = now
    return actor


@pytest.fixture
def run(far, tmp_path):
    launcher = SimpleNamespace(workers=[], said=lambda *_: None, say=lambda line: None, called=lambda ident: ident)
    launcher.let_go = lambda actor: None
    launcher.place = lambda worker: (far, "node1")
    launcher.parcel = lambda *_: "parcel"
    job = Job(RunConfig(algo="a", device="cpu"), tmp_path, tmp_path, (), "", "now", 0.0)
    launcher.workers.append(made := Remote(launcher, job, WORKER))
    return made


def polled(run, far, times=1, seconds=0.0):
    far.now[0] += seconds
    for _ in range(times):
        code = run.poll()
    return code


def test_what_begins_a_run_is_sent_again_until_it_has_arrived(run, far):
    far.answers = [AWAY, AWAY, look()]
    for _ in range(3):
        polled(run, far, seconds=1)
    assert far.asked == [("begin", "parcel")] * 3
    polled(run, far, seconds=1)
    assert far.asked[-1][0] == "look"


def test_a_node_that_goes_before_a_run_was_there_says_nothing_of_the_run(run, far):
    far.answers = [UNSCHEDULABLE] * 10
    for _ in range(10):
        assert polled(run, far, seconds=60) is None
    assert len(far.asked) == 10
    assert run.avoid == {"node1"}


def test_between_losses_a_while_passes(run, far):
    far.answers = [ActorDiedError()] * LOSSES
    polled(run, far, times=50)
    assert len(far.asked) == 1
    polled(run, far, times=50, seconds=3)
    assert len(far.asked) == 2
    assert polled(run, far, seconds=10) == 1
    assert run.why[1].startswith(f"lost {LOSSES} times in a row")


def test_a_node_without_memory_is_told_as_that_and_the_run_not_tried_again(run, far):
    far.answers = [look(), OutOfMemoryError("Task was killed due to the node running low on memory.")]
    polled(run, far)
    assert polled(run, far, seconds=1) == 1
    assert run.why[0] == "oom"
    assert run.why[1].startswith("the node far ran out of memory")


def test_a_signal_ends_a_run_that_has_not_begun(run, far):
    polled(run, far)
    run.send_signal(15)
    assert run.poll() == 130


def test_a_signal_that_did_not_arrive_is_sent_again(run, far):
    far.answers = [look(), AWAY, NEVER, NEVER]
    polled(run, far)
    run.send_signal(2)
    assert far.asked == [("begin", "parcel")], "not in the middle of a handler"
    polled(run, far, times=2)
    assert far.asked.count(("signal", 2)) == 2


def test_a_run_that_somebody_stopped_on_its_node_goes_on_elsewhere(run, far):
    far.answers = [look(), look(130, run_json=b"{}", checkpoint_pt=b"1"), look()]
    polled(run, far)
    assert polled(run, far, seconds=1) is None
    assert [path.name for path in run.job.folder.iterdir()] == ["checkpoint.pt"]
    assert run.attempts[-1]["ended"] == "its process was stopped there"
    assert polled(run, far, seconds=9) is None
    assert far.asked[-1] == ("begin", "parcel")


def test_one_that_we_stopped_has_ended(run, far):
    far.answers = [look(), NEVER, look(130, run_json=b"{}")]
    polled(run, far)
    run.send_signal(2)
    assert polled(run, far, times=2, seconds=1) == 130
    assert (run.job.folder / "run.json").exists()


def test_an_actor_that_does_not_answer_is_given_up(run, far):
    far.answers = [look()]
    polled(run, far)
    polled(run, far, seconds=1)
    assert polled(run, far, seconds=SILENT_S - 1) is None
    assert far.killed == 0
    polled(run, far, seconds=2)
    assert far.killed == 1
    assert run.attempts[-1]["ended"] == f"no answer for {SILENT_S:g} s"


def test_attempts_of_earlier_commands_are_kept(run, monkeypatch):
    earlier = [{"host": "a", "ended": "interrupted"}]
    monkeypatch.setattr(remote_module, "recorded", lambda folder: SimpleNamespace(details={"attempts": earlier}))
    assert Remote(run._launcher, run.job, WORKER).attempts == earlier


def test_a_file_that_could_not_be_written_comes_again(run, far, monkeypatch):
    far.answers = [look(), look(checkpoint_pt=b"1"), look(checkpoint_pt=b"1")]
    polled(run, far)
    write = remote_module.write_atomic
    monkeypatch.setattr(remote_module, "write_atomic", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(OSError, match="disk full"):
        polled(run, far, seconds=1)
    assert run._known == {}
    monkeypatch.setattr(remote_module, "write_atomic", write)
    polled(run, far, seconds=1)
    assert (run.job.folder / "checkpoint.pt").read_bytes() == b"1"


def test_a_run_goes_with_its_actor_however_that_ends(tmp_path):
    (tmp_path / "sleeper.py").write_text(
        "import pathlib, time\n\n\ndef main(text):\n"
        "    pathlib.Path(__file__).with_name('there').touch()\n    time.sleep(100)\n"
    )
    begin = (
        "import os, subprocess, sys\nfrom bench.runs.launchers.node import _BEGIN\n"
        "run = subprocess.Popen([sys.executable, '-c', _BEGIN, 'sleeper', os.devnull, str(os.getpid())])\n"
        "print(run.pid, flush=True)\nrun.wait()\n"
    )
    search = f"{REPOSITORY}:{tmp_path}"
    actor = subprocess.Popen(
        [sys.executable, "-c", begin], stdout=subprocess.PIPE, env=uncounted(PYTHONPATH=search), text=True
    )
    run = int(actor.stdout.readline())
    until((tmp_path / "there").exists)
    actor.kill()
    actor.wait()
    actor.stdout.close()
    try:
        until(lambda: gone(run), 30)
    finally:
        if not gone(run):
            os.kill(run, signal.SIGKILL)


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"  # nobody reaps it here
    except FileNotFoundError:
        return True


def test_what_an_earlier_command_left_ends_where_nobody_needs_it(tmp_path, monkeypatch):
    jobs = {seed: Job(RunConfig(algo="a", seed=seed), tmp_path, tmp_path, (), "", "now", 0.0) for seed in range(3)}
    names = [name_of(jobs[0], WORKER), name_of(jobs[1], WORKER), name_of(jobs[2], "bench.runs.profile"), "another's"]
    names.append(name_of(Job(RunConfig(algo="a"), tmp_path / "elsewhere", tmp_path, (), "", "", 0.0), WORKER))
    there = SimpleNamespace(util=SimpleNamespace(list_named_actors=lambda: names), get_actor=lambda name: name)
    monkeypatch.setattr(left, "ray", there)
    monkeypatch.setattr(left, "finished", lambda folder: "-s1-" not in folder.name or None)
    assert list(left.left_over(tmp_path)) == [names[0]], "not one under way, a profile, or another folder's"


def test_runs_that_are_all_there_need_no_room():
    assert Ray(Options("ray", cpus=1e6)).room == 1


def test_threads_come_of_the_flags_alone_so_that_a_run_is_found_again():
    assert Ray(Options("ray", cpus=3.5, exclusive=True)).threads == 3
