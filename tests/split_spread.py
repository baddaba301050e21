"""By how much another choice of 423 test characters would move a mean: ``python tests/split_spread.py DATA_ROOT``.

The test tasks of the committed runs of ``paper`` are drawn again to learn which characters each holds. An additive
model, a task's accuracy as the mean of what its characters are worth, gives the variance between characters; what
chance adds to it is taken off by halving the tasks and multiplying both halves' estimates. Its square root over that of
423 is the standard error of the choice.
"""

import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.records.columns import MODES
from bench.records.run import load_runs
from bench.registry import load_built_in
from bench.settings.config import RunConfig
from bench.tasks.data import load_data
from bench.tasks.stream import TaskStream

FOLDER = Path(__file__).resolve().parents[1] / "results" / "reference" / "paper-cpu"


def worth(held: np.ndarray, accuracies: np.ndarray) -> np.ndarray:
    """Return what each character is worth to the accuracy of a task that holds it, by least squares."""
    design = np.zeros((len(held), held.max() + 1))
    np.add.at(design, (np.arange(len(held))[:, None], held), 1 / held.shape[1])
    return np.linalg.lstsq(design, accuracies, rcond=None)[0]


def main(root: Path) -> None:
    """Print the standard error for every committed run, in both modes."""
    load_built_in()
    source = load_data("omniglot", root, Path(tempfile.gettempdir()))
    for run in load_runs(FOLDER):
        config = RunConfig(**run.details["config"])
        rotation, episode = config.episodes["meta_test"]
        stream = TaskStream(source.pool("meta_test", rotation, torch.device("cpu")), episode, config.seed)
        tasks = len(run.test_tasks)
        classes = stream.draw(stream.numbers(0, tasks)).rows[:, : config.n_way].numpy()
        held = np.unique(classes, return_inverse=True)[1].reshape(classes.shape)
        half = np.random.default_rng(0).permutation(tasks) < tasks // 2
        for mode, column in MODES.items():
            accuracies = run.test_tasks[column].to_numpy()
            parts = [worth(held[part], accuracies[part]) for part in (half, ~half)]
            between = max(0.0, float(np.cov(*parts)[0, 1]))
            print(f"{run.row.run_id:55} {mode:13} {tasks:6,} tasks  {math.sqrt(between / held.max()):.4f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
