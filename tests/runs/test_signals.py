"""Signals are handed on to all workers, each once, however they come, and runs answer the first and the second."""

import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from bench.runs import signals
from bench.runs.signals import INTERRUPTED, Interrupted, Stop, forwarding_signals
from bench.system.start import STOPPING


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


@pytest.fixture
def stop(monkeypatch):
    """A run's own answer to signals, with a clock that a test turns, and an end that a test survives."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    made = Stop()
    monkeypatch.setattr(signals, "time", SimpleNamespace(monotonic=lambda: made.now))
    monkeypatch.setattr(os, "_exit", lambda code: made.ended.append(code))
    made.now, made.ended = 50.0, []
    yield made
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("numbers", "apart", "ended"),
    [
        ((signal.SIGTERM, signal.SIGTERM), 0.2, []),  # sent to all processes, and handed on by the command
        ((signal.SIGTERM, signal.SIGTERM), 3.0, [INTERRUPTED]),
        ((signal.SIGINT, signal.SIGTERM), 3.0, [INTERRUPTED]),
        ((signal.SIGUSR1, signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM), 3.0, []),
    ],
)
def test_a_second_urgent_signal_ends_a_run_unless_it_comes_with_the_first(stop, numbers, apart, ended):
    for number in numbers:
        os.kill(os.getpid(), number)
        stop.now += apart
    assert stop.ended == ended
    with pytest.raises(Interrupted):
        stop.check()
