"""What waiting threads cost on a quiet and on a busy machine: ``python tests/busy_machine.py DATA_ROOT``.

OpenMP's threads wait for each other by spinning for a while, then by sleeping. Beside other work a spinning thread
holds the core that the awaited one needs. Tried are torch's default, numbers of spins (GOMP_SPINCOUNT), no spinning
(OMP_WAIT_POLICY=passive), and ``ours``: the default unless others want the cores (bench/system/waiting.py), which is
what runs do.

Each setting has a process of its own, as libgomp reads its variables when it is loaded. Rounds are interleaved: in
each, every setting is timed quiet and beside each rival, which is stopped in between. A rival trains as well, with one
thread or two, as torch waits by default. Times are means over a window, and medians over rounds.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
OURS = "BENCH_TRIAL_OURS"
WORKS = ("maml", "reptile", "evaluation")
RIVALS = {"quiet": 0, "one thread": 1, "two threads": 2}
CORES = 2
SETTLE_S = 2.2  # after which a run has seen whether others are there
TASKS = 4  # of a piece of evaluation


def setting(text: str) -> dict[str, str]:
    """Return the variables of what is tried: ``default``, ``ours``, ``passive`` or a number of spins."""
    known = {"default": {}, "ours": {OURS: "1"}, "passive": {"OMP_WAIT_POLICY": "passive"}}
    return known.get(text, {"GOMP_SPINCOUNT": text})


class Trial:
    """Work in a process of its own that is timed, or that goes on until it is stopped."""

    def __init__(self, work: str, variables: dict[str, str], root: Path, threads: int = CORES) -> None:
        sys.path.insert(0, str(REPOSITORY))
        from bench.system.start import worker_environment

        ours = {name: v for name, v in (os.environ | worker_environment()).items() if name not in WAITING}
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(root), "--work", work, "--threads", str(threads)],
            env=ours | variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.process.stdout.readline()  # it is ready: several at once would get in each other's way

    def tell(self, text: str) -> None:
        """Have it work for so many seconds."""
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def ask(self, text: str) -> float:
        """The same; return the milliseconds that one piece of work took."""
        self.tell(text)
        return float(self.process.stdout.readline())


def pieces(work: str, root: Path, threads: int):
    """Return a function that does one piece of the work: a meta-step of ``quick``, or the test of a few tasks."""
    sys.path.insert(0, str(REPOSITORY))
    from bench.registry import load_built_in
    from bench.runs.job import Job
    from bench.runs.outcome import Outcome
    from bench.runs.worker import set_up
    from bench.settings.protocols import load_protocol, resolve
    from bench.training.evaluate import evaluate

    load_built_in()
    algo = "fomaml" if work == "evaluation" else work
    same = {"dataset": "glyphs", "n_way": 5, "k_shot": 1, "seed": 0, "device": "cpu", "threads": threads}
    config = resolve(load_protocol("quick"), {"algo": algo, **same}, {}, [])
    training, streams = set_up(Job(config, root, root, (), "", "", 0.0), Outcome(), root / "no checkpoint")
    if work == "evaluation":
        args = (
            training.algorithm,
            training.task_loss,
            training.progress.slow,
            training.progress.carry,
            streams["meta_test"],
        )
        return lambda: evaluate(*args, TASKS, config.eval_inner_steps)

    def step() -> None:
        training.step.hold(training.progress.meta_step)
        training.step.apply(training.step.estimate())
        training.progress.meta_step += 1

    return step


def work(name: str, root: Path, threads: int) -> None:
    """Be a trial: for each line read, work for so many seconds and say what a piece took."""
    do = pieces(name, root, threads)
    from bench.system.waiting import Waiting

    waiting = Waiting(threads if OURS in os.environ else 1)
    do()
    print(flush=True)
    for line in sys.stdin:
        began, done = time.perf_counter(), 0
        while not done or time.perf_counter() < began + float(line):
            do()
            waiting.look()
            done += 1
        print(1000 * (time.perf_counter() - began) / done, flush=True)


def main() -> None:
    """Print a table: milliseconds by work, setting and rival, and their ratios to the default's quiet time."""
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("root", type=Path, metavar="DATA_ROOT", help="where glyphs are prepared, or can be")
    p.add_argument("--settings", default="default,300,3000,10000,30000,100000,passive,ours")
    p.add_argument("--works", default=",".join(WORKS))
    p.add_argument("--rivals", default=",".join(RIVALS))
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=1.5, help="of each window")
    p.add_argument("--limit", type=float, default=1e9, metavar="SECONDS", help="begin no round after them")
    p.add_argument("--work", help=argparse.SUPPRESS)
    p.add_argument("--threads", type=int, default=CORES, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.work:
        work(a.work, a.root, a.threads)
        return
    settings, works, names = a.settings.split(","), a.works.split(","), a.rivals.split(",")
    rivals = {name: Trial("maml", {}, a.root, RIVALS[name]) for name in names if RIVALS[name]}
    trials = {(w, s): Trial(w, setting(s), a.root) for w in works for s in settings}
    for rival in rivals.values():
        rival.process.send_signal(signal.SIGSTOP)
        rival.tell("1e9")
    began, rounds = time.monotonic(), 0
    took: dict[tuple[str, str, str], list[float]] = {}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while rounds < a.rounds and time.monotonic() < began + a.limit:
            measure(trials, rivals, names, a.seconds, took)
            rounds += 1
    except KeyboardInterrupt:
        print("interrupted")
    finally:
        for process in [t.process for t in (*trials.values(), *rivals.values())]:
            process.kill()
        show(took, rounds)


def measure(
    trials: dict[tuple[str, str], Trial], rivals: dict[str, Trial], names: list[str], seconds: float, took: dict
) -> None:
    """Do a round: time every trial quiet, and beside each rival."""
    for name in names:
        if rival := rivals.get(name):
            rival.process.send_signal(signal.SIGCONT)
        for (work, tried), trial in trials.items():
            if tried == "ours":
                trial.ask(str(SETTLE_S))
            took.setdefault((work, tried, name), []).append(trial.ask(str(seconds)))
        if rival:
            rival.process.send_signal(signal.SIGSTOP)


def show(took: dict[tuple[str, str, str], list[float]], rounds: int) -> None:
    """Print medians, and their ratios to the first setting's first column."""
    found = {key: statistics.median(values) for key, values in took.items()}
    print(f"{rounds} rounds")
    for work in dict.fromkeys(key[0] for key in found):
        tried, names = ([*dict.fromkeys(key[i] for key in found if key[0] == work)] for i in (1, 2))
        print(f"\n{work:22}" + "".join(f"{name:>22}" for name in names))
        for one in tried:
            values = [found.get((work, one, name), float("nan")) for name in names]
            cells = (f"{value:8.1f} ms{value / found[work, tried[0], names[0]]:7.2f}" for value in values)
            print(f"  {one:20}" + "".join(f"{cell:>22}" for cell in cells))


if __name__ == "__main__":
    main()
