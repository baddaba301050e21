"""Sine waves: a regression whose tasks are points of a sin(x + b), drawn anew and never stored."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from bench.api import BenchError, Bits, Dataset, Drawn, Episode, Objective, TaskPool, TaskSource
from bench.registry import register_dataset
from bench.tasks.counter import permutations

AMPLITUDE = (0.1, 5.0)
PHASE = (0.0, 2 * math.pi)
REACH = 5.0  # x lies in -REACH..REACH
POINTS = 50  # of the grid

_AMPLITUDE, _PHASE, _POINTS = range(3)  # purposes of random bits


class SquaredError(Objective):
    """The squared error of one output, to train on and to measure."""

    measure: ClassVar = "mse"
    kind: ClassVar = "error"

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the squared error of every example, ``[T, n]``."""
        return (outputs.squeeze(-1) - y).square()

    def score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the squared error of every example, in float64."""
        return self.loss(outputs.double(), y.double())


class SineWaves(TaskSource):
    """Waves with amplitude in 0.1..5 and phase in 0..2 pi, both uniform, on a grid of 50 points.

    Splits differ in their random bits alone: a wave of meta-test is met in training with probability 0.
    """

    name = "sine"
    pipeline = (
        f"sine 1: y = a sin(x + b); a uniform in {AMPLITUDE[0]}..{AMPLITUDE[1]}, b in 0..2 pi, of 31 bits each; "
        f"x without replacement from {POINTS} points evenly spaced over -{REACH}..{REACH}, both ends included"
    )
    sha256 = hashlib.sha256(pipeline.encode()).hexdigest()
    objective: ClassVar = SquaredError()
    shape = (1,)

    def check(self, split: str, rotation: str, episode: Episode) -> None:
        """Refuse an episode that is not one of a single target on the grid.

        Raises:
            BenchError: more than one way, or more points than the grid has.
        """
        if episode.n_way != 1:
            raise BenchError(f"n_way {episode.n_way}: {self.name} is a regression of one target; accepted: 1")
        if episode.k_shot > POINTS or (episode.k_query != POINTS and episode.k_shot + episode.k_query > POINTS):
            raise BenchError(
                f"k_shot {episode.k_shot} + k_query {episode.k_query} is more than the {POINTS} points of {self.name};"
                f" accepted: a sum of at most {POINTS}, or k_query {POINTS} for the whole grid, support included"
            )

    def pool(self, split: str, rotation: str, device: torch.device) -> SinePool:
        """Return the waves of a split; ``rotation`` means nothing here."""
        return SinePool(self, split, "none", device)


class SinePool(TaskPool):
    """Draws waves and points as integers, and makes float64 values of them."""

    def draw(self, bits: Bits, episode: Episode) -> Drawn:
        """Return the tasks: 31 bits of amplitude and of phase, and which points of the grid, support first.

        With a query of all POINTS it is the whole grid in order, as the Reptile paper tests; otherwise it shares no
        point with the support set. The parts are x and y, float64 ``[T, K]`` and ``[T, Q]``.
        """
        whole = episode.k_query == POINTS
        wave = torch.cat([bits(_AMPLITUDE, 1), bits(_PHASE, 1)], dim=1) >> 1  # [T, 2]
        points = permutations(bits(_POINTS, POINTS))[:, : episode.k_shot + (0 if whole else episode.k_query)]
        a, b = parameters(wave)
        everywhere = torch.arange(POINTS, device=self.device).expand(len(wave), -1)
        parts = []
        for places in (points[:, : episode.k_shot], everywhere if whole else points[:, episode.k_shot :]):
            x = grid(self.device)[places]
            parts += [x, a * torch.sin(x + b)]
        return Drawn(torch.cat([wave, points], dim=1), tuple(parts))

    def examples(
        self, parts: tuple[Tensor, ...], episode: Episode, dtype: torch.dtype
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return x ``[T, n, 1]`` and y ``[T, n]`` of support and query."""
        support_x, support_y, query_x, query_y = (part.to(dtype) for part in parts)
        return (support_x[..., None], support_y), (query_x[..., None], query_y)


def parameters(wave: Tensor) -> tuple[Tensor, Tensor]:
    """Turn 31 bits each, ``[T, 2]``, into amplitudes and phases, float64 ``[T, 1]``, at the middle of their cells."""
    share = (wave.double() + 0.5) / 2**31
    (a0, a1), (b0, b1) = AMPLITUDE, PHASE
    return a0 + (a1 - a0) * share[:, :1], b0 + (b1 - b0) * share[:, 1:]


def grid(device: torch.device | None = None) -> Tensor:
    """Return the points of the grid, float64 ``[POINTS]``."""
    return torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64, device=device)


@register_dataset("sine")
class Sine(Dataset):
    """The sine waves of the MAML and Reptile papers, as the latter draws them."""

    paper = "Finn et al. 2017, arXiv:1703.03400, section 5.1; Nichol et al. 2018, arXiv:1803.02999, section 3"
    licence = "none needed: made here"

    def load(self, root: Path, cache: Path) -> SineWaves:
        """Return the waves, for which no file is needed."""
        return SineWaves()
