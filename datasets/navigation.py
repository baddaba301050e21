"""Navigation: a point must learn from a few tries where its goal lies, through the gradient of its return."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from bench.api import Backbone, BenchError, Bits, Dataset, Drawn, Episode, Objective, TaskPool, TaskSource
from bench.registry import register_dataset

SIDE = 1.0
"""Of the square that goals lie in, around the start."""
SPEED = 0.1
"""What an action stays below, along either axis: as clipped in the paper, but smoothly."""
PUSH = 0.02
"""The most that a disturbance moves it along either axis."""
TRIES = 1_000
"""The most tries of a task, support and query together."""

_GOAL, _PUSHES = range(2)  # purposes of random bits


class NegativeReturn(Objective):
    """The negative return of a try, which the network itself works out: to train on and to measure.

    The return is the mean reward of a step, a reward the negative squared distance to the goal.
    """

    measure: ClassVar = "negative return"
    kind: ClassVar = "error"

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return by how much each try is worse than ``y``, the best that can be thought of, ``[T, n]``."""
        return outputs.squeeze(-1) - y

    def score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the same in float64."""
        return self.loss(outputs.double(), y.double())


class Walk(nn.Module):
    """A policy in its world: maps tries ``[n, 1 + horizon, 2]`` to their negative returns ``[n, 1]``.

    Row 0 of a try is the goal, which the reward knows and the policy does not; the others are the disturbances of each
    step. The policy maps positions ``[n, 2]`` to actions ``[n, 2]``, which tanh bounds.
    """

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def positions(self, x: Tensor) -> Tensor:
        """Return where each try is after each step, ``[n, horizon, 2]``."""
        position = torch.zeros_like(x[:, 0])
        visited = []
        for push in x[:, 1:].unbind(dim=1):
            position = position + SPEED * self.policy(position).tanh() + push
            visited.append(position)
        return torch.stack(visited, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the negative return of each try, differentiable through all of its steps."""
        return (self.positions(x) - x[:, :1]).square().sum(dim=2).mean(dim=1, keepdim=True)


@dataclass(frozen=True)
class InTheWorld(Backbone):
    """Networks of ``policy`` as policies, each inside a ``Walk``."""

    policy: Backbone

    def build(self, input_shape: tuple[int, ...], output_size: int) -> nn.Module:
        """Return a policy in its world, which answers with one number for each try.

        Raises:
            BenchError: other outputs are asked for.
        """
        if output_size != 1:
            raise BenchError(
                f"navigation: a policy answers with the return of its walk, one number, and not with {output_size}"
                " embeddings or scores; accepted: algorithms that adapt a network"
            )
        return Walk(self.policy.build((2,), 2))


class Square(TaskSource):
    """Goals in the square of side 1 around the start, uniform; splits differ in their random bits alone."""

    name = "navigation"
    objective: ClassVar = NegativeReturn()

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        self.pipeline = (
            f"navigation 1: goals uniform in a square of side {SIDE} around the start, of 32 bits for each axis; "
            f"{horizon} steps of at most {SPEED} along each axis, disturbed by up to {PUSH}, uniform, of 16 bits"
        )
        self.sha256 = hashlib.sha256(self.pipeline.encode()).hexdigest()

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of a try: the goal, and the disturbances of every step."""
        return (1 + self.horizon, 2)

    def check(self, split: str, rotation: str, episode: Episode) -> None:
        """Refuse an episode that is not one of a single goal.

        Raises:
            BenchError: more than one way, or more tries than a task may have.
        """
        if episode.n_way != 1:
            raise BenchError(f"n_way {episode.n_way}: {self.name} has one goal in a task; accepted: 1")
        if episode.k_shot + episode.k_query > TRIES:
            raise BenchError(
                f"k_shot {episode.k_shot} + k_query {episode.k_query} tries of {self.name}; accepted: a sum of at most"
                f" {TRIES}"
            )

    def pool(self, split: str, rotation: str, device: torch.device) -> GoalPool:
        """Return the goals of a split; ``rotation`` means nothing here."""
        return GoalPool(self, split, "none", device)


class GoalPool(TaskPool):
    """Draws goals and disturbances as integers, which ``examples`` makes numbers of."""

    source: Square

    def draw(self, bits: Bits, episode: Episode) -> Drawn:
        """Return the tasks: 32 bits for each axis of the goal, and for each step of each try 16 for each axis."""
        words = (episode.k_shot + episode.k_query) * self.source.horizon
        drawn = torch.cat([bits(_GOAL, 2), bits(_PUSHES, words)], dim=1)
        return Drawn(drawn, (drawn,))

    def examples(
        self, parts: tuple[Tensor, ...], episode: Episode, dtype: torch.dtype
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return tries ``[T, n, 1 + horizon, 2]``, and as y the negative return of standing on the goal, which is 0."""
        (drawn,) = parts
        goal = SIDE * (share(drawn[:, :2], 32) - 0.5)  # [T, 2]
        words = drawn[:, 2:].unflatten(1, (-1, self.source.horizon))  # [T, K + Q, horizon]
        pushes = 2 * PUSH * (share(torch.stack([words & 0xFFFF, words >> 16], dim=-1), 16) - 0.5)
        x = torch.cat([goal[:, None, None].expand(-1, pushes.shape[1], -1, -1), pushes], dim=2).to(dtype)
        y = torch.zeros_like(x[:, :, 0, 0])
        k = episode.k_shot
        return (x[:, :k], y[:, :k]), (x[:, k:], y[:, k:])


def share(bits: Tensor, size: int) -> Tensor:
    """Turn numbers of ``size`` bits into shares of 1, float64, at the middle of their cells."""
    return (bits.double() + 0.5) / 2**size


@register_dataset("navigation")
@dataclass(frozen=True)
class Navigation(Dataset):
    """The 2D navigation of the MAML paper, made differentiable: any network is a policy, unrolled in its world.

    As there, the point starts in the middle of the unit square, its goal is drawn from that square, the policy sees the
    position alone, an action moves it by at most 0.1 along each axis, and the reward is the negative squared distance.

    Deviations: the gradient of the return goes through the dynamics, which the paper's policy gradient (REINFORCE,
    TRPO) does not know, so policies need no noise of their own. Actions are bounded by tanh and not clipped: a clipped
    action has no gradient, and joint training never left such a place. A try is disturbed by up to 0.02 a step, or all
    tries of a task would be one. It has ``horizon`` steps, 20 where the paper has 100: five reach any goal, the others
    must stay there. It does not end within 0.01 of the goal. The return is the mean over steps, not their sum.

    Attributes:
        horizon: steps of a try.
    """

    horizon: int = 20

    paper = "Finn et al. 2017, arXiv:1703.03400, section 5.3 (2D navigation)"
    licence = "none needed: made here"

    def __post_init__(self) -> None:
        """Refuse a horizon that makes no try.

        Raises:
            ValueError: it is out of range.
        """
        if not 1 <= self.horizon <= 1_000:
            raise ValueError(f"horizon {self.horizon}; accepted: 1 to 1000")

    def around(self, backbone: Backbone) -> InTheWorld:
        """Return what builds the backbone's networks as policies in their world."""
        return InTheWorld(backbone)

    def load(self, root: Path, cache: Path) -> Square:
        """Return the goals, for which no file is needed."""
        return Square(self.horizon)
