"""Adapt a trained run to a folder of images of one's own: ``python -m bench.adapt RUN_DIR FOLDER``.

FOLDER holds a subfolder per class with some images to adapt on, and beside these subfolders the images to predict.
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from bench.api import BenchError, Examples, MetaAlgorithm, TaskBatch, Weights
from bench.network.build import plain_network, way_of
from bench.network.model import Classifier
from bench.records.run import load_run
from bench.registry import ALGORITHMS, BACKBONES, create_algorithm, load_plugin
from bench.settings.config import RunConfig
from bench.tasks.pictures import SUFFIXES, Reading, read_picture
from bench.training.checkpoint import CHECKPOINT_FILE, read_checkpoint
from bench.training.evaluate import PLAIN, TRANSDUCTIVE, outputs_of
from bench.training.weights import STATE_FILE, WEIGHTS_FILE, read_state


@dataclass(frozen=True)
class Prediction:
    """What one image was taken for, and the share of the softmax that says so."""

    path: Path
    label: str
    probability: float


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line per image to predict; returns 0, or 2 after one line on what is wrong."""
    p = argparse.ArgumentParser("python -m bench.adapt", description=__doc__)
    p.add_argument("run", type=Path, metavar="RUN_DIR", help="OUT/runs/RUN_ID of a finished run on images")
    p.add_argument("folder", type=Path, metavar="FOLDER", help="FOLDER/CLASS/* to adapt on, FOLDER/* to predict")
    p.add_argument("--steps", type=int, metavar="N", help="adaptation steps [as the run was tested]")
    p.add_argument(
        "--transductive", action="store_true", help="classify all images in one batch instead of each by itself"
    )
    p.add_argument("--plugin", action="append", default=[], type=Path, metavar="FILE.py", help="as for run_bench.py")
    args = p.parse_args(argv)
    try:
        for path in args.plugin:
            load_plugin(path)
        mode = TRANSDUCTIVE if args.transductive else PLAIN
        found = adapt(args.run, args.folder, args.steps, mode)
    except BenchError as error:
        print(f"bench.adapt: {error}", file=sys.stderr)
        return 2
    rows = [(p.path.relative_to(args.folder), p.label, f"{p.probability:.3f}") for p in found]
    print(tabulate(rows, ["image", "class", "probability"], disable_numparse=True))
    return 0


def adapt(run: Path, folder: Path, steps: int | None = None, mode: str = PLAIN) -> list[Prediction]:
    """Adapt a run's meta-trained weights to the classes of a folder and predict the images beside them.

    Args:
        run: ``OUT/runs/RUN_ID``.
        folder: a subfolder per class, at most as many as the run's ``n_way``; images to predict beside them.
        steps: adaptation steps; None for as many as the run was tested with.
        mode: plain, each image by itself together with those adapted on, or transductive, all in one batch.
    Raises:
        BenchError: the run or the folder is not of that kind; names the file and what is accepted.
    """
    config, shape, reading = _settings(run)
    if steps is not None and steps < 0:
        raise BenchError(f"--steps {steps}; accepted: 0 or more")
    classes, queries = _contents(folder, config.n_way)
    y = torch.tensor([[label for label, paths in enumerate(classes.values()) for _ in paths]])
    images = _images([path for paths in classes.values() for path in paths], reading)
    support = Examples(images, y, n_way=len(classes))
    tasks = TaskBatch(support, Examples(_images(queries, reading), torch.zeros(1, len(queries), dtype=torch.long)))

    algorithm = create_algorithm(config.algo, **config.hyperparameters)
    network = plain_network(config, algorithm, shape)
    try:
        network.load_state_dict(read_state(run / WEIGHTS_FILE))
    except Exception as error:  # what it holds may fit nothing
        raise BenchError(
            f"{run / WEIGHTS_FILE}: {' '.join(str(error).split())[:200]}; accepted: what a run that finished left"
        ) from error
    way = way_of(config, shape, algorithm.output_size(config.n_way), torch.device("cpu"))
    task_loss = Classifier(network, way=way, strays=dict(network.named_parameters()))
    extra, carry = _beyond_the_network(run, algorithm, task_loss.weights)
    wanted = config.eval_inner_steps if steps is None else steps
    predictors = algorithm.predictors(task_loss, {**task_loss.weights, **extra}, support, wanted, carry)
    predictor = deque(predictors, maxlen=1).pop()  # the last, holding one at a time
    outputs = outputs_of(predictor, tasks, mode)[0, :, : len(classes)].softmax(dim=-1)
    best = outputs.max(dim=-1)
    names = list(classes)
    return [
        Prediction(path, names[int(label)], float(share))
        for path, label, share in zip(queries, best.indices, best.values)
    ]


def _settings(run: Path) -> tuple[RunConfig, tuple[int, ...], Reading]:
    """Return a run's configuration, the shape of its images, and how a picture becomes one of them."""
    try:
        record = load_run(run)
        config = RunConfig(**record.details["config"])
        shape: Any = record.details["data"].get("shape")
        said: Any = record.details["data"].get("reading")
        reading = Reading(**said) if said else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BenchError(f"{str(run)!r} is no finished run ({error}); accepted: OUT/runs/RUN_ID") from error
    for registry, name in ((ALGORITHMS, config.algo), (BACKBONES, config.backbone)):
        if name not in registry.names():
            raise BenchError(f"the {registry.kind} of the run, {name!r}, is not known here; --plugin FILE.py loads it")
    if record.row.measure not in (None, "accuracy") or not isinstance(shape, list) or len(shape) != 3:
        raise BenchError(f"{str(run)!r} is on {record.row.dataset}; accepted: a run of this version on images")
    return (
        config,
        tuple(shape),
        reading or Reading(shape[0], shape[1], shape[2], ink=shape[0] == 1),
    )  # which older records do not say


def _contents(folder: Path, n_way: int) -> tuple[dict[str, list[Path]], list[Path]]:
    """Return the images to adapt on by class, and those to predict."""
    if not folder.is_dir():
        raise BenchError(f"{str(folder)!r} is no folder; accepted: one with a subfolder of images per class")
    found = {sub.name: _pictures(sub) for sub in sorted(folder.iterdir()) if sub.is_dir()}
    classes = {name: paths for name, paths in found.items() if paths}
    if not 2 <= len(classes) <= n_way:
        raise BenchError(
            f"{str(folder)!r} has {len(classes)} subfolders with images; accepted: 2 to {n_way}, the classes that this"
            " run's network tells apart"
        )
    queries = _pictures(folder)
    if not queries:
        raise BenchError(f"{str(folder)!r} has no images beside its subfolders; those are what is predicted")
    return classes, queries


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in SUFFIXES)


def _images(paths: Sequence[Path], reading: Reading) -> Tensor:
    """Return the images ``[1, n, C, H, W]`` in [0, 1], as the networks know them."""
    return torch.stack([torch.from_numpy(read_picture(path, reading)) for path in paths])[None] / 255


def _beyond_the_network(run: Path, algorithm: MetaAlgorithm, network: Weights) -> tuple[Weights, Weights]:
    """Return what an algorithm has learnt beside the network's weights, and what it carries."""
    path = run / STATE_FILE
    try:
        if path.exists():
            state = read_state(path)
            return state["extra"], state["carry"]
        if not algorithm.extra_weights(network) and not algorithm.initial_carry(network):
            return {}, {}
        path = run / CHECKPOINT_FILE  # of a run of the first version
        state = read_checkpoint(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{path}: {error}; accepted: what a run that finished left") from error
    return {name: w for name, w in state["slow"].items() if name not in network}, state["carry"]
