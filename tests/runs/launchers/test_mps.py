"""Several runs on one card: the service that they share it by, begun, found, refused, lost and ended.

``nvidia-cuda-mps-control`` and the process that opens the card are stand-ins: what NVIDIA's own do, only a card shows.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import until
from forked import Forked

from bench.cli import command, compare
from bench.runs.job import Job
from bench.runs.launchers import local, mps, probe
from bench.runs.launchers.launcher import WORKER
from bench.runs.launchers.local import Local
from bench.settings.config import RunConfig

CARD = "GPU-00000000-0000-0000-0000-000000000001"
# The daemon is there while there is its file; it keeps what it was given to print to, and hears no signal but the last.
CONTROL = """#!/bin/sh
pipes=${CUDA_MPS_PIPE_DIRECTORY:-USUAL}
daemon=$pipes/nvidia-cuda-mps-control.pid
if [ "$1" = -d ]; then
    echo "begin $CUDA_MPS_PIPE_DIRECTORY $CUDA_MPS_LOG_DIRECTORY $CUDA_VISIBLE_DEVICES" >> FOLDER/calls
    [ ! -f FOLDER/fails ] || { cat FOLDER/fails; exit 1; }
    sleep 600 &
    echo $! > $daemon
    cp $daemon FOLDER/daemon
    exit 0
fi
read -r asked
echo "$asked" >> FOLDER/calls
[ -f $daemon ] || { echo "Cannot find MPS control daemon process"; exit 1; }
case $asked in
    get_server_list) cat $pipes/servers 2>/dev/null || true ;;
    quit) [ ! -f FOLDER/deaf ] || exec sleep 20; kill -9 $(cat $daemon); rm $daemon ;;
esac
"""
PROBE = """
import os, pathlib, sys
folder = pathlib.Path("FOLDER")
pipes = pathlib.Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or "USUAL")
if (folder / "no card").exists():
    sys.exit("cuInit: no CUDA-capable device is detected (CUDA error 100)")
served = (pipes / "nvidia-cuda-mps-control.pid").exists() and not (folder / "unserved").exists()
if served:
    (pipes / "servers").write_text("4242")
print("CARD", "unknown" if (folder / "old driver").exists() else "yes" if served else "no")
"""


class Service:
    """Stand-ins in a folder, where files say how they behave."""

    def __init__(self, folder):
        self.folder, self.usual = folder, folder / "usual"

    def write(self):
        for name, text in (("nvidia-cuda-mps-control", CONTROL), ("probe.py", PROBE)):
            for word, place in (("FOLDER", self.folder), ("USUAL", self.usual), ("CARD", CARD)):
                text = text.replace(word, str(place))
            path = self.folder / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)

    def behave(self, how, text=""):
        (self.folder / how).write_text(text)

    @property
    def calls(self):
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def begun(self):
        """What each daemon of ours was begun with: folders of pipes and of logs, and the card."""
        return [call.split()[1:] for call in self.calls if call.startswith("begin")]

    @property
    def daemon(self):
        """Whether the process of the daemon is at work."""
        with contextlib.suppress(OSError):
            stat = Path("/proc", (self.folder / "daemon").read_text().strip(), "stat").read_text()
            return stat.rpartition(")")[2].split()[0] not in "ZX"
        return False

    def lose(self):
        """The daemon of this command dies."""
        os.kill(int((self.folder / "daemon").read_text()), signal.SIGKILL)
        Path(self.begun[0][0], "nvidia-cuda-mps-control.pid").unlink()

    def exist(self, folder):
        """Somebody else's daemon is there."""
        folder.mkdir()
        (folder / "nvidia-cuda-mps-control.pid").write_text("1")


@pytest.fixture
def service(tmp_path, monkeypatch):
    made = Service(tmp_path)
    made.write()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setattr(mps, "PROBE", tmp_path / "bin" / "probe.py")
    for name in (mps.PIPES, mps.LOGS, mps.VISIBLE):
        monkeypatch.delenv(name, raising=False)
    yield made
    if made.daemon:
        os.kill(int((tmp_path / "daemon").read_text()), signal.SIGKILL)


class Runs:
    """Starts runs by the launcher of this machine, and keeps what their processes would have got."""

    def __init__(self, monkeypatch, folder, jobs):
        self.said, self.folder, self.got = [], folder, []
        monkeypatch.setattr(local, "start_process", self._take)
        self.launcher = Local(jobs)
        self.launcher.open(self.said.append, folder, ())

    def _take(self, signals, module, argument, files, environment):
        self.got.append((json.loads(argument)["sharing"], dict(environment)))

    def start(self, device="cuda"):
        job = Job(RunConfig(algo="a", device=device), self.folder, self.folder, (), "", "", 0.0)
        self.launcher.start(None, WORKER, job, ())
        return self.got[-1]


@pytest.fixture
def runs(service, monkeypatch, tmp_path):
    made = []

    def make(jobs=2):
        made.append(Runs(monkeypatch, tmp_path, jobs))
        return made[-1]

    yield make
    for one in made:
        one.launcher.close()


