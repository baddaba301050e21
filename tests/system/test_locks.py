"""Locks: one owner at a time, named in the file; the kernel frees those of the dead; tables never go back in time."""

import csv
import errno
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from commands import uncounted
from made_runs import make_run
from places import REPOSITORY

from bench.analysis import results
from bench.report.write import write_report
from bench.system import locks
from bench.system.locks import Lock, run_lock, tables_turn

HOLD = """
import os, subprocess, sys, time
from pathlib import Path
from bench.system.locks import Lock
lock = Lock(Path(sys.argv[1]))
assert lock.take()
child = subprocess.Popen(["sleep", "60"], pass_fds=[lock.file]) if sys.argv[2] == "with child" else None
lock.sign(child and child.pid)
print(child.pid if child else 0, flush=True)
time.sleep(60)
"""


def holder(path, child="alone"):
    """A process that holds the lock, once it does, and the child that inherited it, 0 for none."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), child],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    with process.stdout as words:
        return process, int(words.readline())


def taken_within(lock, seconds=30):
    """Whether the lock can be had; a process that was killed takes the kernel a moment to clear away."""
    end = time.monotonic() + seconds
    while not (taken := lock.take()) and time.monotonic() < end:
        time.sleep(0.01)
    return taken


def test_a_lock_has_one_holder_whose_name_stands_in_it(tmp_path):
    first, second = Lock(tmp_path / "new" / "x.lock"), Lock(tmp_path / "new" / "x.lock")
    assert first.take()
    assert not second.take()
    owner = json.loads(first.path.read_text())
    assert list(owner) == ["host", "pid", "started", "since", "worker"]
    assert (owner["host"], owner["pid"], owner["worker"]) == (socket.gethostname(), os.getpid(), None)
    assert owner["started"] <= owner["since"]
    first.sign(worker=77)
    assert str(second.owner()) == f"pid {os.getpid()} (worker 77) on {socket.gethostname()} since {owner['since']}"
    first.release()
    assert second.owner() is None
    assert second.take()
    second.release()


def test_the_start_of_a_process_is_that_of_the_system(tmp_path):
    """Against the modification time of a file that a fresh process writes first of all."""
    code = (
        f"open({str(tmp_path / 'now')!r}, 'w').close(); from bench.system.locks import _process_start as s; print(s())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert -0.5 < (tmp_path / "now").stat().st_mtime - float(done.stdout) < 30


def test_the_lock_of_a_killed_process_is_free_and_its_name_is_written_over(tmp_path):
    path = tmp_path / "x.lock"
    process, _ = holder(path)
    lock = Lock(path)
    assert not lock.take()
    assert lock.owner().pid == process.pid
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert taken_within(lock)
    assert lock.owner().pid == os.getpid()
    lock.release()


def test_a_worker_that_outlives_its_runner_keeps_the_lock(tmp_path):
    """It is still writing: nobody may take over before it has ended."""
    path = tmp_path / "x.lock"
    process, child = holder(path, "with child")
    process.send_signal(signal.SIGKILL)
    process.wait()
    lock = Lock(path)
    assert not lock.take()
    assert lock.owner().worker == child
    os.kill(child, signal.SIGKILL)
    assert taken_within(lock)
    lock.release()


def test_release_frees_the_lock_even_if_a_child_has_inherited_it(tmp_path):
    first, second = Lock(tmp_path / "x.lock"), Lock(tmp_path / "x.lock")
    first.take()
    with subprocess.Popen(["sleep", "60"], pass_fds=[first.file]) as child:
        first.release()
        assert second.take()
        child.kill()
    second.release()


def test_the_lock_is_not_in_the_folder_that_fresh_moves_away(tmp_path):
    assert tmp_path / "runs" not in run_lock(tmp_path, "a-run").path.parents


def test_a_file_system_without_locks_is_warned_of_and_used(tmp_path, monkeypatch, caplog):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = Lock(tmp_path / "x.lock")
    with caplog.at_level(logging.WARNING, "bench"):
        assert lock.take()
    lock.release()
    assert "no locks here (No locks available): let no other process use this folder" in caplog.text


def test_fifty_processes_run_each_run_once_and_lose_no_row(tmp_path):
    env = uncounted(PYTHONPATH=f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}")
    script = [sys.executable, str(REPOSITORY / "tests" / "many_writers.py"), str(tmp_path), "50", "12"]
    done = subprocess.run(script, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    wanted = sorted(f"algo{i % 4}-5w1s-s{i // 4}" for i in range(12))
    assert sorted((tmp_path / "begun.log").read_text().split()) == wanted
    with (tmp_path / "summary.csv").open(newline="") as file:
        assert sorted(row["run_id"] for row in csv.DictReader(file)) == wanted


def test_tables_hold_the_runs_that_end_while_another_process_writes_them(tmp_path, monkeypatch):
    """A loads the runs; B records one more and asks for the tables; A writes. B's row must be there in the end."""
    make_run(tmp_path, "first")
    monkeypatch.setattr("bench.report.drawing.pictures.files_of", lambda *_: {})
    loaded, late = threading.Event(), threading.Event()

    def loads_slowly(*args):
        runs = real(*args)
        if not loaded.is_set():
            loaded.set()
            late.wait(60)
        return runs

    real = results.load_runs
    monkeypatch.setattr(results, "load_runs", loads_slowly)
    a, b = (threading.Thread(target=write_report, args=[tmp_path]) for _ in range(2))
    a.start()
    assert loaded.wait(60)
    make_run(tmp_path, "second")
    b.start()
    b.join(0.5)  # without a lock it ends here
    late.set()
    a.join()
    b.join()
    with (tmp_path / "summary.csv").open(newline="") as file:
        assert [row["algo"] for row in csv.DictReader(file)] == ["first", "second"]


def test_who_waits_long_for_the_tables_says_for_whom(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(locks, "PATIENCE_S", 0.0)
    lock = Lock(tmp_path / "locks" / "tables.lock")
    lock.take()
    threading.Timer(0.5, lock.release).start()
    with caplog.at_level(logging.WARNING, "bench"), tables_turn(tmp_path):
        pass
    (line,) = caplog.messages
    assert line.startswith(f"waiting for the tables, which are being written by pid {os.getpid()} on ")


def test_a_lock_that_is_a_link_or_a_pipe_is_refused_and_no_file_elsewhere_is_emptied(tmp_path):
    (tmp_path / "mine").write_text("kept")
    (tmp_path / "a.lock").symlink_to(tmp_path / "mine")
    os.mkfifo(tmp_path / "b.lock")
    for name, words in (("a.lock", "A lock may not be a symbolic link"), ("b.lock", "Not a regular file")):
        with pytest.raises(OSError, match=words) as error:
            Lock(tmp_path / name).take()
        assert error.value.filename == str(tmp_path / name)
        assert Lock(tmp_path / name).owner() is None
    assert (tmp_path / "mine").read_text() == "kept"


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"host": "h"}', b"\xff"])
def test_an_owner_that_cannot_be_read_is_none(tmp_path, content):
    (tmp_path / "x.lock").write_bytes(content)
    assert Lock(tmp_path / "x.lock").owner() is None
