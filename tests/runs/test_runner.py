"""The comparison around its workers: signals, several at a time, limits, other processes, disks that are full.

Workers are stand-ins that take no time to start (``fake_worker.py``).
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from made_runs import make_row
from places import REPOSITORY

from bench.records.run import load_run, plain
from bench.runs import runner
from bench.runs.pace import Pace
from bench.runs.processes import Forwarding, forwarding_signals
from bench.runs.runner import Halted, Place, run_all
from bench.settings.config import RunConfig
from bench.system.locks import run_lock

FAKE = REPOSITORY / "tests" / "fake_worker.py"


class FakeWorker:
    def __init__(self):
        self.got = []

    def send_signal(self, number):
        self.got.append(number)


def test_a_signal_that_another_thread_takes_while_this_one_blocks_it_is_handed_on():
    """Blocking concerns one thread; a library's pool has others, which the system then chooses."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    workers = [FakeWorker(), FakeWorker()]
    try:
        with forwarding_signals() as forwarding:
            forwarding.add(workers[0])
            with forwarding.held():
                os.kill(os.getpid(), signal.SIGINT)
                while not forwarding.stopped:
                    time.sleep(0.01)
                assert [w.got for w in workers] == [[signal.SIGINT], []]
                forwarding.add(workers[1])
                assert [w.got for w in workers] == [[signal.SIGINT], [signal.SIGINT]]
            forwarding.on_signal(signal.SIGTERM)
            assert [w.got for w in workers] == [[signal.SIGINT, signal.SIGKILL]] * 2
    finally:
        done.set()
        thread.join()


def test_the_second_of_two_signals_before_a_worker_is_there_kills_it():
    worker = FakeWorker()
    with forwarding_signals() as forwarding:
        forwarding.on_signal(signal.SIGINT)
        forwarding.on_signal(signal.SIGINT)
        forwarding.add(worker)
    assert worker.got == [signal.SIGINT, signal.SIGKILL]


def test_a_worker_that_has_ended_is_sent_nothing():
    worker = FakeWorker()
    with forwarding_signals() as forwarding:
        forwarding.add(worker)
        forwarding.remove(worker)
        forwarding.on_signal(signal.SIGINT)
    assert worker.got == []


def test_a_worker_starts_with_the_signals_blocked_and_they_are_let_in_here_afterwards(monkeypatch, tmp_path):
    (tmp_path / "mask.py").write_text("import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []))")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    real, started = subprocess.Popen, []

    def with_pipe(*args, **kwargs):
        started.append(real(*args, **kwargs, stdout=subprocess.PIPE, text=True))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", with_pipe)
    with forwarding_signals() as forwarding:
        worker = forwarding.start("mask", "")
        assert "SIGINT" in worker.communicate()[0]
        assert not {signal.SIGINT, signal.SIGTERM} & signal.pthread_sigmask(signal.SIG_BLOCK, [])


class Comparison:
    """Runs with stand-ins for workers, in a folder of its own."""

    def __init__(self, out):
        self.out, self.said = out, []

    def __call__(self, *algos, fresh=False, **place):
        configs = [self.config(algo, n) for n, algo in enumerate(algos)]
        where = Place(self.out, self.out, command="the command", **place)
        self.said = []
        return run_all(configs, where, fresh, self.said.append)

    @staticmethod
    def config(algo, seed=0):
        return RunConfig(algo=algo, seed=seed, device="cpu", threads=1)

    def row(self, algo, seed=0):
        return load_run(self.out / "runs" / self.config(algo, seed).run_id).row

    def lock(self, algo, seed=0):
        return run_lock(self.out, self.config(algo, seed).run_id)

    @property
    def log(self):
        return (self.out / "log").read_text().splitlines()


