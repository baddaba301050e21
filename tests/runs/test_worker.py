"""What a worker makes of a folder that cannot be written."""

import dataclasses
import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.records.run import CurvePoint, load_run
from bench.registry import ALGORITHMS
from bench.runs import worker
from bench.runs.worker import UNWRITABLE, Interrupted, Job, Pulse
from bench.settings.config import RunConfig
from bench.settings.protocols import code_of
from bench.system.console import Console
from bench.training.leaks import Held
from bench.training.train import Progress


def no_room(*args):
    raise OSError(errno.ENOSPC, "No space left on device", "checkpoint.pt")


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "Stop", lambda: None)  # which would take our signals
    config = RunConfig(algo="maml", device="cpu")
    return Job(config, tmp_path, tmp_path, (), "the command", "2026-01-01T00:00:00.000+00:00", 0.0, "name", False)


def test_a_job_is_read_back_as_it_was(job):
    assert Job.from_json(job.to_json()) == job


def test_an_interrupted_run_is_recorded_though_its_checkpoint_has_no_room(job, monkeypatch):
    progress = Progress({}, {}, 1, beside=2)
    training = SimpleNamespace(save=no_room, progress=progress, memory=None, held=Held((), ()))

    def interrupted(job, stop, outcome):
        outcome.training = training
        raise Interrupted

    monkeypatch.setattr(worker, "_execute", interrupted)
    assert worker.main(job.to_json()) == 130
    row = load_run(job.folder).row
    assert (row.status, row.beside) == ("interrupted", 2)
    assert row.error.startswith("stopped by a signal; its checkpoint could not be written (")
    assert "No space left on device" in row.error


@pytest.mark.parametrize("raised", [SystemExit(130), KeyboardInterrupt()])
def test_a_plugin_that_leaves_fails_its_own_run_alone(raised, job, monkeypatch):
    def leaves(*args):
        raise raised

    monkeypatch.setattr(worker, "_execute", leaves)
    assert worker.main(job.to_json()) == 1
    row = load_run(job.folder).row
    assert row.status == "failed"
    assert row.error.startswith(type(raised).__name__)


def test_a_record_that_has_no_room_is_an_exit_status_and_no_traceback(job, monkeypatch, capfd):
    monkeypatch.setattr(worker, "_execute", no_room)
    monkeypatch.setattr(worker, "write_run", no_room)
    assert worker.main(job.to_json()) == UNWRITABLE
    assert capfd.readouterr() == ("", "")
    assert not Path(job.folder).exists()


def test_an_algorithm_edited_since_the_command_began_is_not_run(job, monkeypatch):
    """Its results would stand under the hash of another text."""
    as_it_is = code_of(ALGORITHMS.get("maml"))
    ran = []
    monkeypatch.setattr(worker, "_execute", lambda *args: ran.append(args) or no_room())
    monkeypatch.setattr(worker, "git_commit", lambda: "commit")
    for code, times in ((as_it_is, 1), ("0" * 12, 1)):
        changed = dataclasses.replace(job, config=dataclasses.replace(job.config, code=code))
        assert worker.main(changed.to_json()) == 1
        assert len(ran) == times
        row = load_run(changed.folder).row
    assert row.error == "algorithm 'maml' was edited after the command had begun; give the command again"


def test_a_log_hears_of_training_once_a_minute(job, monkeypatch, capsys):
    """From step 100 on, 300 of 10,000 meta-steps in every half minute: 10 a second."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(worker.time, "monotonic", lambda: clock.now)
    progress = Progress({}, {}, 1, meta_step=100)
    config = dataclasses.replace(job.config, meta_steps=10_000)
    pulse = Pulse(dataclasses.replace(job, config=config, place="[2/6]"), Console(), progress)
    for _ in range(5):
        pulse.look()
        clock.now, progress.meta_step = clock.now + 30.0, progress.meta_step + 300
        if progress.meta_step == 1000:
            progress.curve.append(CurvePoint(1000, 4000, 80.0, 0.8834, 0.01, 0.5))
    assert capsys.readouterr().out.splitlines() == [
        "[2/6] maml 5-way 1-shot seed 0 on auto: 700 of 10,000 meta-steps, 10 a second,"
        " about 15 min 30 s of training left",
        "[2/6] maml 5-way 1-shot seed 0 on auto: 1,300 of 10,000 meta-steps, 10 a second, val 0.883,"
        " about 14 min 30 s of training left",
    ]
