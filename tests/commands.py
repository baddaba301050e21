"""Whole commands on toy data, as users give them, and their runs, each in a process of its own.

Most are forked from one process that has imported what they need: nothing is gained by importing torch a hundred times.
``fresh`` starts a new interpreter, as a user does. Where coverage is counted, each forked process counts for itself.
"""

import csv
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import unittest.mock
from pathlib import Path

from places import PLUGINS, REPOSITORY

from bench.system import forked
from bench.system.forked import Forked
from bench.system.start import worker_environment

SMALL = [
    *("--plugin", str(PLUGINS / "toy_data.py"), "--dataset", "toy", "--backbone", "one-layer", "--device", "cpu"),
    *("--meta-steps", "12", "--meta-batch", "4", "--test-tasks", "60", "--val-tasks", "20", "--val-points", "3"),
]
_COUNTED = "COVERAGE_PROCESS_CONFIG"
_ONE_AT_A_TIME = threading.Lock()  # the environment is the whole process's


def uncounted(**further):
    """Return an environment in which coverage is not counted, for processes that cover nothing of their own."""
    return {name: value for name, value in os.environ.items() if name != _COUNTED} | further


def run_bench(*args, cwd=None, env=None, fresh=False, drawn=False):
    """Run a command to its end; pictures are drawn where ``drawn``, else small stand-ins are written."""
    if fresh:
        command = [sys.executable, str(REPOSITORY / "run_bench.py"), *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd, env=env)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = start(*args, cwd=cwd, env=env, drawn=drawn, stdout=out.fileno(), stderr=err.fileno())
        code = process.wait(300)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(args, code, *texts)


def start(*args, cwd=None, env=None, drawn=False, stdout=None, stderr=None):
    """Start a command, forked, and return its process."""
    asked = {"args": [str(a) for a in args], "folder": str(cwd or Path.cwd()), "env": env, "drawn": drawn}
    with Path(os.devnull).open("w") as nowhere:
        files = [nowhere.fileno() if file is None else file for file in (stdout, stderr)]
        return _forked("command", asked, (), *files)


def start_run(signals, module, argument, files=(), environment=None):
    """Stands in for ``bench.runs.launchers.local.start_process`` where this process is the command."""
    with signals.held():
        process = _forked("run", {"module": module, "argument": argument}, files)
        signals.add(process)
    return process


def _forked(kind, asked, *files):
    """Return a forked process; the first call has the server begun, which counts no coverage of its own."""
    asked |= {"kind": kind, "counted": os.environ.get(_COUNTED)}
    with _ONE_AT_A_TIME, unittest.mock.patch.dict(os.environ, uncounted(), clear=True):
        prepare()
        return Forked("forked_child", json.dumps(asked), files[0], {}, *files[1:])


@functools.cache
def prepare():
    """Have all that commands and runs need imported by the process that they are forked from."""
    path = os.pathsep.join([str(REPOSITORY / "tests"), str(REPOSITORY)])
    forked.prepare(["forked_child"], worker_environment() | {"PYTHONPATH": path})


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
