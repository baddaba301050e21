"""What a run makes of signals: the first asks it to save, a second urgent one ends it, unless it is the same one."""

import os
import signal
from types import SimpleNamespace

import pytest

from bench.runs import signals
from bench.runs.signals import INTERRUPTED, Interrupted, Stop
from bench.system.start import STOPPING


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
