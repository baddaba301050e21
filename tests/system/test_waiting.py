"""How threads wait: for as long as others want the cores, and in no way that a result could show."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from places import REPOSITORY

from bench.system import waiting
from bench.system.load import cores
from bench.system.waiting import Waiting, crowded

CHOSEN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

if waiting._libgomp() is None:
    pytest.skip("torch has another OpenMP here", allow_module_level=True)


@pytest.fixture
def machine(monkeypatch):
    """Others that use what a test says, and a clock that a test turns."""
    state = SimpleNamespace(load=0.0, now=100.0)
    for name in CHOSEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(waiting, "Others", lambda: state)
    monkeypatch.setattr(waiting.time, "monotonic", lambda: state.now)
    return state


def held():
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208  # a number is wanted


def test_threads_sleep_while_others_want_the_cores_and_not_after(machine):
    before, threads = held(), Waiting(max(2, cores()))
    for load, later, asleep in (
        (2.0, 0.1, False),
        (2.0, 1.0, True),
        (0.0, 0.5, True),
        (0.0, 1.0, False),
        (2.0, 1.0, True),
    ):
        machine.load, machine.now = load, machine.now + later
        threads.look()
        assert threads.asleep == asleep, "it looks once a second"
        assert (held() > cores()) >= asleep
    threads.close()
    for _ in range(200):  # libgomp's threads leave a little after theirs
        if held() <= before:
            return
        time.sleep(0.05)
    pytest.fail(f"{held()} threads, {before} before")


def test_a_first_look_need_not_wait(machine):
    """A set-up may be over sooner, and on a busy machine a warm-up of threads that spin takes seconds."""
    threads = Waiting(max(2, cores()))
    machine.load, machine.now = 2.0, machine.now + 0.05
    threads.look()
    assert not threads.asleep
    threads.look(now=True)
    assert threads.asleep
    threads.close()


@pytest.mark.parametrize(("name", "threads"), [*((name, 2) for name in CHOSEN), ("BENCH_NOTHING", 1)])
def test_what_the_user_has_set_stays_and_one_thread_waits_for_nobody(name, threads, machine, monkeypatch):
    monkeypatch.setenv(name, "1")
    machine.load = 99.0
    one = Waiting(threads)
    machine.now += 5
    one.look()
    assert not one.asleep


def test_a_machine_is_crowded_where_others_leave_fewer_cores_than_threads(monkeypatch):
    monkeypatch.setattr(waiting, "cores", lambda: 4)
    assert [crowded(load, 2) for load in (0.0, 2.2, 2.3)] == [False, False, True]
    assert [crowded(load, 9) for load in (0.2, 0.3)] == [False, True], "more threads than cores want all cores"
    assert not crowded(None, 4)


BURN = """
import os, time
import torch
from bench.system import waiting
torch.set_num_threads(2)
x = torch.zeros(200_000)
def burnt():
    before = time.process_time()
    for _ in range(40):
        x.add_(1)
        time.sleep(0.004)
    return time.process_time() - before
burnt()
spinning = burnt()
waiting._LEAST_S, waiting.crowded = 0.0, lambda load, threads: True
threads = waiting.Waiting(2)
threads.look()
sleeping = burnt()
threads.close()
print(spinning, sleeping, burnt(), x[0].item())
"""


def test_libgomps_threads_burn_no_core_while_they_sleep():
    """Between pieces of work: most of the time, in which they spin otherwise."""
    env = {name: value for name, value in os.environ.items() if name not in (*CHOSEN, "OMP_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", BURN], env=env, capture_output=True, text=True, cwd=REPOSITORY, timeout=120
    )
    assert done.returncode == 0, done.stderr
    spinning, sleeping, again, total = map(float, done.stdout.split())
    assert sleeping < 0.6 * min(spinning, again), (spinning, sleeping, again)
    assert total == 160


def test_results_have_the_same_bits_either_way(machine):
    """Of sums over more than a thread takes at once."""
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(300, 20_000, generator=rng)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = a.sum(), a @ a.T
        wait = Waiting(2)
        machine.load, machine.now = 99.0, machine.now + 5
        wait.look()
        assert wait.asleep
        after = a.sum(), a @ a.T
        wait.close()
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(x, y) for x, y in zip(before, after))


def test_nothing_is_done_where_the_system_gives_no_more_threads(machine, monkeypatch):
    """Libgomp would end the process."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    threads = Waiting(max(2, cores()))
    monkeypatch.setattr(waiting.threading.Thread, "start", refuse)
    machine.load, machine.now = 2.0, machine.now + 1.0
    threads.look()
    assert not threads.asleep
