"""Runs under way on the machine are seen as long as a process holds what says so."""

import signal
import subprocess
import sys

from bench.runs import presence
from bench.runs.presence import Company, announce, name_of, under_way


def test_what_is_announced_is_seen_until_the_last_holder_is_gone():
    held = announce()
    name = name_of(held)
    assert name in under_way()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[held.fileno()])
    held.close()
    assert name in under_way()
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert name not in under_way()


def test_company_is_the_largest_number_of_others_ever_seen(monkeypatch):
    now = {"names": {"me", "a", "b"}, "s": 0.0}
    monkeypatch.setattr(presence, "under_way", lambda: now["names"])
    monkeypatch.setattr(presence.time, "monotonic", lambda: now["s"])
    company = Company("me")
    assert company.look() == 2
    now["names"] = {"me", "a", "b", "c"}
    assert company.look() == 2, "at most once a second"
    now["s"] = 1.5
    assert company.look() == 3
    now.update(s=3.0, names={"me"})
    assert company.look() == 3


def test_company_goes_on_from_earlier_parts_and_is_unknown_where_nothing_can_be_seen(monkeypatch, tmp_path):
    monkeypatch.setattr(presence, "under_way", lambda: {"me"})
    assert Company("me", earlier=4).look() == 4
    assert Company("me").look() == 0
    monkeypatch.undo()
    monkeypatch.setattr(presence, "_NAMES", tmp_path / "not-there")
    assert Company("me").look() is None
    assert Company("me", earlier=4).look() == 4
