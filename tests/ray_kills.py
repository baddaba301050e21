"""Nodes of a Ray cluster killed at random instants, and the command that makes runs on them, too.

    python tests/ray_kills.py FOLDER [NODE_KILLS] [COMMAND_KILLS] [SEED]

The cluster is on this machine: a head, and two nodes that are killed and replaced. Runs are stand-ins
(``far_run.py``), a chain of hashes over their steps: one that was lost, begun twice at once or went on from another
place than its checkpoint ends with another hash. Prints one line of JSON with the figures, and leaves with status 1 if
a run was lost, ended twice or differs.
"""

import json
import random
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

from places import REPOSITORY

sys.path.insert(0, str(REPOSITORY))

import far_run
import ray_cluster
from commands import prepare

from bench.system.forked import Forked

STEPS, RUNS = 300, 6
LIMIT_S = 1800


def command(nodes, out):
    asked = {"address": nodes.address, "out": str(out), "algos": ["far"] * RUNS, "steps": STEPS}
    return Forked("far_driver", json.dumps({**asked, "log": str(out / "said")}), (), {})


def look(out, figures):
    """Count what is wrong with the runs of a command that has ended."""
    found = Counter()
    for path in out.glob("runs/*/run.json"):
        record = json.loads(path.read_text())
        row = record["row"]
        found[row["seed"]] += row["status"] == "ok"
        figures["differing"] += record["result"] != far_run.chain(row["seed"], STEPS)
        figures["attempts"] += len(record["attempts"])
    figures["lost"] += sum(not found[seed] for seed in range(RUNS))
    said = (out / "said").read_text().splitlines()
    ended = Counter(line.split("/")[0] for line in said if " plain, " in line and "(kept" not in line)
    figures["doubled"] += sum(count > 1 for count in ended.values())


def main(folder, node_kills=20, command_kills=5, seed=0):
    draw, figures, began = random.Random(seed), Counter(differing=0, lost=0, doubled=0), time.monotonic()
    prepare()
    nodes = ray_cluster.Nodes()
    try:
        while figures["node_kills"] < node_kills or figures["command_kills"] < command_kills:
            out = folder / f"grid{figures['grids']}"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            process, end = command(nodes, out), time.monotonic() + LIMIT_S
            while process.poll() is None and time.monotonic() < end:
                time.sleep(draw.uniform(3.0, 12.0))
                if process.poll() is not None:
                    break
                of_nodes, of_commands = node_kills - figures["node_kills"], command_kills - figures["command_kills"]
                if draw.random() * (of_nodes + of_commands) < of_commands:
                    process.kill()
                    process.wait(60)
                    figures["command_kills"] += 1
                    process = command(nodes, out)
                elif of_nodes:
                    figures["node_kills"] += nodes.kill_one_with_a_run()
            figures["failed_commands"] += process.wait(60) != 0
            figures["grids"] += 1
            look(out, figures)
            print(dict(figures), file=sys.stderr, flush=True)
        figures["actors_left"] = len(nodes.actors())
    finally:
        nodes.cluster.shutdown()
    print(json.dumps({**figures, "runs": figures["grids"] * RUNS, "seconds": round(time.monotonic() - began)}))
    return int(any(figures[name] for name in ("lost", "doubled", "differing", "failed_commands", "actors_left")))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), *map(int, sys.argv[2:])))
