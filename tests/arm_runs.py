"""What tests of studies of arms share: requests, made-up runs, and flags for small real ones."""

import csv
import dataclasses

from asked import asked
from made_runs import make_run
from places import PLUGINS

from bench.records.run import load_runs
from bench.settings.config import CODE

TOY = (
    *("--plugin", str(PLUGINS / "toy_data.py"), "--dataset", "toy", "--device", "cpu", "--threads", "1"),
    *("--set", "backbone=one-layer", "--val-points", "2", "--val-tasks", "4", "--test-tasks", "20"),
)


def wanted(**changes):
    return asked(**{"algos": None} | changes)


def made(configs, out, level=lambda config: 0.9):
    """Finished runs of the configurations, of accuracies near ``level``."""
    for config in configs:
        known = {f.name for f in dataclasses.fields(config)} - {"hyperparameters", *CODE, "algo", "seed"}
        facts = {n: getattr(config, n) for n in known & {"n_way", "k_shot", "k_query", "meta_steps", "meta_lr"}}
        make_run(out, config.algo, config.seed, level(config), run_id=config.run_id, **facts)
    return {run.row.run_id: run for run in load_runs(out)}


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
