"""Many bare processes on one folder of results: ``python tests/many_writers.py OUT PROCESSES RUNS``.

Each goes over the same made-up runs in an order of its own, locks what nobody holds and has not been finished, notes in
``begun.log`` that it begins it, records it and writes the tables; it leaves with status 1 if a run that had been
recorded before that is not in them. Of the outputs the CSV tables are written, without comparisons.
"""

import csv
import os
import random
import sys
import time
from pathlib import Path

from made_runs import make_run

from bench.analysis import results
from bench.records.run import load_run, load_runs
from bench.report import write
from bench.report.drawing import pictures
from bench.report.outputs import outputs
from bench.report.write import write_report
from bench.system.locks import run_lock

pictures.files_of, results.compare = lambda *_: {}, lambda arms: []
write.outputs = lambda: [one for one in outputs() if one.name.endswith(".csv")]


def begun(out: Path, run_id: str) -> None:
    """Note it in one write, which the system does not divide."""
    log = os.open(out / "begun.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{run_id}\n".encode())
    os.close(log)


def is_there(out: Path, run_id: str) -> bool:
    try:
        return load_run(out / "runs" / run_id).ok
    except OSError:
        return False


def work(out: Path, runs: int, place: int) -> int:
    """Return how many runs that were there are missing in the tables."""
    wanted = [(f"algo{i % 4}", i // 4) for i in range(runs)]
    left = {f"{algo}-5w1s-s{seed}": (algo, seed) for algo, seed in wanted}
    order = random.Random(place)
    missing = 0
    while left:
        for run_id in order.sample(sorted(left), len(left)):
            lock = run_lock(out, run_id)
            if is_there(out, run_id):
                del left[run_id]
            elif lock.take():
                if not is_there(out, run_id):
                    begun(out, run_id)
                    make_run(out, *left[run_id], tasks=20)
                lock.release()
        time.sleep(0.01)
    recorded = {run.row.run_id for run in load_runs(out)}
    write_report(out)
    with (out / "summary.csv").open(newline="") as file:
        rows = [row["run_id"] for row in csv.DictReader(file)]
    missing += len(recorded - set(rows)) + len(rows) - len(set(rows))
    return missing


def main(out: Path, processes: int, runs: int) -> int:
    """Return 1 if any process missed a run."""
    out.mkdir(exist_ok=True)
    children = []
    for place in range(processes):
        child = os.fork()
        if not child:
            status = 1
            try:
                status = int(work(out, runs, place) > 0)
            finally:
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