def test_runs_on_one_card_share_it_by_a_service_of_their_own_which_ends_with_the_command(service, runs, caplog):
    mine = runs(jobs=3)
    mine.launcher.prepare(on_gpu=True)
    assert mine.said == ["runs share the card through CUDA's multi-process service (mps)"]
    sharing, environment = mine.start()
    assert (sharing, mine.start()) == ("mps", ("mps", environment))
    folder = Path(environment[mps.PIPES])
    assert environment == {mps.PIPES: str(folder), mps.LOGS: str(folder), mps.VISIBLE: CARD}
    assert len(str(folder)) < 60, "sockets are made in it"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert service.begun == [[str(folder), str(folder), CARD]], "once, for the same card alone"
    assert service.daemon
    mine.launcher.close()
    assert service.calls.count("quit") == 1
    until(lambda: not service.daemon)
    assert not folder.exists()
    assert not caplog.records
    assert mine.said == mine.said[:1]


@pytest.mark.parametrize(("jobs", "device"), [(1, "cuda"), (2, "cpu")])
def test_a_run_that_shares_no_card_gets_nothing_and_begins_nothing(jobs, device, service, runs):
    mine = runs(jobs)
    mine.launcher.prepare(on_gpu=device == "cuda")
    assert mine.start(device) == ("", {})
    mine.launcher.close()
    assert service.calls == mine.said == []


def test_runs_that_nobody_has_prepared_for_find_the_service_too(service, runs):
    sharing, environment = runs().start()
    assert (sharing, environment[mps.VISIBLE]) == ("mps", CARD)


def test_a_driver_too_old_to_say_who_serves_a_process_is_told_by_the_service(service, runs):
    service.behave("old driver")
    assert runs().start()[0] == "mps"


def test_a_part_of_a_card_stays_the_one_that_the_user_has_named(service, runs, monkeypatch):
    monkeypatch.setenv(mps.VISIBLE, "MIG-1234,MIG-5678")
    assert runs().start()[1][mps.VISIBLE] == "MIG-1234"
    monkeypatch.setenv(mps.VISIBLE, "3,1")
    assert runs().start()[1][mps.VISIBLE] == CARD


NOT_THERE = "nvidia-cuda-mps-control, which comes with NVIDIA's driver, is not installed"
REFUSED = [
    ("missing", "", NOT_THERE),
    ("fails", "Failed to start:\nno permission\n", "nvidia-cuda-mps-control: Failed to start: no permission"),
    ("fails", "", "nvidia-cuda-mps-control: status 1"),
    ("unserved", "", "nvidia-cuda-mps-control answers, but a process opens the card without it"),
    ("no card", "", "opening the card: cuInit: no CUDA-capable device is detected (CUDA error 100)"),
]


@pytest.mark.parametrize(("how", "text", "why"), REFUSED, ids=[f"{how} {bool(text)}" for how, text, _ in REFUSED])
def test_where_no_service_can_be_had_one_line_says_why_and_runs_take_turns(
    how, text, why, service, runs, monkeypatch, caplog
):
    if how == "missing":
        (service.folder / "bin" / "nvidia-cuda-mps-control").unlink()
    else:
        service.behave(how, text)
    room = service.folder / "room"
    room.mkdir()
    monkeypatch.setattr(mps, "_ROOM", room)
    mine = runs()
    mine.launcher.prepare(on_gpu=True)
    assert [mine.start(), mine.start()] == [(f"time-slicing ({why})", {})] * 2
    assert [record.getMessage() for record in caplog.records] == [f"runs take turns on the card (time-slicing): {why}"]
    assert caplog.records[0].levelname == "WARNING"
    assert not mine.said
    until(lambda: not service.daemon)
    assert not list(room.iterdir()), "nothing is left"


def test_a_service_that_never_answers_is_given_up(service, runs, monkeypatch, caplog):
    monkeypatch.setattr(mps, "ANSWER_S", 0.5)
    path = service.folder / "bin" / "nvidia-cuda-mps-control"
    path.write_text(path.read_text().replace("get_server_list)", "get_server_list) sleep 20;"))
    monkeypatch.setattr(mps, "LEAVE_S", 5.0)
    assert runs().start()[0] == "time-slicing (nvidia-cuda-mps-control: no answer within 0.5 s)"
    until(lambda: not service.daemon)


def test_a_service_that_dies_leaves_later_runs_to_take_turns_and_is_said_once(service, runs, caplog):
    mine = runs()
    assert mine.start()[0] == "mps"
    service.lose()
    why = "nvidia-cuda-mps-control: Cannot find MPS control daemon process"
    assert [mine.start(), mine.start()] == [(f"time-slicing ({why})", {})] * 2
    assert [record.getMessage() for record in caplog.records] == [f"runs take turns on the card (time-slicing): {why}"]
    assert len(service.begun) == 1


