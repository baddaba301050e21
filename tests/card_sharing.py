"""How several runs share one card: one after the other, at once in turns, at once through MPS.

    python tests/card_sharing.py FOLDER [RUNS] [ROUNDS] [META_STEPS]

Runs are those of Reptile as published, 5-way 1-shot (S4 of the speed comparison), seed by seed, by ``bench.compare``.
On a card on which nobody else works, with 4 runs, 3 rounds and 3,000 meta-steps unless told otherwise:

    python tests/card_sharing.py /tmp/sharing

Without a card the same runs are made on CPUs, one after the other and at once: what cores give then, not a card.
A small one shows in minutes whether all works: ``python tests/card_sharing.py /tmp/sharing 2 1 10``.

Each round makes the runs in every way. ``meta-steps/s`` are those of all runs together while they train: at once the
sum of the runs' own rates, which holds as far as they train at the same time. ``s in all`` lasts from the start of the
first run to the end of the last, with set-up and test. Both are medians over rounds, and so are their ratios to one
after the other, each taken within its round.
"""

import dataclasses
import datetime
import json
import statistics
import sys
from pathlib import Path

from pictures import small
from places import REPOSITORY

sys.path.insert(0, str(REPOSITORY))

import torch

import bench
from bench.report.drawing import pictures
from bench.runs.launchers import mps
from bench.system.text import markdown_table

ALONE, TURNS, MPS, AT_ONCE = "one after the other", "at once, in turns", "at once, MPS", "at once"
NO_SERVICE = "no-such-program"


@dataclasses.dataclass(frozen=True)
class Measured:
    sharing: str
    steps_per_s: float
    in_all_s: float
    step_ms: float


def made(folder, way, runs, steps, device):
    """Make the runs in one of the ways and return what they took; earlier ones of so many steps are set aside."""
    control, mps.CONTROL = mps.CONTROL, NO_SERVICE if way == TURNS else mps.CONTROL
    try:
        found = bench.compare(
            "reptile", protocol="paper", dataset="glyphs", n_way=5, k_shot=1, seeds=range(runs), meta_steps=steps,
            test_tasks=20, val_tasks=20, val_points=1, adaptation_tasks=0, eval_inner_steps=5, threads=1,
            device=device, jobs=1 if way == ALONE else runs, out=folder / f"{steps}-steps", fresh=True, quiet=True,
        ).runs  # fmt: skip
    finally:
        mps.CONTROL = control
    rows = [run.row for run in found]
    if bad := [f"{row.run_id}: {row.status} ({row.error})" for row in rows if row.status != "ok"]:
        raise SystemExit("\n".join(bad))
    begun = [datetime.datetime.fromisoformat(row.started_at).timestamp() for row in rows]
    took = [row.setup_s + row.train_s + row.eval_s for row in rows]
    alone = runs * steps / sum(row.train_s for row in rows)
    return Measured(
        found[0].details["environment"].get("sharing", ""),
        alone if way == ALONE else sum(steps / row.train_s for row in rows),
        max(a + b for a, b in zip(begun, took)) - min(begun),
        statistics.median(row.step_ms_median for row in rows),
    )


def main(folder, runs=4, rounds=3, steps=3_000):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ways = [ALONE, TURNS, MPS] if device == "cuda" else [ALONE, AT_ONCE]
    pictures.files_of = small
    for way in ways:  # data, imports and kernels are there afterwards
        first = made(folder, way, runs, 10, device)
        print(f"{way}: {first.sharing or device}", flush=True)
        if way == MPS and first.sharing != mps.MPS:
            ways = [ALONE, TURNS]
    found = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
            found[way].append(made(folder, way, runs, steps, device))
            print(json.dumps({"round": number + 1, "way": way, **dataclasses.asdict(found[way][-1])}), flush=True)

    def ratio(way, name):
        pairs = zip(found[way], found[ALONE])
        return f"{statistics.median(getattr(a, name) / getattr(b, name) for a, b in pairs):.2f}"

    def middle(way, name):
        return f"{statistics.median(getattr(one, name) for one in found[way]):.4g}"

    rows = [
        [way, runs, middle(way, "steps_per_s"), ratio(way, "steps_per_s"), middle(way, "step_ms"),
         middle(way, "in_all_s"), ratio(way, "in_all_s")]
        for way in ways
    ]  # fmt: skip
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"\n{name}, torch {torch.__version__}, {steps:,} meta-steps a run, medians of {rounds} rounds\n")
    print(markdown_table(["runs", "number", "meta-steps/s", "ratio", "ms a step", "s in all", "ratio"], rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), *map(int, sys.argv[2:]))
