"""The tests of a card are collected where only what a card's machine has is installed."""

import subprocess
import sys

from commands import uncounted
from places import REPOSITORY

COLLECT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("coverage", "hypothesis", "optuna", "pylatexenc", "ray", "selenium", "tensorboard"):
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
import pytest
plugins = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
sys.exit(pytest.main(["-n0", "-q", "-m", "gpu", "--collect-only", *plugins]))
"""


def test_the_tests_of_a_card_need_nothing_that_its_machine_lacks():
    done = subprocess.run(
        [sys.executable, "-c", COLLECT], cwd=REPOSITORY, env=uncounted(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_metastep.py::test_on_a_gpu_a_captured_run_is_continued" in done.stdout
