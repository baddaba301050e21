"""The comparison around its workers: several at a time, signals, other processes, disks that are full.

Workers are stand-ins that take no time to start (``fake_worker.py``).
"""

import json
import os
import signal
import time

import pytest
from comparisons import has_begun, is_waiting, later, worker_of

from bench.records.run import load_run
from bench.runs import runner
from bench.runs.runner import Halted, Place, run_all


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


def test_a_finished_run_on_other_data_of_that_name_is_set_aside(compare, caplog):
    assert compare("quick", data_sha256={"auto": "ours"}) == 0
    folder = compare.out / "runs" / compare.config("quick").run_id
    run = load_run(folder)
    assert run.row.data_sha256 not in (None, "ours")
    assert compare("quick") == 0
    assert "(kept" in compare.said[0], "nothing is known of the data"
    assert compare("quick", data_sha256={"auto": run.row.data_sha256}) == 0
    assert "(kept" in compare.said[0]
    assert compare("quick", data_sha256={"auto": "other"}) == 0
    assert "(kept" not in compare.said[0]
    assert "it was made on other data of that name" in caplog.text
    assert len(list((compare.out / "set-aside").iterdir())) == 1


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
