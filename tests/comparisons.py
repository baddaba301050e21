"""Comparisons whose workers are stand-ins that take no time to start (``fake_worker.py``)."""

import json
import subprocess
import sys
import threading
import time

from made_runs import make_row
from places import REPOSITORY

from bench.records.run import load_run
from bench.runs.runner import Place, run_all
from bench.settings.config import RunConfig
from bench.system.files import plain
from bench.system.locks import run_lock

FAKE = REPOSITORY / "tests" / "fake_worker.py"


def start_fake(signals, module, argument, files=(), environment=None):
    config = json.loads(argument)["config"]
    row = make_row(config["algo"], config["seed"], test_acc=0.5, test_acc_transductive=0.5, train_s=1.0)
    row = {**vars(row), "run_id": RunConfig(**config).run_id, "step_ms_median": 1.0}
    record = json.dumps(plain({"schema": 1, "row": row}))
    with signals.held():
        command = [sys.executable, str(FAKE), argument, record, row["run_id"]]
        worker = subprocess.Popen(command, pass_fds=files, start_new_session=True)
        signals.add(worker)
    return worker


class Comparison:
    """Runs with stand-ins for workers, in a folder of its own."""

    def __init__(self, out):
        self.out, self.said = out, []

    def __call__(self, *algos, fresh=False, **place):
        configs = [self.config(algo, n) for n, algo in enumerate(algos)]
        where = Place(self.out, self.out, command="the command", **place)
        self.said = []
        return run_all(configs, where, fresh, self.said.append)

    @staticmethod
    def config(algo, seed=0):
        return RunConfig(algo=algo, seed=seed, device="cpu", threads=1)

    def row(self, algo, seed=0):
        return load_run(self.out / "runs" / self.config(algo, seed).run_id).row

    def lock(self, algo, seed=0):
        return run_lock(self.out, self.config(algo, seed).run_id)

    @property
    def log(self):
        return (self.out / "log").read_text().splitlines()


def later(condition, action):
    """Call ``action`` in a thread once ``condition()`` holds."""

    def work():
        end = time.monotonic() + 60
        while not condition() and time.monotonic() < end:
            time.sleep(0.01)
        action()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def has_begun(compare, count):
    return lambda: (compare.out / "log").exists() and sum(line.startswith("begin") for line in compare.log) >= count


def is_waiting(compare):
    return lambda: any("waiting for" in line for line in compare.said)


def worker_of(lock):
    return lock.owner().worker