@pytest.fixture
def compare(tmp_path, monkeypatch):
    def start(self, module, argument, files=()):
        config = json.loads(argument)["config"]
        row = make_row(config["algo"], config["seed"], test_acc=0.5, test_acc_transductive=0.5, train_s=1.0)
        row = {**vars(row), "run_id": RunConfig(**config).run_id, "step_ms_median": 1.0}
        record = json.dumps(plain({"schema": 1, "row": row}))
        with self.held():
            command = [sys.executable, str(FAKE), argument, record, row["run_id"]]
            worker = subprocess.Popen(command, pass_fds=files, start_new_session=True)
            self.add(worker)
        return worker

    monkeypatch.setattr(Forwarding, "start", start)
    monkeypatch.setattr(runner, "LOOK_S", 0.05)
    return Comparison(tmp_path)


def later(condition, action):
    """Call ``action`` in a thread once ``condition()`` holds."""

    def work():
        end = time.monotonic() + 60
        while not condition() and time.monotonic() < end:
            time.sleep(0.01)
        action()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def has_begun(compare, count):
    return lambda: (compare.out / "log").exists() and sum(line.startswith("begin") for line in compare.log) >= count


def is_waiting(compare):
    return lambda: any("waiting for" in line for line in compare.said)


def test_n_runs_are_under_way_at_once_and_never_more(compare):
    assert compare(*["quick"] * 5, jobs=2) == 0
    under_way = [0]
    for line in compare.log:
        under_way.append(under_way[-1] + (1 if line.startswith("begin") else -1))
    assert max(under_way) == 2
    assert sorted(line[:5] for line in compare.said) == [f"[{i}/5]" for i in range(1, 6)]


def test_runs_are_named_in_the_order_in_which_they_end(compare):
    thread = later(lambda: len(compare.said) == 2, lambda: os.kill(worker_of(compare.lock("long")), signal.SIGKILL))
    assert compare("long", "quick", "quick", jobs=2) == 1
    thread.join()
    assert [line[:5] for line in compare.said] == ["[2/3]", "[3/3]", "[1/3]"]
    assert compare.row("long").status == "oom"


def worker_of(lock):
    return lock.owner().worker


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_all_workers_and_no_further_run_begins(compare, number):
    thread = later(has_begun(compare, 2), lambda: os.kill(os.getpid(), number))
    assert compare("long", "long", "quick", jobs=2) == 130
    thread.join()
    assert [compare.row("long", seed).status for seed in (0, 1)] == ["interrupted"] * 2
    assert len(list(compare.out.glob("runs/*/checkpoint.pt"))) == 2
    assert len(compare.said) == 2


def test_a_second_signal_kills_all_workers(compare):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    thread = later(has_begun(compare, 2), twice)
    assert compare("deaf", "deaf", jobs=2) == 130
    thread.join()
    assert [compare.row("deaf", seed).status for seed in (0, 1)] == ["interrupted"] * 2


def test_a_worker_that_is_stopped_by_itself_stops_the_comparison(compare):
    thread = later(has_begun(compare, 2), lambda: os.kill(worker_of(compare.lock("long")), signal.SIGTERM))
    assert compare("long", "long", "quick", jobs=2) == 130
    thread.join()
    assert [compare.row("long", seed).status for seed in (0, 1)] == ["interrupted"] * 2


def test_a_run_that_takes_too_long_is_told_to_leave_and_continued_with_a_longer_limit(compare):
    assert compare("long", "quick", run_timeout_s=4.0) == 1
    row = compare.row("long")
    assert (row.status, row.error) == ("failed", "took longer than --run-timeout 4 s")
    assert (compare.out / "runs" / row.run_id / "checkpoint.pt").exists(), "it was told, not killed"
    assert compare.row("quick", 1).status == "ok"
    assert compare("long", "quick", run_timeout_s=0.5) == 1
    assert [line.split()[1] for line in compare.log if line.startswith("begin")] == ["long", "quick", "long"]


def test_a_run_that_hangs_and_hears_nothing_is_killed_while_others_go_on(compare, monkeypatch):
    monkeypatch.setattr(runner, "GRACE_S", 0.3)
    assert compare("deaf", "quick", jobs=2, run_timeout_s=5.0) == 1
    assert (compare.row("deaf").status, compare.row("deaf").error) == ("failed", "took longer than --run-timeout 5 s")
    assert compare.row("quick", 1).status == "ok"


