"""SIGKILL at random instants, then the same command again.

    python tests/kill_runs.py FOLDER DATASET KILLS COMMANDS [SEED]

A command makes three runs, one per algorithm, and the tables. It is killed at an instant drawn at random and given
again, which may be killed too, until it ends; what is there then is held against what an unbroken one leaves: weights
and state of the optimizer, curves, test tasks and rows, to the last bit. After every kill every file is read.

COMMANDS of the KILLS hit ``python run_bench.py`` as a user starts it, drawn uniformly over its life. The others hit the
same code in processes forked from this one, which has torch imported, and whose phases are known: half of them are
drawn uniformly over the life, half uniformly over the phases, some of which take milliseconds only. Most kills end
the command and its worker together, some the command alone (the worker saves and leaves) or the worker alone.

Prints how far it is to stderr and one line of JSON with the figures at the end, and leaves with status 1 if anything
was lost, torn or different.
"""

import collections
import contextlib
import csv
import ctypes
import functools
import json
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from xml.etree import ElementTree

from forked import Forked, fork_worker
from pictures import small
from places import PLUGINS, REPOSITORY

sys.path.insert(0, str(REPOSITORY))

import numpy as np
import torch
import torch._dynamo  # torch.optim imports it at its first use, which takes longer than a run here
from PIL import Image

import bench.cli.command
import bench.report.write
import bench.runs.launchers.local
import bench.runs.outcome
import bench.runs.runner
import bench.runs.worker
import bench.training.checkpoint
import bench.training.train
import run_bench
from bench.records.run import load_run
from bench.registry import ALGORITHMS, BACKBONES, DATASETS
from bench.training.checkpoint import read_checkpoint, seal

ALGOS = ("reptile", "fomaml", "maml")
ARGS = [
    *("--algos", ",".join(ALGOS), "--device", "cpu", "--threads", "1", "--set", "filters=4"),
    *("--plugin", str(PLUGINS / "often.py"), "--plugin", str(PLUGINS / "toy_data.py")),
    *("--meta-steps", "16", "--meta-batch", "2", "--k-query", "3", "--val-points", "2", "--val-tasks", "4"),
    *("--test-tasks", "10", "--adaptation-tasks", "2"),
]
PHASES = ("set-up", "training", "checkpoint", "validation", "evaluation", "record", "tables")
SET_UP = PHASES.index("set-up")
ALL, COMMAND, WORKER = "all", "command alone", "worker alone"
COLD = 25  # every so many-th trial has to draw glyphs anew; the others find the cache of the first command
ENDS = {".md": "\n", ".tex": "\\end{tabular}\n", ".html": "</html>"}
LIMIT_S = 600  # for one attempt; reached only if something hangs

# Columns that measure this machine at this time, or say how often a run was begun; all others must be equal.
MEASURED = {
    *("train_s", "eval_s", "setup_s", "step_ms_median", "step_ms_p95", "tasks_per_s", "peak_mem_mib", "adapt_ms"),
    *("peak_mem_reserved_mib", "beside", "load", "resumed", "started_at"),
}


class Board:
    """Memory that forked processes share: which phase is under way, how often and how long each was."""

    ENTRY = struct.Struct("=qd")  # how often it was entered, seconds in it

    def __init__(self):
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def clear(self):
        self._memory[: mmap.PAGESIZE] = bytes(mmap.PAGESIZE)

    @property
    def phase(self):
        return self._memory[0]

    @phase.setter
    def phase(self, number):
        self._memory[0] = number

    def entry(self, number):
        return self.ENTRY.unpack_from(self._memory, 16 + number * self.ENTRY.size)

    def note(self, number, entered, seconds):
        count, total = self.entry(number)
        self.ENTRY.pack_into(self._memory, 16 + number * self.ENTRY.size, count + entered, total + seconds)

    def during(self, phase, function):
        """Return ``function``, which says on the board that ``phase`` is under way."""
        number = PHASES.index(phase)

        @functools.wraps(function)
        def noted(*args, **kwargs):
            before, self.phase = self.phase, number
            self.note(number, 1, 0.0)
            began = time.monotonic()
            try:
                return function(*args, **kwargs)
            finally:
                self.note(number, 0, time.monotonic() - began)
                self.phase = before

        return noted


