"""What batch systems and terminals send: runs are saved, and the same command goes on to the same bits."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import SMALL, run_bench, start, table, uncounted, until
from places import PLUGINS, REPOSITORY

FLAGS = [*SMALL, "--plugin", str(PLUGINS / "troubled.py"), "--algos", "patient", "--meta-steps", "24", "--threads", "1"]
COMMAND = [sys.executable, str(REPOSITORY / "run_bench.py"), *FLAGS]
SAME = ("test_acc", "test_acc_transductive", "stream_sha256", "tasks_seen", "run_id", "status")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    assert run_bench(*FLAGS, "--out", out).returncode == 0
    return ended(out)


def ended(out):
    (row,) = table(out / "summary.csv")
    return {name: row[name] for name in SAME}, (out / "runs" / row["run_id"] / "test_tasks.csv").read_bytes()


def waiting(out):
    """Have a run that is begun there wait in the middle of its training, and return the file that it waits for."""
    out.mkdir(exist_ok=True)
    (out / "wait").touch()
    return out / "wait"


def continued(out, first):
    """What the command leaves that goes on, ``first`` being the exit status of the interrupted one."""
    assert first == 130
    (out / "wait").unlink()
    (row,) = table(out / "summary.csv")
    assert row["status"] == "interrupted"
    assert 0 < int(row["tasks_seen"]) < 96
    done = run_bench(*FLAGS, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "where it was stopped" in done.stdout
    return ended(out)


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU], ids=lambda n: n.name
)
def test_a_signal_to_the_command_alone_saves_its_run(number, whole, tmp_path):
    """Several of them too: what batch systems send until they send SIGTERM."""
    waiting(tmp_path)
    process = start(*FLAGS, "--out", tmp_path)
    until((tmp_path / "waiting").exists)
    for _ in range(2):
        process.send_signal(number)
    process.send_signal(signal.SIGTERM)
    assert continued(tmp_path, process.wait(60)) == whole


def started(out):
    """Return a command as users start it, in a session of its own, once its run waits."""
    waiting(out)
    process = subprocess.Popen(
        [*COMMAND, "--out", out], start_new_session=True, env=uncounted(OMP_NUM_THREADS="1"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until((out / "waiting").exists)
    return process


def everybody(session):
    """Return the processes of a session: the command, the server that forks runs, and the runs."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            if int(stat.read_text().rpartition(")")[2].split()[3]) == session:
                yield int(stat.parent.name)


def test_sigterm_to_all_processes_saves_its_run(whole, tmp_path):
    """As systemd and Slurm do: each run gets it from them and from the command."""
    process = started(tmp_path)
    for pid in everybody(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    assert continued(tmp_path, process.wait(60)) == whole


def test_signals_to_the_whole_group_save_its_run(whole, tmp_path):
    """The group holds the server that forks runs, too."""
    process = started(tmp_path)
    for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR2, signal.SIGXCPU):
        os.killpg(process.pid, number)
    assert continued(tmp_path, process.wait(60)) == whole


def test_nohup_keeps_a_command_from_hearing_that_its_terminal_has_gone(whole, tmp_path):
    """On a terminal of ASCII letters, where a table is as wide as its rule in these letters."""
    wait = waiting(tmp_path)
    ascii_only = uncounted(OMP_NUM_THREADS="1", LANG="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii", COLUMNS="100")
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *COMMAND, "--out", tmp_path], start_new_session=True,
        env=ascii_only, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    until((tmp_path / "waiting").exists)
    os.killpg(process.pid, signal.SIGHUP)
    wait.unlink()
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert ended(tmp_path) == whole
    lines = stdout.decode("ascii").splitlines()
    (row,) = (line for line in lines if line.startswith("patient  "))
    assert row.count("+/-") == 2
    (rule,) = (line for line in lines if line.startswith("------"))
    assert rule.split()[2] == "-" * len(f"{float(whole[0]['test_acc']):.4f} +/- 0.0000")