def test_a_finished_run_on_other_data_of_that_name_is_set_aside(compare, caplog):
    assert compare("quick", data_sha256="ours") == 0
    folder = compare.out / "runs" / compare.config("quick").run_id
    run = load_run(folder)
    assert run.row.data_sha256 not in (None, "ours")
    assert compare("quick") == 0
    assert "(kept" in compare.said[0], "nothing is known of the data"
    assert compare("quick", data_sha256=run.row.data_sha256) == 0
    assert "(kept" in compare.said[0]
    assert compare("quick", data_sha256="other") == 0
    assert "(kept" not in compare.said[0]
    assert "it was made on other data of that name" in caplog.text
    assert len(list((compare.out / "set-aside").iterdir())) == 1


def test_a_worker_that_hears_no_signal_does_not_keep_the_command_from_leaving(compare, monkeypatch):
    """A scheduler sends one signal, and kills all of us some time later."""
    monkeypatch.setattr(runner, "INTERRUPT_S", 0.3)
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


def test_a_run_of_another_process_comes_last_and_what_that_finishes_is_kept(compare):
    """Its lock is ours here, taken through another open file, and freed once the other run has ended."""
    assert compare("quick") == 0  # what the other process will have left
    record = compare.out / "runs" / compare.config("quick").run_id / "run.json"
    finished = record.read_text()
    record.unlink()
    other = compare.lock("quick")
    other.take()

    def finish():
        record.write_text(finished)
        other.release()

    thread = later(is_waiting(compare), finish)
    assert compare("quick", "quick") == 0
    thread.join()
    assert [line[:5] for line in compare.said] == ["[2/2]", "[1/2]", "[1/2]"]
    assert f"waiting for {compare.config('quick').run_id}, run by pid {os.getpid()} on " in compare.said[1]
    assert compare.said[2].endswith("(run by another process meanwhile)")
    assert compare.log.count("begin quick 0") == 1


def test_a_run_that_another_process_leaves_unfinished_is_taken_over(compare):
    other = compare.lock("quick")
    other.take()
    thread = later(is_waiting(compare), other.release)
    assert compare("quick") == 0
    thread.join()
    assert "waiting for" in compare.said[0]
    assert compare.row("quick").status == "ok"


def test_a_run_that_fails_in_another_process_is_not_tried_again_beside_it(compare):
    """Fifty processes would otherwise make a run that fails fifty times."""
    assert compare("fails") == 1
    other = compare.lock("fails")
    other.take()
    record = compare.out / "runs" / compare.config("fails").run_id / "run.json"

    def fail_again():
        content = json.loads(record.read_text())
        content["row"]["started_at"] = "2026-01-01T00:00:00.000+00:00"  # begun before we were, but not what we saw
        record.write_text(json.dumps(content))
        other.release()

    thread = later(is_waiting(compare), fail_again)
    assert compare("fails") == 1
    thread.join()
    assert compare.log.count("begin fails 0") == 1
    assert compare("fails") == 1
    assert compare.log.count("begin fails 0") == 2, "but a new command tries it again"


def test_ctrl_c_while_waiting_for_another_process_leaves_at_once(compare):
    other = compare.lock("quick")
    other.take()
    thread = later(is_waiting(compare), lambda: os.kill(os.getpid(), signal.SIGINT))
    began = time.monotonic()
    assert compare("quick") == 130
    assert time.monotonic() - began < 30
    thread.join()
    other.release()


def test_fresh_leaves_a_run_alone_while_another_process_is_at_work_on_it(compare):
    assert compare("quick") == 0
    folder = compare.out / "runs" / compare.config("quick").run_id
    other = compare.lock("quick")
    other.take()

    def look_and_free():
        there.append((folder / "run.json").exists())
        other.release()

    there = []
    thread = later(is_waiting(compare), look_and_free)
    assert compare("quick", fresh=True) == 0
    thread.join()
    assert there == [True]
    assert compare.said[0].endswith("--fresh leaves it alone until then")
    assert len(list((compare.out / "set-aside").iterdir())) == 1
    assert compare.log.count("begin quick 0") == 2