def prepare(board):
    """Have everything imported, and every phase note itself; only forked processes run any of it."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: workers whose parent was killed become ours
    torch.set_num_threads(1)
    for kinds in (ALGORITHMS, BACKBONES, DATASETS):
        kinds.names()
    bench.runs.launchers.local.start_process, bench.runs.launchers.local.prepare = fork_worker, lambda: None
    bench.training.train.Training._segment = board.during("training", bench.training.train.Training._segment)
    bench.training.train.Training._validate = board.during("validation", bench.training.train.Training._validate)
    bench.training.checkpoint.write_checkpoint = board.during("checkpoint", bench.training.checkpoint.write_checkpoint)
    bench.runs.worker.evaluate = board.during("evaluation", bench.runs.worker.evaluate)
    bench.runs.outcome.write_run = board.during("record", bench.runs.outcome.write_run)
    bench.report.write.put = board.during("tables", bench.report.write.put)


class Killing:
    """Attempts at one command, killed or not, and what is found afterwards."""

    def __init__(self, folder, dataset, seed, drawn):
        self.folder, self.random, self.board = folder, random.Random(seed), Board()
        self.args = [*ARGS, "--dataset", dataset, "--data-root", str(folder / "data")]
        self.counts = {name: collections.Counter() for name in ("phases", "kinds", "how")}
        self.problems, self.torn, self.lost, self.differing = [], 0, 0, 0
        self.killed = self.trials = self.files = 0
        folder.mkdir(parents=True, exist_ok=True)
        prepare(self.board)
        if not drawn:  # which takes longer than all else
            bench.report.drawing.pictures.files_of = small

    def start(self, out, real):
        """Start the command, as a user would or forked."""
        argv = [*self.args, "--out", str(out)]
        self.board.clear()
        if not real:
            return Forked(lambda: run_bench.main(argv), self.folder / "log")
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, str(REPOSITORY / "run_bench.py"), *argv]
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def unbroken(self, name, real):
        """Run the command to its end and return its folder, what it took, and the phases' counts and seconds."""
        if name != "unbroken":
            self.warm(self.folder / name)
        began = time.monotonic()
        status = self.start(self.folder / name, real).wait(LIMIT_S)
        if status:
            raise SystemExit(f"an unbroken command left with status {status}: see {self.folder / 'log'}")
        return self.folder / name, time.monotonic() - began, [self.board.entry(i) for i in range(len(PHASES))]

    def warm(self, out):
        """Give a folder that is not there yet the prepared images of the first command."""
        if (cache := self.folder / "unbroken" / "cache").exists():
            shutil.copytree(cache, out / "cache")

    def attempt(self, out, real, life_s, phases):
        """Start the command and kill it at a random instant; True if it ended before."""
        how = self.random.choices([ALL, COMMAND, WORKER], [70, 15, 15])[0]
        process, began = self.start(out, real), time.time()
        if real or self.random.random() < 0.5:
            instant = time.monotonic() + self.random.uniform(0, life_s)
            kind = "command line, over its life" if real else "forked, over its life"
            due = lambda: time.monotonic() >= instant  # noqa: E731
        else:
            number = self.random.choice([i for i, (count, _) in enumerate(phases) if count])
            count, seconds = phases[number]
            nth, delay = self.random.randint(1, count), self.random.uniform(0, seconds / count)
            seen = []
            kind = "forked, over the phases"

            def due():
                if not seen and self.board.entry(number)[0] >= nth:
                    seen.append(time.monotonic())
                return seen and time.monotonic() >= seen[0] + delay

        limit = time.monotonic() + LIMIT_S
        while process.poll() is None and not due():
            if time.monotonic() > limit:
                self.problem("lost", f"{out}: hangs")
                break
            time.sleep(0.0003)
        phase = PHASES[self.board.phase] if not real else held_phase(out, began)
        if process.returncode is None:
            how = kill(process.pid, how)
        status = process.wait(LIMIT_S)
        if how != COMMAND:
            reap()
        if (how == WORKER and status == 1) or status == -signal.SIGKILL:
            self.killed += 1
            for name, value in (("phases", phase), ("kinds", kind), ("how", how)):
                self.counts[name][value] += 1
        elif status:
            self.problem("lost", f"{out}: left with status {status}")
        return status == 0

    def problem(self, kind, text):
        setattr(self, kind, getattr(self, kind) + 1)
        self.problems.append(text)

    def look(self, out, finished):
        """Read every file as a result is read; ``finished`` keeps the bytes of records of runs that have ended well."""
        for path in sorted(out.rglob("*")):
            if path.is_dir() or (path.name.startswith(".") and path.name.endswith(".tmp")):
                continue
            self.files += 1
            try:
                read(path)
            except FileNotFoundError:  # an orphan at work has cleared away its own
                pass
            except Exception as error:  # whatever reading a torn file raises
                self.problem("torn", f"{path}: {error!r}")
        for path in out.glob("runs/*/run.json"):
            if load_run(path.parent).ok:
                finished.setdefault(path, path.read_bytes())
        for path, content in finished.items():
            if not path.exists() or path.read_bytes() != content:
                self.problem("lost", f"{path}: was finished and is not what it was")

    def compare(self, out, expected):
        """Hold what a command has left against what an unbroken one left."""
        found = outcome(out)
        if missing := set(expected) - set(found):
            self.problem("lost", f"{out}: lacks {sorted(missing)}")
        for name in set(expected) & set(found):
            for part, value in expected[name].items():
                if found[name][part] != value:
                    self.problem("differing", f"{out}: {part} of {name} is {found[name][part]!r}, not {value!r}"[:600])
        with (out / "summary.csv").open(newline="") as file:
            rows = [row["run_id"] for row in csv.DictReader(file)]
        if sorted(rows) != sorted(expected):
            self.problem("lost", f"{out}: summary.csv has {rows}")

    def trial(self, number, real, expected, life_s, phases, kills):
        """Kill the command until it ends, or until ``kills`` are there; then let it end, and compare."""
        out, finished = self.folder / f"trial{number}", {}
        self.trials += 1
        if number % COLD != COLD - 1:
            self.warm(out)
        ended = False
        while not ended and self.killed < kills:
            ended = self.attempt(out, real, life_s, phases)
            self.look(out, finished)
        while not ended:
            status = self.start(out, real).wait(LIMIT_S)
            ended = status == 0
            if status:
                self.problem("lost", f"{out}: the last command left with status {status}")
                break
        reap()
        self.look(out, finished)
        if ended:
            self.compare(out, expected)
        if not self.problems:
            shutil.rmtree(out)
        print(
            f"{self.killed} kills, {self.trials} commands, {dict(self.counts['phases'])}", file=sys.stderr, flush=True
        )


