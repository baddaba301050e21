"""What others use of the cores of this process."""

import os

import pytest

from bench.system import load
from bench.system.load import Others

TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Three cores, of which this process may use the first and the last."""
    monkeypatch.setattr(load, "_STAT", tmp_path / "stat")
    monkeypatch.setattr(load, "_OURS", frozenset({0, 2}))

    def show(first, last, between=10_000):
        rows = {"cpu": [sum(x) for x in zip(first, last)], "cpu0": first, "cpu1": [between] * 10, "cpu2": last}
        lines = [" ".join([name, *(str(round(n * TICKS)) for n in counts)]) for name, counts in rows.items()]
        (tmp_path / "stat").write_text("\n".join([*lines, "intr 17 3", ""]))

    return show


def test_busy_time_is_that_of_our_own_cores_without_idling_and_guests(machine):
    """Columns: user, nice, system, idle, iowait, irq, softirq, steal, and guests, who are users already."""
    machine([10, 2, 3, 500, 70, 0.5, 0.25, 4, 8, 1], [1, 0, 1, 600, 50, 0, 0.25, 0, 0.5, 0])
    assert load.busy_s() == pytest.approx(10 + 2 + 3 + 0.5 + 0.25 + 4 + 1 + 1 + 0.25)


def test_load_is_what_others_have_worked_by_the_time_that_has_passed(machine, monkeypatch):
    """In 10 s the cores work for 14, of which 8 for this process."""
    clock = {"process_time": 1.0, "monotonic": 100.0}
    for name in clock:
        monkeypatch.setattr(load.time, name, lambda name=name: clock[name])
    machine([5] + [0] * 9, [5] + [0] * 9)
    others = Others()
    machine([14] + [0] * 9, [5, 5] + [0] * 8)
    clock.update(process_time=9.0, monotonic=110.0)
    assert others.seconds() == pytest.approx((6.0, 10.0))
    assert others.load == pytest.approx(0.6)


def test_less_than_nothing_is_nothing(machine, monkeypatch):
    """The two clocks are not read at once."""
    machine([5] + [0] * 9, [5] + [0] * 9)
    others = Others()
    sum(range(200_000))
    assert others.load == 0.0


@pytest.mark.parametrize("text", [None, "", "cpu 1 2\ncpu0 x y\ncpu2 1 2\n"], ids=["no file", "empty", "no numbers"])
def test_it_is_not_known_where_the_system_does_not_say(text, tmp_path, monkeypatch):
    monkeypatch.setattr(load, "_STAT", tmp_path / "stat")
    if text is not None:
        (tmp_path / "stat").write_text(text)
    others = Others()
    assert (others.seconds(), others.load) == ((0.0, 0.0), None)
