"""The measure (of images: accuracy) of every test task in both modes, before adaptation and after each of its steps."""

from __future__ import annotations

import logging
import statistics
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.api import Adapted, MetaAlgorithm, Predictor, TaskBatch, TaskLoss, Weights
from bench.tasks.stream import TaskStream
from bench.training.chunks import inputs_at_once
from bench.training.clocks import now
from bench.training.memory import is_out_of_memory, release

log = logging.getLogger("bench")

PLAIN, TRANSDUCTIVE = "plain", "transductive"
ADAPTATION_STEPS = (0, 1, 2, 3, 5, 10, 20, 50)
"""Where an adaptation curve is measured, whatever number of steps an algorithm is tested with."""


TIMED, TIMING_S = 20, 3.0  # test tasks that adaptation is timed on, and for how long


@dataclass(frozen=True)
class Evaluation:
    """Measures by test mode and number of adaptation steps: ``measure[mode][step]`` is ``[tasks]``."""

    measure: dict[str, dict[int, np.ndarray]]

    def final(self, mode: str) -> np.ndarray:
        """Return the measures ``[tasks]`` after the last step."""
        by_step = self.measure[mode]
        return by_step[max(by_step)]


def evaluate(
    algorithm: MetaAlgorithm,
    task_loss: TaskLoss,
    slow: Weights,
    carry: Weights,
    stream: TaskStream,
    n_tasks: int,
    steps: int | None,
    modes: Collection[str] = (PLAIN, TRANSDUCTIVE),
    at: Collection[int] = (0,),
    advance: Callable[[int], object] = lambda tasks: None,
) -> Evaluation:
    """Adapt to the first ``n_tasks`` tasks of a stream and measure the answers on their query examples.

    Plain: each query example alone with the support set, in one batch of N*K+1, as supervised-reptile does it.
    Transductive: all query examples of a task in one batch. The two differ where the network looks across its batch.

    Args:
        steps: adaptation steps; None for the algorithm's own number.
        at: numbers of steps after which to measure, 0 being before adaptation, besides the last.
        advance: called with the number of tasks done since the last call.
    """

    def measured(tasks: TaskBatch) -> dict[str, dict[int, Tensor]]:
        """Return the measures ``[T]`` by test mode and number of adaptation steps."""
        found: dict[str, dict[int, Tensor]] = {mode: {} for mode in modes}

        def measure(step: int, predictor: Predictor) -> None:
            for mode in modes:
                outputs = outputs_of(predictor, tasks, mode)
                found[mode][step] = stream.objective.score(outputs, tasks.query.y).mean(dim=1)  # [T]

        step = -1
        for step, predictor in enumerate(algorithm.predictors(task_loss, slow, tasks.support, steps, carry)):
            if step in at:
                measure(step, predictor)
        if step not in at:
            measure(step, predictor)
        return found

    parts: dict[str, dict[int, list[Tensor]]] = {mode: {} for mode in modes}
    size, start = batch_size(stream, task_loss, slow), 0
    while start < n_tasks:
        tasks = stream.batch(start, min(size, n_tasks - start))
        n = tasks.support.n_tasks
        try:
            answers = measured(tasks)
        except Exception as error:  # judged by what it says: not all that mean "no memory" are of one class
            if not is_out_of_memory(error) or n == 1:
                raise
            size = n // 2
        else:
            for mode, by_step in answers.items():
                for step, measure in by_step.items():
                    parts[mode].setdefault(step, []).append(measure)
            advance(n)
            start += n
            continue
        release(tasks.support.x.device)  # here, where the exception and what its frames held are gone
        log.warning("out of memory: evaluation goes on with %d tasks at once", size)
    return Evaluation(
        {mode: {s: torch.cat(a).double().cpu().numpy() for s, a in by_step.items()} for mode, by_step in parts.items()}
    )


def answered(
    algorithm: MetaAlgorithm,
    task_loss: TaskLoss,
    slow: Weights,
    carry: Weights,
    stream: TaskStream,
    first: int,
    count: int,
    steps: int | None,
) -> dict[str, np.ndarray]:
    """Return the measures ``[count]`` of the tasks from ``first`` on after all steps, by test mode."""
    tasks = stream.batch(first, count)
    predictor = deque(algorithm.predictors(task_loss, slow, tasks.support, steps, carry), maxlen=1).pop()
    outputs = {mode: outputs_of(predictor, tasks, mode) for mode in (PLAIN, TRANSDUCTIVE)}
    return {
        mode: stream.objective.score(found, tasks.query.y).mean(dim=1).double().cpu().numpy()
        for mode, found in outputs.items()
    }


def time_to_adapt(
    algorithm: MetaAlgorithm, task_loss: TaskLoss, slow: Weights, carry: Weights, stream: TaskStream, steps: int | None
) -> float:
    """Return the milliseconds that it takes to adapt to one task and answer its queries, in one batch of all.

    The median over single test tasks, after one that warms up: TIMED of them, or as many as fit into TIMING_S.
    """
    took: list[float] = []
    began = now(stream.device)
    for number in range(TIMED + 1):
        tasks = stream.batch(number, 1)
        start = now(stream.device)
        predictor = deque(algorithm.predictors(task_loss, slow, tasks.support, steps, carry), maxlen=1).pop()
        answers_together(predictor, tasks)
        took.append(1000 * (now(stream.device) - start))
        if number > 2 and now(stream.device) - began > TIMING_S:
            break
    return statistics.median(took[1:])


def outputs_of(predictor: Predictor, tasks: TaskBatch, mode: str) -> Tensor:
    """Return a predictor's outputs ``[T, n, O]`` on the query examples in one of the test modes."""
    return {PLAIN: answers_alone, TRANSDUCTIVE: answers_together}[mode](predictor, tasks)


@torch.no_grad()
def answers_together(predictor: Predictor, tasks: TaskBatch) -> Tensor:
    """Return the outputs on the query examples in one batch per task (transductive)."""
    return predictor(tasks.query.x)


@torch.no_grad()
def answers_alone(predictor: Predictor, tasks: TaskBatch) -> Tensor:
    """Return the outputs on the query examples, each alone with the support set (plain)."""
    if isinstance(predictor, Adapted):
        return predictor.alone(tasks.support.x, tasks.query.x)
    queries = tasks.query.x.split(1, dim=1)
    scores = [predictor(torch.cat([tasks.support.x, image], dim=1))[:, -1:] for image in queries]
    return torch.cat(scores, dim=1)


def batch_size(stream: TaskStream, task_loss: TaskLoss, slow: Weights) -> int:
    """Return how many tasks to evaluate at once: what fits the caches of a CPU with conv4, or 2 GiB of a card."""
    episode = stream.episode
    images = episode.n_way * max(episode.k_shot, episode.k_query) + 1
    in_flight = 4_000 if stream.device.type == "cuda" else 400
    return max(1, inputs_at_once(in_flight, stream, task_loss, slow) // images)