def kill(command, how):
    """SIGKILL a command and its worker, or one of the two; the command stands still meanwhile. Returns what was hit."""
    os.kill(command, signal.SIGSTOP)
    below = list(descendants(command))
    workers = [pid for pid in below if os.getsid(pid) == pid]  # the others fork them
    if how == WORKER and not workers:
        how = ALL
    for pid in {ALL: below, WORKER: workers, COMMAND: []}[how]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if how != WORKER:
        os.kill(command, signal.SIGKILL)
    os.kill(command, signal.SIGCONT)
    return how


def descendants(pid):
    """Yield the processes that one has begun, and theirs."""
    with contextlib.suppress(FileNotFoundError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            yield child
            yield from descendants(child)


def reap():
    """Wait until every process of an attempt is gone."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def held_phase(out, began):
    """Say what a command as a user starts it was at, from what its folder holds; ``began`` is when it was started."""
    runs = {path.parent: load_run(path.parent) for path in out.glob("runs/*/run.json")}
    if sum(run.ok for run in runs.values()) == len(ALGOS):
        return "tables"
    for folder in out.glob("runs/*"):
        if folder in runs and runs[folder].ok:
            continue
        if list(folder.glob(".checkpoint*.tmp")):
            return "checkpoint"
        if list(folder.glob("*.csv")) and folder not in runs:
            return "record"
        with contextlib.suppress(OSError):
            if (folder / "checkpoint.pt").stat().st_mtime > began:
                steps = read_checkpoint(folder / "checkpoint.pt")["counters"]["meta_step"]
                return "evaluation" if steps == int(ARGS[ARGS.index("--meta-steps") + 1]) else "training"
    return "set-up"


def read(path):
    """Read a file as what it says it is; whatever is not whole raises something."""
    if path.name == "run.json":
        load_run(path.parent)
    elif path.suffix == ".json":
        json.loads(path.read_bytes())
    elif path.suffix == ".csv":
        text = path.read_text()
        lines = list(csv.reader(text.splitlines(), strict=True))
        if not text.endswith("\n") or len({len(line) for line in lines}) != 1:
            raise ValueError("lines of different lengths, or none")
    elif path.suffix == ".npz":
        with np.load(path) as fields:
            [fields[name] for name in fields]
    elif path.name == "weights.pt":
        torch.load(path, weights_only=True)
    elif path.suffix == ".pt":
        read_checkpoint(path)
    elif path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
    elif path.suffix == ".toml":
        tomllib.loads(path.read_text())
    elif path.suffix == ".svg":
        ElementTree.parse(path)
    elif path.suffix in (".md", ".tex", ".html"):
        if not path.read_text().endswith(ENDS[path.suffix]):
            raise ValueError("cut short")
    elif path.suffix != ".lock":
        raise ValueError("nobody knows what this is")


def outcome(out):
    """Return of every finished run what must not depend on how it came about."""
    found = {}
    for path in sorted(out.glob("runs/*/run.json")):
        run = load_run(path.parent)
        state = read_checkpoint(path.parent / "checkpoint.pt")
        kept = ("meta_step", "chunk", "oom_retries", "losses")
        curve = [{**vars(point), "train_s": None} for point in run.curve]
        found[run.row.run_id] = {
            "row": {name: value for name, value in vars(run.row).items() if name not in MEASURED},
            "weights": seal(state["slow"]),
            "carry": seal(state["carry"]),
            "optimizer": seal(state["optimizer"]),
            "counters": seal({name: state["counters"][name] for name in kept}),
            "steps": len(state["counters"]["step_ms"]),
            "curve": curve,
            "test tasks": (path.parent / "test_tasks.csv").read_bytes(),
            "adaptation": (path.parent / "adaptation.csv").read_bytes(),
            "files": sorted(p.name for p in path.parent.iterdir()),
        }
    return found


def main(folder, dataset, kills, commands, seed=0):
    """Return 1 if anything was lost, torn or different."""
    killing = Killing(folder, dataset, seed, drawn=commands > 0)
    began = time.monotonic()
    reference, life_s, phases = killing.unbroken("unbroken", real=False)
    if (reference / "cache").exists():  # it has drawn its data, which it does once
        reference, life_s, phases = killing.unbroken("unbroken-again", real=False)
    expected = outcome(reference)
    number = 0
    while killing.killed < kills - commands and not killing.problems:
        killing.trial(number, False, expected, life_s, phases, kills - commands)
        number += 1
    if commands:
        reference, life_s, _ = killing.unbroken("unbroken-command", real=True)
        killing.compare(reference, expected)
    while killing.killed < kills and not killing.problems:
        killing.trial(number, True, expected, life_s, phases, kills)
        number += 1
    figures = {
        "kills": killing.killed,
        "commands": killing.trials,
        "files_read": killing.files,
        "lost": killing.lost,
        "torn": killing.torn,
        "differing": killing.differing,
        **{name: dict(counter) for name, counter in killing.counts.items()},
        "life_s": round(life_s, 1),
        "phase_s": {name: round(seconds, 2) for name, (_, seconds) in zip(PHASES, phases)},
        "seed": seed,
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(figures), *killing.problems, sep="\n")
    return int(bool(killing.problems))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2], *map(int, sys.argv[3:])))
