"""Algorithm, network and data set held against their contract on two small tasks, before anything is trained."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence

import torch

from bench.api import BenchError, Episode, Examples, MetaAlgorithm, TaskBatch, stack
from bench.network.build import build
from bench.network.trained import Trained
from bench.registry import blaming, create_algorithm
from bench.settings.config import RunConfig
from bench.settings.sources import Sources
from bench.system.waiting import one_thread
from bench.tasks.stream import TaskStream
from bench.training.contract import Diverged, check_contract, check_predictors
from bench.training.memory import is_out_of_memory

_TASKS = 2
_STEPS = 1  # at most, of inner steps: names and shapes show in the first; one more for predictors, as at test


def rehearse(configs: Sequence[RunConfig], sources: Sources, due: Callable[[RunConfig], bool]) -> None:
    """Ask every algorithm on every network of the runs that are ``due`` for a meta-gradient and predictors, on the CPU.

    Runs that differ in seed or in numbers with a fraction alone are asked once. What depends on such values, a loss
    that is not finite, and want of memory are left to the run.

    Raises:
        BenchError: names the plugin and what is wrong.
    """
    seen = set()
    for config in configs:
        hyper = {name: value for name, value in config.hyperparameters.items() if not isinstance(value, float)}
        shape = (config.n_way, config.train_shots, config.k_query, config.test_ways)
        key = str((config.algo, hyper, config.network, *shape))
        if key not in seen and due(config):
            seen.add(key)
            with torch.random.fork_rng(devices=[]), one_thread():
                _rehearse(config, sources)


def _rehearse(config: RunConfig, sources: Sources) -> None:
    cpu, source = torch.device("cpu"), sources.train
    algorithm = _shortened(config)
    config = dataclasses.replace(config, device="cpu", precision="float32")
    task_loss, slow = build(config, algorithm, source, cpu)
    tasks = _two_tasks(config, sources, "meta_train")
    with blaming(f"backbone {config.backbone!r}"):
        shape = tuple(task_loss.outputs(stack(slow, _TASKS), tasks.support.x).shape)
    outputs = (*tasks.support.x.shape[:2], algorithm.output_size(config.n_way))
    if shape != outputs:
        raise BenchError(f"backbone {config.backbone!r}: outputs have the shape {shape}; they must have {outputs}")
    with blaming(f"algorithm {config.algo!r}"):
        carry = algorithm.initial_carry(slow)
        try:
            result = algorithm.meta_grad(task_loss, slow, dataclasses.replace(tasks, carry=carry))
        except Exception as error:
            if is_out_of_memory(error):
                return
            if task_loss.way.once:
                raise BenchError(
                    f"backbone {config.backbone!r}: torch cannot differentiate it twice ({task_loss.way.once}), as"
                    f" {config.algo} asks"
                ) from error
            raise
    with contextlib.suppress(Diverged):
        check_contract(config.algo, slow, carry, _TASKS, result)
    test = Trained(task_loss, slow, carry).at_test(config, algorithm, source, cpu)
    if config.test_ways != config.n_way:
        tasks = _two_tasks(config, sources, "meta_test")
    with blaming(f"algorithm {config.algo!r}"):
        try:
            predictors = algorithm.predictors(test.task_loss, test.slow, tasks.support, _STEPS + 1, test.carry)
            check_predictors(config.algo, predictors, tasks.query.x, config.test_ways)
        except Exception as error:
            if not is_out_of_memory(error):
                raise


def _two_tasks(config: RunConfig, sources: Sources, split: str) -> TaskBatch:
    """Return tasks of a split with as few images of a class as a network may need."""
    cpu, source = torch.device("cpu"), sources.of(split)
    rotation, asked = config.episodes[split]
    shots = 2 if asked.n_way == 1 else 1  # normalisation needs more than one example
    episode = Episode(asked.n_way, min(asked.k_shot, shots), min(asked.k_query, shots))
    with blaming(f"dataset {source.name!r}"):
        stream = TaskStream(source.pool(split, rotation, cpu), episode, config.seed)
        number = stream.numbers(0, _TASKS)
        parts = stream.draw(number).parts
        support, query = stream.pool.examples(parts, episode, stream.dtype)
        orders, classes = functools.partial(stream.orders, number), stream.pool.classes_of(parts)
        n_way = episode.n_way
        return TaskBatch(Examples(*support, orders, n_way, classes), Examples(*query, orders, n_way, classes))


def _shortened(config: RunConfig) -> MetaAlgorithm:
    """Return the run's algorithm with few inner steps, where it takes so few."""
    steps = config.hyperparameters.get("inner_steps")
    if isinstance(steps, int) and steps > _STEPS:
        with contextlib.suppress(BenchError):
            return create_algorithm(config.algo, **{**config.hyperparameters, "inner_steps": _STEPS})
    return create_algorithm(config.algo, **config.hyperparameters)
