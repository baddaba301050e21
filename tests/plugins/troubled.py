"""Algorithms that go wrong, each in its own way, for the tests of what the harness makes of it."""

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch

from algorithms.fomaml import FirstOrderMAML
from bench.api import MetaAlgorithm, MetaGrad, TaskBatch, TaskLoss, Weights
from bench.registry import register_algorithm


def out() -> Path:
    """Return the folder of results, known in a worker only, whose argument is the job."""
    return Path(json.loads(sys.argv[1])["out"])


class Troubled(MetaAlgorithm):
    """Behaves while it warms up and for a meta-step or two, then does ``trouble``."""

    by_default = False  # or a later test of the same process that names no algorithms would crash with it
    calls = 0

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        type(self).calls += 1
        loss = torch.ones(tasks.support.n_tasks)
        grads = {name: torch.zeros_like(w) for name, w in slow.items()}
        return self.trouble(MetaGrad(grads, loss)) if type(self).calls > 3 else MetaGrad(grads, loss)

    @abstractmethod
    def trouble(self, result: MetaGrad) -> MetaGrad:
        """Return what goes wrong, or raise it."""


@register_algorithm("raises")
@dataclass(frozen=True)
class Raises(Troubled):
    inner_lr: float = 0.1
    inner_steps: int = 1

    def trouble(self, result: MetaGrad) -> MetaGrad:
        raise RuntimeError("=boom, | in `two`\nlines")


@register_algorithm("nan")
@dataclass(frozen=True)
class NotFinite(Troubled):
    inner_lr: float = 0.1
    inner_steps: int = 1

    def trouble(self, result: MetaGrad) -> MetaGrad:
        return MetaGrad(result.grads, result.query_loss * torch.nan)


@register_algorithm("killed")
@dataclass(frozen=True)
class Killed(Troubled):
    inner_lr: float = 0.1
    inner_steps: int = 1

    def trouble(self, result: MetaGrad) -> MetaGrad:
        os.kill(os.getpid(), signal.SIGKILL)
        return result


@register_algorithm("crashes")
@dataclass(frozen=True)
class Crashes(Troubled):
    inner_lr: float = 0.1
    inner_steps: int = 1

    def trouble(self, result: MetaGrad) -> MetaGrad:
        ctypes.string_at(0)
        return result


@register_algorithm("hangs")
@dataclass(frozen=True)
class Hangs(Troubled):
    """Hears no signal either."""

    inner_lr: float = 0.1
    inner_steps: int = 1

    def trouble(self, result: MetaGrad) -> MetaGrad:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        time.sleep(600)
        return result


@register_algorithm("hungry")
@dataclass(frozen=True)
class Hungry(FirstOrderMAML):
    """Has memory for two tasks at once."""

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        if tasks.support.n_tasks > 2:
            raise torch.OutOfMemoryError("no room\nfor more")
        return super().meta_grad(task_loss, slow, tasks)


@register_algorithm("fills-disk")
@dataclass(frozen=True)
class FillsDisk(Troubled):
    inner_lr: float = 0.1
    inner_steps: int = 1

    def trouble(self, result: MetaGrad) -> MetaGrad:
        with contextlib.suppress(OSError), (out() / "filling").open("ab", buffering=0) as file:
            while True:
                file.write(bytes(512))
        return result


@register_algorithm("patient")
@dataclass(frozen=True)
class Patient(FirstOrderMAML):
    """Waits in its tenth step while ``wait`` lies in the folder of results, until the run has been asked to stop.

    ``waiting`` lies there, too, as soon as it does. It waits ten minutes at most: a test that fails may have left it.
    """

    calls = 0

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        type(self).calls += 1
        end = time.monotonic() + 600
        while type(self).calls == 10 and (out() / "wait").exists() and not asked_to_stop() and time.monotonic() < end:
            (out() / "waiting").touch()
            time.sleep(0.01)
        return super().meta_grad(task_loss, slow, tasks)


def asked_to_stop() -> bool:
    """Return whether a signal has told the ``Stop`` of this process."""
    stop = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return bool(stop is not None and stop.asked)


@register_algorithm("misnamed")
@dataclass(frozen=True)
class Misnamed(FirstOrderMAML):
    """Behaves on the two tasks of a rehearsal."""

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        if tasks.support.n_tasks <= 2:
            return super().meta_grad(task_loss, slow, tasks)
        return MetaGrad({"w": torch.zeros(1)}, torch.zeros(tasks.support.n_tasks))


@register_algorithm("slow")
@dataclass(frozen=True)
class Slow(Troubled):
    inner_lr: float = 0.1
    inner_steps: int = 1

    def trouble(self, result: MetaGrad) -> MetaGrad:
        (out() / "in-step").touch()
        time.sleep(600)
        return result
