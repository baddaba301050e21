"""A command or a run in a process forked for it, of which ``commands.py`` speaks.

The server that forks it has imported all that most of them need, so that hundreds of processes do not: built-in plugins
and outputs too, but no installed plugins, which each command looks for itself.
"""

import contextlib
import importlib
import json
import os
import signal
import sys

import higher  # noqa: F401  # of what runs import
import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401
import pandas.io.formats.format  # noqa: F401
import torch
import torch._dynamo  # torch.optim imports it at its first use
from forked import fork_worker
from pictures import small

import bench.cli.command
import bench.tasks.imagecache  # noqa: F401
import run_bench
from bench.registry import BUILT_IN, load_package
from bench.report import outputs
from bench.report.drawing import pictures
from bench.runs.launchers import local
from bench.system.start import STOPPING
from bench.training import evaluate

for package in (*BUILT_IN, *outputs.PACKAGES):
    load_package(package)
with contextlib.suppress(ImportError):  # where only the tests of a card are run
    importlib.import_module("coverage")
evaluate.TIMED = 3  # of 20: nobody reads how long a run of a test takes to adapt


def main(text):
    asked = json.loads(text)
    if asked["counted"]:
        os.environ["COVERAGE_PROCESS_CONFIG"] = asked["counted"]
        coverage = importlib.import_module("coverage")
        coverage.process_startup(force=True)
    return {"command": command, "run": run}[asked["kind"]](asked)


def command(asked):
    """Be a command: its runs are forked from it, and pictures drawn only where that was asked for."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
    if asked["env"] is not None:
        os.environ.clear()
        os.environ.update(asked["env"])
        sys.path[:0] = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.chdir(asked["folder"])
    torch.set_num_threads(1)  # its runs are forked from it: a team of threads would not come along, and be waited for
    local.start_process, local.prepare = fork_worker, lambda: None
    if not asked["drawn"]:
        pictures.files_of = small
    sys.argv = ["run_bench.py", *asked["args"]]
    return run_bench.main(asked["args"])


def run(asked):
    """Be a run."""
    sys.argv = [asked["module"], asked["argument"]]
    return importlib.import_module(asked["module"]).main(asked["argument"])
