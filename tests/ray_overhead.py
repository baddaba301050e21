"""What each launcher costs a run, and how well a grid of short runs fills the machines.

    python tests/ray_overhead.py FOLDER [RUNS] [NODES] [SECONDS_OF_A_RUN]

Both make the same runs, stand-ins that sleep (``far_run.py``), so that nothing but the launchers costs time: here
NODES processes at a time, there a cluster of NODES nodes of one CPU each on this machine. Ideal is RUNS / NODES times
what a run sleeps. The command's own work is counted in seconds of a CPU: it is what one command on many nodes runs out
of. Real runs take a few seconds more on a node, where each imports torch; here they are forked from a
process that has.
"""

import json
import shutil
import sys
import time
from pathlib import Path

from places import REPOSITORY

sys.path.insert(0, str(REPOSITORY))

import far_driver
import far_run
import ray_cluster

from bench.runs import runner
from bench.runs.launchers.local import Local
from bench.runs.runner import Place, run_all
from bench.system.text import markdown_table


def here(out, algos, steps, jobs):
    runner.WORKER = "far_run"
    launcher = Local(jobs)
    launcher.prepare()
    return run_all(far_driver.configs(*algos, steps=steps), Place(out, out, launcher=launcher), True, lambda line: None)


def main(folder, runs=64, nodes=3, seconds=4):
    steps, rows = round(seconds / far_run.STEP_S), []
    ideal = runs / nodes * seconds
    algos = ["far"] * runs

    def timed(name, make):
        out = folder / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        began, busy = time.monotonic(), time.process_time()
        status = make(out)
        took, busy = time.monotonic() - began, time.process_time() - busy
        each = (took - ideal) * nodes / runs
        rows.append(
            [
                name,
                runs,
                nodes,
                f"{took:.1f}",
                f"{ideal:.1f}",
                f"{ideal / took:.0%}",
                f"{each:.2f}",
                f"{busy / runs:.3f}",
            ]
        )
        return status

    statuses = [timed("local", lambda out: here(out, algos, steps, nodes))]
    cluster = ray_cluster.Nodes(nodes)
    try:
        statuses.append(timed("ray", lambda out: far_driver.grid(cluster.address, out, algos, steps, print)))
    finally:
        cluster.cluster.shutdown()
    headers = [
        "launcher",
        "runs",
        "at once",
        "s",
        "ideal s",
        "efficiency",
        "overhead of a run, s",
        "command's CPU for a run, s",
    ]
    print(markdown_table(headers, rows))
    print(json.dumps(statuses))
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), *map(int, sys.argv[2:])))
