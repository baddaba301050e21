"""The checks of how fast a meta-step can be: captured in a CUDA graph, and all tasks at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from bench.check.device import HostSync, capture_on_gpu, refused
from bench.check.trial import Algorithm, copied, copied_tasks, one_task
from bench.check.verdicts import Broken, Caution, where

LOOP_TASKS, LOOP_ROUNDS = 16, 5
LOOP_RATIO = 0.9  # of a loop's time; a batch that takes more gains nothing


def captures(subject: Algorithm) -> str:
    """A meta-step as a CUDA graph: really captured on a GPU, else watched for what the host would wait for."""
    if torch.cuda.is_available():
        capture_on_gpu(subject.name, subject.cls())
        return "captured in a CUDA graph and replayed"
    trial = subject.trial()
    trial.estimate()
    tasks, slow = copied_tasks(trial.tasks), copied(trial.slow)
    for examples in (tasks.support, tasks.query, tasks.together()):
        for passes in range(1, 9):  # minibatch orders are drawn before a step is captured
            examples.orders(passes, examples.y.shape[1])
    try:
        with refused():
            trial.algorithm.meta_grad(trial.task_loss, slow, tasks)
    except HostSync as wait:
        raise Broken(
            f"meta_grad goes back and forth between host and device: {wait} ({where(wait, subject.cls)})",
            wait.remedy,
        ) from wait
    return "reads nothing back to the host (not captured: no GPU)"


def outpaces(subject: Algorithm) -> str:
    """The time of a batch over that of its tasks one after the other, in turn, so that other work hits both."""
    trial = subject.trial(LOOP_TASKS, size=28, dtype=torch.float32)
    singles = [one_task(trial.tasks, t) for t in range(LOOP_TASKS)]

    def batch() -> object:
        return trial.algorithm.meta_grad(trial.task_loss, trial.slow, trial.tasks)

    def loop() -> object:
        return [trial.algorithm.meta_grad(trial.task_loss, trial.slow, task) for task in singles]

    batch(), loop()
    ratio = statistics.median(_seconds(batch) / _seconds(loop) for _ in range(LOOP_ROUNDS))
    return pace(ratio)


def pace(ratio: float) -> str:
    """Put into words what part of a loop's time a batch takes.

    Raises:
        Caution: it gains nothing.
    """
    text = f"{LOOP_TASKS} tasks at once: {ratio:.2f} of a Python loop's time"
    if ratio > LOOP_RATIO:
        raise Caution(text, "look for a Python loop over tasks; what is written with the task axis needs none")
    return text


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
