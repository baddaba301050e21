"""Forked processes: fresh ones, which see the world as it is when they are asked for.

Each test has a process of its own, as there is one server for each.
"""

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from places import REPOSITORY

CHILD = """
import os, pathlib, signal, sys, time
import numpy
def main(argument):
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    if argument == "sleep":
        time.sleep(60)
    if argument == "raise":
        raise RuntimeError("as asked")
    if argument == "leave":
        sys.exit(7)
    if argument == "draw":
        print(numpy.random.rand())
        return 0
    held = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if int(n) > 2
            and os.path.exists(f"/proc/self/fd/{n}")]
    blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    print(os.environ.get("BENCH_SAID"), pathlib.Path.cwd().name, os.getsid(0) == os.getpid(), blocked, "held" in
          str(held), sys.modules["__main__"].__dict__.get("IS_SCRIPT"), len(os.environ.get("BENCH_LONG", "")))
    return 3
"""


@pytest.fixture
def script(tmp_path):
    """Runs lines in a fresh interpreter where ``Forked`` and CHILD are to be had; returns what they print, by lines."""
    (tmp_path / "child_of_test.py").write_text(CHILD)
    head = """
        IS_SCRIPT = True
        import os, pathlib, signal, subprocess, sys, time
        print("begun", flush=True)
        from bench.system import forked
        def start(argument="", files=(), environment=None):
            return forked.Forked("child_of_test", argument, files, environment)
    """

    def run(lines):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(head) + textwrap.dedent(lines))
        search = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
        done = subprocess.run(
            [sys.executable, path], env={**os.environ, "PYTHONPATH": search}, cwd=tmp_path, capture_output=True,
            text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        begun, *printed = done.stdout.splitlines()
        assert (begun, "begun" in printed) == ("begun", False), "the script itself ran once"
        return printed, done.stderr

    return run


def test_a_process_sees_environment_folder_and_files_of_now(script):
    printed, _ = script("""
        start().wait(60)
        os.environ["BENCH_LONG"] = "x" * 100_000
        for said in ("one", "two"):
            os.environ["BENCH_SAID"] = said
            os.mkdir(said)
            os.chdir(said)
            with open("held", "w") as held:
                print(start(files=[held.fileno()]).wait(60), flush=True)
        print("PYTHONSAFEPATH" in os.environ, flush=True)
        print(sys.modules["__main__"].IS_SCRIPT, flush=True)
    """)
    assert printed[1:] == [
        "one one True True True None 100000", "3",
        "two two True True True None 100000", "3",
        "False", "True",
    ]  # fmt: skip


def test_exit_statuses_are_those_of_a_popen(script):
    printed, errors = script("""
        print(start("leave").wait(60), start("raise").wait(60))
        process = start("sleep")
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            print(process.poll())
        process.terminate()
        print(process.wait(60))
        process.kill()  # of what has ended: nothing happens
        sleeper, others = start("sleep"), [start("leave"), start("leave")]
        print([process.wait(60) for process in others], sleeper.poll())
        sleeper.kill()
        print(sleeper.wait(60))
    """)
    assert printed == ["7 1", "None", str(-signal.SIGTERM), "[7, 7] None", str(-signal.SIGKILL)]
    assert "RuntimeError: as asked" in errors


def test_each_process_draws_other_numbers(script):
    printed, _ = script("""
        forked.prepare(["numpy"], {})
        for _ in range(3):
            start("draw").wait(60)
    """)
    assert len(set(printed)) == 3


def test_modules_that_are_not_there_are_left_out(script):
    printed, _ = script("""
        forked.prepare(["no_such_module"], {})
        print(start("leave").wait(60))
    """)
    assert printed == ["7"]


def test_a_signal_to_the_whole_group_ends_no_server_and_one_that_is_killed_is_begun_anew(script):
    printed, _ = script("""
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sleeper = start("sleep")
        os.killpg(0, signal.SIGINT)
        os.killpg(0, signal.SIGTERM)
        time.sleep(0.2)
        print(sleeper.poll(), start("leave").wait(60))
        server = int(pathlib.Path(f"/proc/{sleeper.pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(server, signal.SIGKILL)
        time.sleep(0.2)
        print(sleeper.poll(), start("leave").wait(60))
        sleeper.kill()
        print(sleeper.wait(60))
    """)
    assert printed == ["None 7", "None 7", "255"]


def test_a_server_that_is_there_for_others_is_left_to_them(script):
    printed, _ = script("""
        import multiprocessing
        from multiprocessing import forkserver
        del __file__  # or theirs would import this script
        def theirs():
            process = multiprocessing.get_context("forkserver").Process(target=int)
            process.start()
            process.join()
            return forkserver._forkserver._forkserver_pid, process.exitcode
        before = theirs()
        start().wait(60)
        print(theirs() == before, before[1], flush=True)
    """)
    assert printed[0].split()[3] == "True", "signals are blocked"
    assert printed[1] == "True 0"
