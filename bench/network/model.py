"""A user's network as a function of stacked weights, and the task loss over it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import replace_all_batch_norm_modules_

from bench.api import Examples, Objective, Weights
from bench.network.forward import OwnForward
from bench.network.kernels import NATIVE, Kernels
from bench.network.stacked import Form, TasksInside, TasksOutside
from bench.network.stages import PRODUCTS, Stage, stages_of
from bench.tasks.images import Classification

STACKED, OWN, LOOP = "stacked", "own", "loop"


@dataclass(frozen=True)
class Way:
    """How a network is run under T sets of weights.

    ``stacked``: layers over stacked weights (``bench.network.stacked``), for the usual layers in ``nn.Sequential``.
    ``own``: the network's own forward for all tasks at once, by vmap. ``loop``: its own forward, task by task.

    Args:
        strays: operations are looked through for parameters that layers keep in lists of their own.
        reason: why it is no faster way than a loop.
        once: why torch cannot differentiate the network twice.
    """

    name: str
    strays: bool = False
    reason: str = ""
    once: str = ""


class Classifier:
    """Loss and outputs of one network under T sets of weights: the harness's ``TaskLoss``.

    Every way but the stacked one differentiates the network's own forward from outside (vmap of a gradient over batch
    normalisation gives a wrong second order). BatchNorm uses batch statistics, never running ones, in training and
    evaluation alike. Parameters that require no gradient are no weights: they neither adapt nor learn.

    Args:
        form: how the images of T tasks lie in memory; by the device of the network unless given.
        product: the type in which the inputs of matrix products are handed over; None for that of the weights. Weights,
            biases, normalisation and loss keep the type of the weights.
        objective: the loss of an example; cross-entropy unless given.
        way: how to run it (``bench.network.agreement.choose_way``); by its layers unless given.
        strays: the parameters by name as they were made, where the network was moved to a device since.
    """

    def __init__(
        self,
        network: nn.Module,
        kernels: Kernels = NATIVE,
        form: type[Form] | None = None,
        product: torch.dtype | None = None,
        objective: Objective | None = None,
        way: Way | None = None,
        strays: Mapping[str, nn.Parameter] | None = None,
    ) -> None:
        replace_all_batch_norm_modules_(network)
        self.network = network.eval()  # no dropout: its random numbers would depend on what was drawn before
        self.product = product
        self.objective = objective or Classification()
        layers = network.named_modules(remove_duplicate=False)
        self._factors = {f"{name}.weight" if name else "weight" for name, m in layers if type(m) in PRODUCTS}
        self.stages = stages_of(network) if way is None or way.name == STACKED else None
        self.way = way or Way(OWN if self.stages is None else STACKED)
        self._forward = OwnForward(network, self.way.name != LOOP, strays or {} if self.way.strays else None)
        own = dict(network.named_parameters())
        self._frozen = {name: p.detach() for name, p in own.items() if not p.requires_grad}
        names = {p: name for name, p in own.items()}
        every = network.named_parameters(remove_duplicate=False)
        self._tied = {name: names[p] for name, p in every if names[p] != name}
        on_gpu = any(p.is_cuda for p in network.parameters())
        self.form = (form or (TasksOutside if on_gpu else TasksInside))(kernels)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Return the initial weights by name, detached copies, those of convolutions channels-last in memory."""
        own = self.network.named_parameters()
        return {name: _channels_last(p.detach()).clone() for name, p in own if p.requires_grad}

    def __call__(self, fast: Weights, examples: Examples) -> Tensor:
        """Return the mean loss of every task, ``[T]``."""
        return self.of_outputs(self.outputs(fast, examples.x), examples.y)

    def of_outputs(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss ``[T]`` of outputs ``[T, n, O]``, the network's or others."""
        at_once = self.form.kernels.cross_entropy
        if at_once is not None and type(self.objective) is Classification:
            return at_once(outputs, y)
        return self.objective.loss(outputs, y).mean(dim=1)

    def moving(self, examples: Examples, names: Collection[str]) -> Callable[[Weights], Tensor]:
        """Return the mean loss ``[T]`` of ``examples`` as a function of weights of which only ``names`` move.

        Layers in front of the first that has one of these run once, and again after a gradient has passed through them,
        which frees what it needs. A network of another way runs whole. Of tied weights the first layer's name counts.
        """
        stages = self.stages or []
        still = next((place for place, stage in enumerate(stages) if not stage.reads.isdisjoint(names)), 0)
        return _Moving(self, examples, still) if still else lambda fast: self(fast, examples)

    def outputs(self, fast: Weights, x: Tensor) -> Tensor:
        """Map inputs ``[T, n, ...]`` to the network's outputs ``[T, n, output_size]``."""
        if self.stages is None:
            own = {name: fast[name] for name, p in self.network.named_parameters() if p.requires_grad}
            with torch.autocast(x.device.type, self.product, enabled=self.product is not None, cache_enabled=False):
                y = self._forward(own, x)
            return y.to(next(iter(own.values())).dtype)
        return self._through(self.stages, self._cast(fast), x)

    def outputs_alone(self, fast: Weights, support: Tensor, queries: Tensor) -> Tensor:
        """Return the outputs of each of the queries ``[T, q, ...]`` in a batch of its own with the support inputs.

        All layers in front of the first BatchNorm see the support inputs once; without any, the queries are enough.
        """
        if self.stages is None:
            batches = [torch.cat([support, image], dim=1) for image in queries.split(1, dim=1)]
            return torch.cat([self.outputs(fast, batch)[:, -1:] for batch in batches], dim=1)
        shared = next((place for place, stage in enumerate(self.stages) if stage.across), len(self.stages))
        if shared == len(self.stages):
            return self.outputs(fast, queries)
        fast, x = self._cast(fast), torch.cat([support, queries], dim=1)
        x = self._through(self.stages[:shared], fast, x)
        dim = self.form.image_dim if x.dim() == 5 else 1
        known, *images = x.split([support.shape[1], *[1] * queries.shape[1]], dim=dim)
        rest = self.stages[shared:]
        together = (torch.cat([known, image], dim=dim) for image in images)
        return torch.cat([self._through(rest, fast, batch, entered=True)[:, -1:] for batch in together], dim=1)

    def _cast(self, fast: Weights) -> Weights:
        """Return all weights that stages ask for, those that products follow in the type of these."""
        if self._frozen or self._tied:
            n_tasks = len(next(iter(fast.values())))
            fast = {**fast, **{name: w.expand(n_tasks, *w.shape) for name, w in self._frozen.items()}}
            fast |= {name: fast[first] for name, first in self._tied.items()}
        if self.product is None:
            return fast
        return {name: w.to(self.product) if name in self._factors else w for name, w in fast.items()}

    def _through(self, stages: Sequence[Stage], fast: Weights, x: Tensor, entered: bool = False) -> Tensor:
        """Run some stages on inputs ``[T, n, ...]``, images ``[T, n, C, H, W]``, or on what is in the form already."""
        if x.dim() == 5 and not entered:
            x = self.form.enter(x)
        for stage in stages:
            x = stage.run(self.form, fast, x)
        return x


class _Moving:
    """The loss of ``examples`` under weights that leave the first ``still`` stages alone, which run when they must."""

    def __init__(self, of: Classifier, examples: Examples, still: int) -> None:
        self._of, self._examples, self._stages = of, examples, of.stages or []
        self._still = still
        self._front: Tensor | None = None

    def __call__(self, fast: Weights) -> Tensor:
        """Return the mean loss ``[T]``."""
        of, fast = self._of, self._of._cast(fast)
        if self._front is None:
            self._front = of._through(self._stages[: self._still], fast, self._examples.x)
            if self._front.requires_grad:
                mine = weakref.ref(self)  # a hook that held this would keep it, and what it belongs to, for ever
                self._front.register_hook(lambda _: _forget(mine))
        rest = of._through(self._stages[self._still :], fast, self._front, entered=True)
        return of.of_outputs(rest, self._examples.y)

    def forget(self) -> None:
        """Have the first stages run again."""
        self._front = None


def _forget(moving: weakref.ref[_Moving]) -> None:
    if (found := moving()) is not None:
        found.forget()


def _channels_last(w: Tensor) -> Tensor:
    return w.contiguous(memory_format=torch.channels_last) if w.dim() == 4 else w
