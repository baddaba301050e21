"""Forked processes: fresh ones, which see the world as it is when they are asked for."""

import errno
import os
import signal
import subprocess
import time

import pytest

from bench.system import forkserver
from bench.system.forkserver import server

CHILD = """
import os, pathlib, signal, sys, time
def main(argument):
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    if argument == "sleep":
        time.sleep(60)
    if argument == "raise":
        raise RuntimeError("as asked")
    if argument == "leave":
        sys.exit(7)
    held = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if int(n) > 2 and n.isdigit()
            and os.path.exists(f"/proc/self/fd/{n}")]
    print(os.environ.get("BENCH_SAID"), pathlib.Path.cwd(), os.getsid(0) == os.getpid(), "held" in str(held))
    return 3
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a process of CHILD from a server that has imported nothing."""
    (tmp_path / "child_of_test.py").write_text(CHILD)
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(forkserver.PACKAGE.parent)])}
    monkeypatch.setattr(forkserver, "_server", None)
    yield lambda argument="", files=(): server((), environment).start("child_of_test", argument, files)
    forkserver._server.close()


def test_a_process_sees_environment_folder_and_files_of_now(start, tmp_path, monkeypatch, capfd):
    start().wait(60)
    for said in ("one", "two"):
        monkeypatch.setenv("BENCH_SAID", said)
        (folder := tmp_path / said).mkdir()
        monkeypatch.chdir(folder)
        with (tmp_path / "held").open("w") as held:
            process = start(files=[held.fileno()])
        assert process.wait(60) == 3
        assert capfd.readouterr().out.splitlines()[-1] == f"{said} {folder} True True"


def test_exit_statuses_are_those_of_a_popen(start, capfd):
    assert start("leave").wait(60) == 7
    assert start("raise").wait(60) == 1
    assert "RuntimeError: as asked" in capfd.readouterr().err
    process = start("sleep")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    process.terminate()
    assert process.wait(60) == -signal.SIGTERM
    process.kill()  # of what has ended: nothing happens


def test_several_processes_end_each_with_its_own_status(start):
    sleeper, others = start("sleep"), [start("leave"), start()]
    assert [process.wait(60) for process in others] == [7, 3]
    assert sleeper.poll() is None
    sleeper.kill()
    assert sleeper.wait(60) == -signal.SIGKILL


def test_a_server_that_died_is_said_and_another_one_takes_its_place(start):
    process, one = start("sleep"), forkserver._server
    os.kill(one._process.pid, signal.SIGKILL)
    one._process.wait(60)
    with pytest.raises(ChildProcessError) as caught:
        one.start("child_of_test", "", ())
    assert (caught.value.errno, caught.value.strerror) == (errno.ECHILD, "The process that starts runs has died")
    assert process.poll() is None, "it lives on"
    os.kill(process.pid, signal.SIGKILL)
    end = time.monotonic() + 60
    while process.poll() is None:
        assert time.monotonic() < end
    assert start("leave").wait(60) == 7
    assert forkserver._server is not one


def test_edited_code_and_another_environment_of_libraries_get_another_server(start, monkeypatch, tmp_path):
    start().wait(60)
    first = forkserver._server
    start().wait(60)
    assert forkserver._server is first
    monkeypatch.setenv("OMP_DYNAMIC", "FALSE")
    start().wait(60)
    second = forkserver._server
    assert second is not first
    assert first._process.poll() is not None
    package = tmp_path / "bench"
    package.mkdir()
    monkeypatch.setattr(forkserver, "PACKAGE", package)
    (package / "edited.py").touch()
    start().wait(60)
    assert forkserver._server is not second


def test_the_server_leaves_with_the_one_it_serves(start):
    start().wait(60)
    process = forkserver._server._process
    forkserver._server._socket.close()
    assert process.wait(60) == 0


def test_a_fork_does_not_speak_with_the_server_of_its_parent(start):
    start().wait(60)
    if (pid := os.fork()) == 0:
        forkserver._server.close()  # of the copy: the parent's stays
        os._exit(0)
    os.waitpid(pid, 0)
    assert start("leave").wait(60) == 7
