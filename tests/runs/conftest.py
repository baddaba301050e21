"""Comparisons in a folder of their own."""

import pytest
from comparisons import Comparison, start_fake


@pytest.fixture
def compare(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.runs.launchers.local.start_process", start_fake)
    monkeypatch.setattr("bench.runs.runner.LOOK_S", 0.05)
    return Comparison(tmp_path)
