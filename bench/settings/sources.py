"""The data that a run is trained and tested on, and its streams of tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bench.api import BenchError, TaskSource
from bench.registry import DATASETS, hyperparameter_names
from bench.settings.code import code_of, data_code
from bench.settings.config import RunConfig
from bench.tasks.corruption import CORRUPTIONS
from bench.tasks.data import load_data
from bench.tasks.stream import TaskStream


@dataclass(frozen=True)
class Sources:
    """Where the tasks of a run come from; ``test`` is that of meta-test alone, and mostly the same."""

    train: TaskSource
    test: TaskSource

    def trained_on(self, classes: int | None) -> Sources:
        """Return the same with so many classes in meta-train; None for all.

        Raises:
            BenchError: there are fewer.
        """
        return Sources(self.train.trained_on(classes), self.test)

    def of(self, split: str) -> TaskSource:
        """Return the data of one of SPLITS."""
        return self.test if split == "meta_test" else self.train

    def stream(self, config: RunConfig, split: str, device: torch.device) -> TaskStream:
        """Return the tasks of a split, those of meta-test corrupted where the run asks for it.

        Raises:
            BenchError: the data cannot fill them.
        """
        rotation, episode = config.episodes[split]
        pool = self.of(split).pool(split, rotation, device)
        return TaskStream(pool, episode, config.seed, config.corrupted if split == "meta_test" else None)


def load_sources(
    config: RunConfig, roots: tuple[Path, Path], cache: Path, warn: Callable[[str], None] = lambda line: None
) -> Sources:
    """Return the data of a run.

    Args:
        roots: where the data sets of training and of test are.
        cache: where prepared data may be kept.
        warn: called with one line if ``auto`` had to fall back.
    Raises:
        BenchError: it is not to be had, or networks for the one do not fit the other.
    """
    train = load_data(config.dataset, roots[0], cache, warn, config.dataset_options)
    if config.test_dataset is None:
        return Sources(train, train)
    test = load_data(config.test_dataset, roots[1], cache, options=config.test_dataset_options)
    _check_alike(train, test)
    return Sources(train, test)


def _check_alike(train: TaskSource, test: TaskSource) -> None:
    """Refuse test data that networks of the training data cannot take.

    Raises:
        BenchError: says which option would change that, where a data set has it.
    """
    for what, of in (("inputs of the shape", tuple), ("the measure", None)):
        here, there = (of(s.shape) if of else s.objective.measure for s in (train, test))
        if here != there:
            remedy = ""
            if of and len(train.shape) == len(test.shape) == 3:
                remedy = _resized(test, train.shape) or _resized(train, test.shape)
            raise BenchError(
                f"test_dataset {test.name!r} has {what} {there}, {train.name} {here}; accepted: data alike"
                + (f" ({remedy})" if remedy else "")
            )


def _resized(source: TaskSource, shape: tuple[int, ...]) -> str:
    """Return how a data set of images is asked for a shape; empty where it has no such options."""
    known = hyperparameter_names(DATASETS.get(source.name)) if source.name in DATASETS.names() else []
    wanted = {
        "image_size": (shape[1], source.shape[1:] != shape[1:]),
        "channels": (shape[0], source.shape[0] != shape[0]),
    }
    if any(differs and name not in known for name, (_, differs) in wanted.items()):
        return ""
    return " ".join(f"--set {name}={value}" for name, (value, differs) in wanted.items() if differs)


def code_at_test(config: RunConfig, sources: Sources) -> str | None:
    """Return a hash over the files, splits and images that decide what is otherwise at test; None for nothing."""
    classes: list[type] = []
    further = ""
    if config.test_dataset is not None:
        if sources.test.name in DATASETS.names():
            classes.append(DATASETS.get(sources.test.name))
        classes.append(type(sources.test))
        further = f"{sources.test.split_sha256} {sources.test.sha256}"
    if config.corrupted is not None:
        classes.append(CORRUPTIONS.get(config.corrupted.kind))
    return code_of(*classes, further=further) if classes else None


def named(config: RunConfig, sources: Sources) -> RunConfig:
    """Return a configuration with the name and the code of the data that was loaded for it."""
    train, test = sources.train, sources.test
    if (test.name, test.sha256, test.split_sha256) == (train.name, train.sha256, train.split_sha256):
        config = replace(config, test_dataset=None, test_dataset_options={})  # asked for by another name
    config = replace(config, dataset=train.name, data_code=data_code(train))
    return replace(config, test_data_code=code_at_test(config, sources))
