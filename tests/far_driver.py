"""A command on a Ray cluster whose runs are stand-ins (``far_run.py``), in a process of its own: ``main`` is forked."""

import json
import os
import signal
import sys
from pathlib import Path

from places import REPOSITORY

from bench.runs import runner
from bench.runs.launchers import node, shipping
from bench.runs.launchers.options import Options
from bench.runs.launchers.ray import Ray
from bench.runs.runner import Place, run_all
from bench.settings.config import RunConfig
from bench.system.start import STOPPING

FAR = REPOSITORY / "tests" / "far_run.py"


def configs(*algos, steps):
    return [RunConfig(algo=algo, seed=n, device="cpu", threads=1, meta_steps=steps) for n, algo in enumerate(algos)]


def grid(address, out, algos, steps, said, **options):
    """Make runs by stand-ins on a cluster, and return the exit status."""
    shipping.plugins = lambda paths: ([], {"imports/far_run.py": FAR.read_bytes()})
    runner.WORKER = "far_run"
    launcher = Ray(Options("ray", address=address, cpus=options.pop("cpus", 1), **options))
    place = Place(Path(out), Path(out), command="the command", launcher=launcher)
    try:
        launcher.open(said, place.out, place.data_roots)
        launcher.prepare()
        return run_all(configs(*algos, steps=steps), place, options.get("fresh", False), said)
    finally:
        launcher.close()


def main(text):
    asked = json.loads(text)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    log = os.open(asked.pop("log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    node.IDLE_S = asked.pop("idle_s", node.IDLE_S)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    return grid(said=print, **asked)
