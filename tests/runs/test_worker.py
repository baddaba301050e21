"""What a worker makes of a folder that cannot be written, of edited code, and of how it shares a card."""

import dataclasses
import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from places import TOY

from bench.network.build import KNOWN
from bench.network.model import Way
from bench.records.run import load_run
from bench.registry import ALGORITHMS, BACKBONES, load_plugin
from bench.runs import worker
from bench.runs.job import Job
from bench.runs.outcome import Outcome
from bench.runs.signals import UNWRITABLE, Interrupted
from bench.settings.code import code_of
from bench.settings.config import RunConfig
from bench.training.checkpoint import Progress
from bench.training.memory import Held


def no_room(*args):
    raise OSError(errno.ENOSPC, "No space left on device", "checkpoint.pt")


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "Stop", lambda: None)  # which would take our signals
    config = RunConfig(algo="maml", device="cpu")
    return Job(config, tmp_path, tmp_path, (), "the command", "2026-01-01T00:00:00.000+00:00", 0.0, "name", False)


def test_an_interrupted_run_is_recorded_though_its_checkpoint_has_no_room(job, monkeypatch):
    progress = Progress({}, {}, 1, beside=2)
    training = SimpleNamespace(save=no_room, progress=progress, memory=None, tensor_peak=None, held=Held((), ()))

    def interrupted(job, stop, outcome, console):
        outcome.training = training
        raise Interrupted

    monkeypatch.setattr(worker, "execute", interrupted)
    assert worker.main(job.to_json()) == 130
    row = load_run(job.folder).row
    assert (row.status, row.beside) == ("interrupted", 2)
    assert row.error.startswith("stopped by a signal; its checkpoint could not be written (")
    assert "No space left on device" in row.error


@pytest.mark.parametrize("raised", [SystemExit(130), KeyboardInterrupt()])
def test_a_plugin_that_leaves_fails_its_own_run_alone(raised, job, monkeypatch):
    def leaves(*args):
        raise raised

    monkeypatch.setattr(worker, "execute", leaves)
    assert worker.main(job.to_json()) == 1
    row = load_run(job.folder).row
    assert row.status == "failed"
    assert row.error.startswith(type(raised).__name__)


def test_a_record_that_has_no_room_is_an_exit_status_and_no_traceback(job, monkeypatch, capfd):
    monkeypatch.setattr(worker, "execute", no_room)
    monkeypatch.setattr("bench.runs.outcome.write_run", no_room)
    assert worker.main(job.to_json()) == UNWRITABLE
    assert capfd.readouterr() == ("", "")
    assert not Path(job.folder).exists()


def test_an_algorithm_edited_since_the_command_began_is_not_run(job, monkeypatch):
    """Its results would stand under the hash of another text."""
    as_it_is = code_of(ALGORITHMS.get("maml"), BACKBONES.get(job.config.backbone))
    ran = []
    monkeypatch.setattr(worker, "execute", lambda *args: ran.append(args) or no_room())
    for code, times in ((as_it_is, 1), ("0" * 12, 1)):
        changed = dataclasses.replace(job, config=dataclasses.replace(job.config, code=code))
        assert worker.main(changed.to_json()) == 1
        assert len(ran) == times
        row = load_run(changed.folder).row
    assert row.error.startswith("algorithm 'maml' or backbone ")
    assert row.error.endswith(" was edited after the command had begun; give the command again")


@pytest.mark.parametrize(("remote", "told"), [(True, "f" * 64), (True, ""), (False, "f" * 64)])
def test_a_run_elsewhere_refuses_other_data_than_the_command_reads(remote, told, job, monkeypatch):
    monkeypatch.setattr(worker, "Stop", lambda: SimpleNamespace(check=no_room))  # reached where data is accepted
    config = dataclasses.replace(job.config, dataset="glyphs")
    other = dataclasses.replace(job, config=config, remote=remote, data_sha256=told)
    assert worker.main(other.to_json()) == 1
    error = load_run(other.folder).row.error
    assert ("is other data than the command's; put the same there" in error) == (remote and told != "")


@pytest.mark.parametrize(("sharing", "runs"), [("mps", 3), ("time-slicing (why)", 3), ("", 1)])
def test_a_run_is_told_and_records_how_it_shares_a_card(sharing, runs, job, monkeypatch):
    """Of three runs at once: without a word each has a device of its own."""
    load_plugin(TOY)
    told = []
    monkeypatch.setattr(worker, "Training", lambda *args, card_runs: told.append(card_runs))
    config = dataclasses.replace(job.config, dataset="toy", backbone="one-layer")
    shared, outcome = dataclasses.replace(job, config=config, jobs=3, sharing=sharing), Outcome()
    worker.set_up(Job.from_json(shared.to_json()), outcome, job.folder / "checkpoint.pt")
    assert told == [runs]
    assert outcome.details["environment"].get("sharing", "") == sharing


def test_what_the_command_has_found_out_reaches_the_run_and_its_row(job, monkeypatch):
    told = dataclasses.replace(job, commit="abc+", ways={"a network": Way("loop", reason="handed")})
    seen = []
    monkeypatch.setattr(worker, "execute", lambda *args: seen.append(KNOWN.pop("a network")) or no_room())
    assert worker.main(told.to_json()) == 1
    assert seen == [Way("loop", reason="handed")]
    assert load_run(told.folder).row.git_commit == "abc+"


def test_data_is_read_and_tasks_are_made_by_one_thread_and_the_run_has_its_own(job, monkeypatch):
    seen = []

    def sources(*args):
        seen.append(torch.get_num_threads())
        raise OSError

    monkeypatch.setattr(worker, "Stop", lambda: SimpleNamespace(check=lambda: None))
    monkeypatch.setattr(worker, "load_sources", sources)
    before = torch.get_num_threads()
    try:
        worker.main(dataclasses.replace(job, config=dataclasses.replace(job.config, threads=3)).to_json())
        assert (seen, torch.get_num_threads()) == ([1], 3)
        assert load_run(next(job.out.glob("runs/*"))).row.threads == 3
    finally:
        torch.set_num_threads(before)


def test_threads_know_how_to_wait_before_the_first_of_them_computes(job, monkeypatch):
    order = []
    training = SimpleNamespace(
        warm_up=lambda: order.append("warm-up"), mode="eager", reason="CPU", device=torch.device("cpu"),
        progress=SimpleNamespace(setup_s=0.0),
    )  # fmt: skip
    monkeypatch.setattr(worker, "set_up", lambda *args: (training, {}))
    waiting = SimpleNamespace(look=lambda now=False: order.append(f"look {now}"))
    worker.ready(job, SimpleNamespace(check=lambda: None), Outcome(), waiting)
    assert order == ["look True", "warm-up"]
