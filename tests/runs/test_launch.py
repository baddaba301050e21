"""One run under way: how its process starts, is told to leave, and what is recorded of one that died.

Workers are stand-ins that take no time to start (``fake_worker.py``).
"""

import json
import os
import signal
import threading

import pytest

from bench.network.build import KNOWN
from bench.network.model import Way
from bench.runs import launch
from bench.runs.launchers.local import Local, start_process  # the real one
from bench.runs.signals import forwarding_signals


def test_a_worker_starts_with_the_signals_blocked_and_they_are_let_in_here_afterwards(monkeypatch, tmp_path, capfd):
    code = "import signal\ndef main(_):\n    print(signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
    (tmp_path / "mask.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with forwarding_signals() as forwarding:
        worker = start_process(forwarding, "mask", "")
        worker.wait(60)
        assert "SIGINT" in capfd.readouterr().out
        assert not {signal.SIGINT, signal.SIGTERM} & signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_run_that_takes_too_long_is_told_to_leave_and_continued_with_a_longer_limit(compare):
    assert compare("long", "quick", run_timeout_s=4.0) == 1
    row = compare.row("long")
    assert (row.status, row.error) == ("failed", "took longer than --run-timeout 4 s")
    assert (compare.out / "runs" / row.run_id / "checkpoint.pt").exists(), "it was told, not killed"
    assert compare.row("quick", 1).status == "ok"
    assert compare("long", "quick", run_timeout_s=0.5) == 1
    assert [line.split()[1] for line in compare.log if line.startswith("begin")] == ["long", "quick", "long"]


def test_a_run_that_hangs_and_hears_nothing_is_killed_while_others_go_on(compare, monkeypatch):
    monkeypatch.setattr(launch, "GRACE_S", 0.3)
    assert compare("deaf", "quick", jobs=2, run_timeout_s=5.0) == 1
    assert (compare.row("deaf").status, compare.row("deaf").error) == ("failed", "took longer than --run-timeout 5 s")
    assert compare.row("quick", 1).status == "ok"


def test_a_worker_that_hears_no_signal_does_not_keep_the_command_from_leaving(compare, monkeypatch):
    """A scheduler sends one signal, and kills all of us some time later."""
    monkeypatch.setattr(launch, "INTERRUPT_S", 0.3)
    signalled = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    signalled.start()
    assert compare("deaf") == 130
    signalled.join()
    row = compare.row("deaf")
    assert (row.status, "for not answering" in row.error) == ("interrupted", True)


def test_a_crash_is_named_and_the_others_finish(compare):
    assert compare("crashes", "unwritable", "quick") == 1
    assert (compare.row("crashes").status, compare.row("crashes").error) == (
        "failed", "the process was ended by SIGSEGV",
    )  # fmt: skip
    assert "could not be written" in compare.row("unwritable", 1).error
    assert compare.row("quick", 2).status == "ok"


def test_a_plugin_that_ends_the_process_like_an_interrupt_stops_nobody_else(compare):
    assert compare("leaves", "quick") == 1
    row = compare.row("leaves")
    assert (row.status, row.error) == ("failed", "the process left with status 130 and no record")
    assert compare.row("quick", 1).status == "ok"


def test_torn_files_of_a_killed_process_are_cleared_away(compare):
    folder = compare.out / "runs" / compare.config("quick").run_id
    folder.mkdir(parents=True)
    (folder / ".run.json.123-abc.tmp").write_text("{")
    assert compare("quick") == 0
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("here", [True, False])
def test_runs_are_told_by_which_way_networks_are_run_where_that_was_asked(here, compare, monkeypatch):
    """On another machine each run asks for itself; the commit holds for all."""
    jobs = []

    class Seen(Local):
        commit = "abc+"

        def adopt(self, job, module):
            jobs.append(json.loads(job.to_json()))
            return job

    monkeypatch.setattr(Seen, "here", here)
    monkeypatch.setitem(KNOWN, "a network", Way("loop"))
    assert compare("quick", launcher=Seen()) == 0
    assert [("a network" in job["ways"], job["commit"]) for job in jobs] == [(here, "abc+")]
