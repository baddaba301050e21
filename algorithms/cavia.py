"""CAVIA: few context parameters adapt to a task, all weights of the network are shared."""

from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.inner_loop import normalisation
from algorithms.maml import MAML
from bench.api import BenchError, Weights, searched
from bench.registry import register_algorithm

_CONTEXT = "context"


@register_algorithm("cavia")
@dataclass(frozen=True)
class CAVIA(MAML):
    """A context vector c, zero before a task, follows the inner rule and shifts some weights linearly: w = w_0 + M c.

    These are the scales and shifts of normalisation, so that this is FiLM behind every normalisation, as in the paper's
    image networks; without normalisation it is the bias of the first layer, which is what a context beside the input
    of that layer comes to. The outer loop learns the maps M with all weights. The exact gradient through the steps of
    the context, second order. Cost: that of MAML, with ``context`` numbers a task in place of all weights.

    Attributes:
        context: how many context parameters; 100 in the paper's image tasks, 5 for sine waves.
        inner_lr: of the context; 1 in the paper.
    """

    inner_lr: float = searched(1.0, low=0.01, high=10.0, log=True)
    context: int = 100

    paper = "Zintgraf et al. 2019, arXiv:1810.03642"
    by_default = False

    def extra_weights(self, network: Weights) -> Weights:
        """Return the maps ``[..., context]``, uniform as a linear layer's of that many inputs, the same for every seed.

        Raises:
            BenchError: the network has neither normalisation nor a bias.
        """
        shifted = normalisation(network) or [name for name, w in network.items() if name.endswith("bias")][:1]
        if not shifted:
            raise BenchError("cavia shifts scales and shifts of normalisation, or a bias; this network has neither")
        rng, bound = torch.Generator().manual_seed(0), self.context**-0.5
        drawn = {n: torch.rand(*network[n].shape, self.context, generator=rng, dtype=torch.float64) for n in shifted}
        return {f"map/{n}": (bound * (2 * u - 1)).to(network[n]) for n, u in drawn.items()}

    def adapted(self, slow: Weights) -> list[str]:
        """Name the weights that the context shifts."""
        return [name for name in slow if f"map/{name}" in slow]

    def initial_state(self, slow: Weights) -> Weights:
        """Return the context and the state of its rule, all zero."""
        context = next(iter(slow.values())).new_zeros(self.context)
        return {_CONTEXT: context, **self.state_of({_CONTEXT: context})}

    def inner_step(self, loss: Tensor, fast: Weights, carry: Weights, step: int) -> tuple[Weights, Weights]:
        """Return the shifted weights after a step of the context, and the context."""
        maps = {name: fast[f"map/{name}"].flatten(1, -2) for name in self.adapted(fast)}  # each [T, numbers, context]
        slopes = [g.flatten(1)[:, None] @ maps[name] for name, g in self.inner_grads(loss, fast).items()]
        slope = torch.cat(slopes, dim=1).sum(dim=1)  # [T, context]
        moved, carry = self.by_rule({_CONTEXT: carry[_CONTEXT]}, {_CONTEXT: slope}, {}, carry, step)
        change = (moved[_CONTEXT] - carry[_CONTEXT])[:, :, None]  # [T, context, 1]
        shifted = {name: fast[name] + (m @ change).view_as(fast[name]) for name, m in maps.items()}
        return shifted, {**carry, **moved}