def test_fresh_keeps_what_another_process_began_since_this_command_was(compare, monkeypatch):
    assert compare("quick") == 0
    monkeypatch.setattr(runner, "_now", lambda: "2020-01-01T00:00:00.000+00:00")
    assert compare("quick", fresh=True) == 0
    assert compare.log.count("begin quick 0") == 1
    assert compare.said[0].endswith("(run by another process meanwhile)")


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("record", [b"half a rec", b'{"schema": 3, "row": {}}'])
def test_a_record_that_cannot_be_used_is_set_aside_whole_and_said(compare, caplog, record, fresh):
    """Of a newer version, perhaps; what the checkpoint holds need not be trained again."""
    folder = compare.out / "runs" / compare.config("quick").run_id
    folder.mkdir(parents=True)
    (folder / "run.json").write_bytes(record)
    (folder / "checkpoint.pt").write_bytes(b"trained")
    assert compare("quick", fresh=fresh) == 0
    (aside,) = (compare.out / "set-aside").iterdir()
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == {
        "run.json": record,
        "checkpoint.pt": b"trained",
    }
    assert (folder / "checkpoint.pt").exists() is not fresh
    assert load_run(folder).ok
    lines = [line for line in caplog.messages if "cannot be used" in line]
    assert len(lines) == (not fresh)
    assert all(str(folder) in line and str(aside) in line for line in lines)


def test_locks_are_free_and_empty_when_the_runs_have_ended(compare):
    compare("quick", "fails", "crashes")
    for path in (compare.out / "locks").iterdir():
        assert path.read_bytes() == b""


def test_torn_files_of_a_killed_process_are_cleared_away(compare):
    folder = compare.out / "runs" / compare.config("quick").run_id
    folder.mkdir(parents=True)
    (folder / ".run.json.123-abc.tmp").write_text("{")
    assert compare("quick") == 0
    assert not list(folder.glob(".*"))


def test_results_that_cannot_be_written_end_the_comparison_in_one_line(compare):
    """The folder of runs turns into a file; what had finished before lies where it was moved to, unharmed."""
    with pytest.raises(Halted, match="; what has finished is kept, the same command goes on from there") as caught:
        compare("quick", "usurps", "quick")
    assert str(compare.out / "runs") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert compare.log == ["begin quick 0", "end quick 0", "begin usurps 1"]
    assert load_run(compare.out / "elsewhere" / compare.config("quick").run_id).ok


def test_output_that_nobody_reads_any_more_is_not_a_success(compare):
    def gone(line):
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(Halted, match="nobody reads our output any more; what has finished is kept"):
        run_all([compare.config("quick")], Place(compare.out, compare.out), False, gone)
    assert compare.row("quick").status == "ok"


def test_an_error_of_ours_leaves_no_worker_behind(compare):
    def fail(line):
        raise RuntimeError("ours")

    configs = [compare.config("long"), compare.config("fails", 1)]
    with pytest.raises(RuntimeError, match="ours"):
        run_all(configs, Place(compare.out, compare.out, jobs=2), False, fail)
    assert compare.row("long").status == "interrupted"
    assert compare.lock("long").take()


def test_time_left_counts_runs_under_way_and_ends_with_the_last(monkeypatch):
    """Two at a time, the first two begun together: one took 60 s, so that the other, as long, is nearly done."""
    now = [0.0]
    monkeypatch.setattr("bench.runs.pace.time.monotonic", lambda: now[0])
    pace = Pace(4, 2, began=0.0)
    assert pace.words() == "0 s gone"
    pace.start(1)
    pace.start(2)
    now[0] = 60.0
    pace.end(1)
    assert pace.words() == "1 min 0 s gone, about 1 min 0 s left"  # 3 runs of 60 s less 60 s, by two
    pace.start(3)
    now[0] = 90.0  # what takes longer than others is not counted beyond them
    assert pace.words() == "1 min 30 s gone, about 45 s left"
    assert pace.words(going_on=False) == "1 min 30 s gone"
    pace.end(2)
    pace.end(3)
    pace.end(4)  # kept, or made by others
    assert pace.words() == "1 min 30 s gone"