@pytest.mark.parametrize("named", [True, False])
def test_a_service_of_somebody_else_is_used_and_left_alone(named, service, runs, monkeypatch):
    folder = service.folder / "theirs" if named else service.usual
    service.exist(folder)
    if named:
        monkeypatch.setenv(mps.PIPES, str(folder))
    mine = runs()
    assert [mine.start(), mine.start()] == [("mps", {})] * 2
    mine.launcher.close()
    assert set(service.calls) == {"get_server_list"}
    assert (folder / "nvidia-cuda-mps-control.pid").exists()


def test_a_service_that_hears_no_end_is_killed_with_a_line(service, runs, monkeypatch, caplog):
    monkeypatch.setattr(mps, "LEAVE_S", 0.5)
    mine = runs()
    folder = Path(mine.start()[1][mps.PIPES])
    service.behave("deaf")
    mine.launcher.close()
    until(lambda: not service.daemon)
    assert not folder.exists()
    assert [r.getMessage() for r in caplog.records] == [f"{mps.CONTROL} does not end when told so, and is killed"]


@pytest.mark.parametrize("end", ["return", "raise", "SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_however_a_command_ends_its_service_ends_too(end, service, monkeypatch, tmp_path):
    def comparison(args, place, console):
        place.runs_by.prepare(on_gpu=True)
        (tmp_path / "ready").touch()
        if end == "raise":
            raise RuntimeError("as asked")
        while end.startswith("SIG"):
            time.sleep(0.05)
        raise SystemExit(0)

    def work():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        return command.main(["--jobs", "2", "--out", str(tmp_path / "out")])

    monkeypatch.setattr(command, "comparison", comparison)
    process = Forked(work, tmp_path / "said")
    until(lambda: (tmp_path / "ready").exists())
    folder = Path(service.begun[0][0])
    if end.startswith("SIG"):
        assert service.daemon
        os.killpg(process.pid, getattr(signal, end))
    code = process.wait(60)
    assert code == {"return": 0, "raise": 70, "SIGKILL": -signal.SIGKILL}.get(end, 130)
    until(lambda: not service.daemon and not folder.exists())  # at once, but for SIGKILL
    assert service.calls.count("quit") == 1


def test_a_signal_to_all_processes_reaches_neither_the_service_nor_who_ends_it(service, runs):
    """As systemd and Slurm send it: runs that are saving need the card."""
    mine = runs()
    mine.start()
    for pid in (int((service.folder / "daemon").read_text()), mine.launcher._card._keeper.pid):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    time.sleep(0.1)
    assert service.daemon
    mine.launcher.close()
    until(lambda: not service.daemon)


@pytest.mark.parametrize(("devices", "on_gpu"), [(("cpu", "cuda"), True), (("cpu", "cpu"), False)])
def test_the_command_prepares_for_a_card_where_a_run_is_on_one(devices, on_gpu):
    asked = []
    launcher = SimpleNamespace(here=False, prepare=asked.append)
    console = SimpleNamespace(say=lambda line: None, doing=lambda line: contextlib.nullcontext())
    configs = [RunConfig(algo="a", device=device) for device in devices]
    compare.get_ready(configs, SimpleNamespace(runs_by=launcher, jobs=2), console, None)
    assert asked == [on_gpu]


class Driver:
    """Stands in for libcuda: each function returns 0, or what ``codes`` has for it."""

    def __init__(self, served=1, **codes):
        self.served, self.codes, self.called = served, codes, []

    def __getattr__(self, name):
        def function(*arguments):
            self.called.append(name)
            if name == "cuDeviceGetUuid_v2":
                ctypes.memmove(arguments[0], bytes(range(16)), 16)
            if name == "cuDeviceGetAttribute":
                assert arguments[1] == 133
                arguments[0]._obj.value = self.served
            if name == "cuGetErrorString":
                arguments[1]._obj.value = b"the driver's words"
            return self.codes.get(name, 0)

        return function


def test_the_probe_names_the_card_as_nvidia_smi_does_once_it_has_opened_it():
    cuda = Driver()
    assert probe.opened(cuda) == ("GPU-00010203-0405-0607-0809-0a0b0c0d0e0f", "yes")
    assert "cuDevicePrimaryCtxRetain" in cuda.called
    assert probe.opened(Driver(served=0))[1] == "no"
    assert probe.opened(Driver(cuDeviceGetAttribute=1))[1] == "unknown", "an old driver knows no such attribute"


def test_a_card_that_cannot_be_opened_is_told_in_the_drivers_words():
    with pytest.raises(OSError, match=r"cuInit: the driver's words \(CUDA error 805\)"):
        probe.opened(Driver(cuInit=805))


def test_without_a_driver_the_probe_is_one_line(monkeypatch):
    if shutil.which("nvidia-smi"):
        pytest.skip("there is a driver")
    with pytest.raises(OSError, match=r"opening the card: libcuda\.so\.1: cannot open"):
        mps._opened({})
