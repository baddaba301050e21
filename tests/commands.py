"""Whole commands on toy data, as users give them."""

import csv
import subprocess
import sys

from places import PLUGINS, REPOSITORY

SMALL = [
    *("--plugin", str(PLUGINS / "toy_data.py"), "--dataset", "toy", "--backbone", "one-layer", "--device", "cpu"),
    *("--meta-steps", "12", "--meta-batch", "4", "--test-tasks", "60", "--val-tasks", "20", "--val-points", "3"),
]


def run_bench(*args, **kwargs):
    command = [sys.executable, str(REPOSITORY / "run_bench.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **kwargs)


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
