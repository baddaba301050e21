"""A trained network for tasks of more or fewer classes than it was trained on."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from bench.api import BenchError, MetaAlgorithm, TaskSource, Weights
from bench.network.build import build
from bench.network.model import Classifier
from bench.settings.config import RunConfig


@dataclasses.dataclass(frozen=True)
class Trained:
    """What training leaves: a task loss, slow weights and what passes from one meta-step to the next."""

    task_loss: Classifier
    slow: Weights
    carry: Weights

    def at_test(
        self,
        config: RunConfig,
        algorithm: MetaAlgorithm,
        source: TaskSource,
        device: torch.device,
    ) -> Trained:
        """Return what a run is tested with: the same, unless its tasks at test have another number of classes.

        A head of outputs per class is cut to the first of them, or repeated: output i of more is a copy of output
        i modulo n_way, which each task then adapts for itself. Labels are drawn at random in every task, so that no
        trained output means another class than the next. What does not depend on n_way stays (an embedding).

        Raises:
            BenchError: more of a weight depends on n_way than its outputs.
        """
        old, new = (algorithm.output_size(n_way) for n_way in (config.n_way, config.test_ways))
        if old == new:
            return self
        wider = dataclasses.replace(config, n_way=config.test_ways, test_n_way=None)
        task_loss, initial = build(wider, algorithm, source, device, self.task_loss.form.kernels)
        carry = algorithm.initial_carry(initial)
        try:
            slow = {name: _resized(self.slow[name], w.shape, old, new) for name, w in initial.items()}
            return Trained(
                task_loss, slow, {name: _resized(self.carry[name], c.shape, old, new) for name, c in carry.items()}
            )
        except (KeyError, ValueError) as error:
            raise BenchError(
                f"test_n_way {config.test_n_way}: in {config.algo} on backbone {config.backbone!r} more than outputs"
                f" depends on the number of classes ({error}); accepted: none"
            ) from error


def _resized(trained: Tensor, shape: torch.Size, old: int, new: int) -> Tensor:
    """Return a tensor with ``old`` outputs cut or repeated to ``new`` of them.

    Raises:
        ValueError: the shapes differ otherwise.
    """
    if trained.dim() != len(shape) or any(a != b and (a, b) != (old, new) for a, b in zip(trained.shape, shape)):
        raise ValueError(f"a weight of {tuple(trained.shape)} would have to be {tuple(shape)}")
    trained = trained.detach()
    for dim, (before, after) in enumerate(zip(trained.shape, shape)):
        if before != after:
            trained = trained.index_select(dim, torch.arange(after, device=trained.device) % before)
    return trained
