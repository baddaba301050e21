"""Runs that are killed at random instants and continued end as unbroken ones do (``kill_runs.py``)."""

import json
import subprocess
import sys

import pytest
from commands import uncounted
from places import REPOSITORY

SCRIPT = REPOSITORY / "tests" / "kill_runs.py"


def killed(folder, dataset, kills, commands, seed=0, limit_s=600):
    """The script's figures; whatever it has found to be wrong is printed."""
    command = [sys.executable, str(SCRIPT), str(folder), dataset, str(kills), str(commands), str(seed)]
    environment = uncounted(OMP_NUM_THREADS="1")
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def clean(figures):
    return {name: figures[name] for name in ("lost", "torn", "differing")} == {"lost": 0, "torn": 0, "differing": 0}


def test_killed_runs_continue_to_the_same_bits_and_leave_nothing_torn(tmp_path):
    figures = killed(tmp_path, "toy", kills=5, commands=0)
    assert clean(figures)
    assert figures["kills"] == 5


@pytest.mark.slow
def test_two_hundred_kills_over_the_whole_life_of_runs(tmp_path):
    """On glyphs, a tenth of them of command lines as a user starts them; prints the figures."""
    figures = killed(tmp_path, "glyphs", kills=200, commands=20, limit_s=4 * 3600)
    print(f"\n{json.dumps(figures)}")
    assert clean(figures)
    assert figures["kills"] == 200
    assert min(figures["phases"].values()) >= 5
    assert len(figures["phases"]) == 7
