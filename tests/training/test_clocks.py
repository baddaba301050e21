"""Clocks on the host, and how far a card may run behind it."""

import pytest
import torch
from trainings import CPU

from bench.training.clocks import AHEAD, StepTimes, now


def test_clock_is_monotonic():
    assert now(CPU) <= now(CPU)


def test_step_times_are_the_gaps_between_marks(monkeypatch):
    clock = iter([1.0, 1.5, 1.75, 9.0, 9.1])
    monkeypatch.setattr("bench.training.clocks.time.perf_counter", lambda: next(clock))
    times = StepTimes(CPU)
    for _ in range(3):
        times.mark()
    times.close()
    times.mark()
    times.mark()
    times.close()
    assert times.ms == pytest.approx([500, 250, 100])  # the gap between segments is nobody's step


class FakeEvent:
    waited: list[int] = []  # noqa: RUF012

    def __init__(self, enable_timing):
        self.number = None

    def record(self):
        FakeEvent.recorded = getattr(FakeEvent, "recorded", -1) + 1
        self.number = FakeEvent.recorded

    def synchronize(self):
        FakeEvent.waited.append((FakeEvent.recorded, self.number))

    def elapsed_time(self, other):
        return float(other.number - self.number)


def test_the_host_runs_only_so_far_ahead_of_a_card(monkeypatch):
    monkeypatch.setattr("torch.cuda.Event", FakeEvent)
    times = StepTimes(torch.device("cuda"))
    for _ in range(AHEAD + 3):
        times.mark()
    times.close()
    assert {recorded - waited for recorded, waited in FakeEvent.waited} == {AHEAD - 1}
    assert times.ms == [1.0] * (AHEAD + 2)
