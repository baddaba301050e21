"""A user's network as a function of stacked weights, and the task loss over it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, replace_all_batch_norm_modules_, vmap

from bench.api import Examples, Objective, Weights
from bench.network.kernels import UNCOMPILED, Kernels
from bench.network.stacked import Form, TasksInside, TasksOutside
from bench.network.stages import PRODUCTS, Stage, stages_of
from bench.tasks.images import Classification


class Classifier:
    """Loss and outputs of one network under T sets of weights: the harness's ``TaskLoss``.

    A network made of the usual layers in ``nn.Sequential`` runs on ``bench.network.stacked``; any other ``nn.Module``
    through ``torch.func.vmap`` of its forward pass, differentiated from outside (vmap of a gradient over batch
    normalisation gives a wrong second order). BatchNorm uses batch statistics, never running ones, in training and
    evaluation alike.

    Args:
        form: how the images of T tasks lie in memory; by the device of the network unless given.
        product: the type in which the inputs of matrix products are handed over; None for that of the weights. Weights,
            biases, normalisation and loss keep the type of the weights.
        objective: the loss of an example; cross-entropy unless given.
    """

    def __init__(
        self,
        network: nn.Module,
        kernels: Kernels = UNCOMPILED,
        form: type[Form] | None = None,
        product: torch.dtype | None = None,
        objective: Objective | None = None,
    ) -> None:
        replace_all_batch_norm_modules_(network)
        self.network = network.eval()  # no dropout: its random numbers would depend on what was drawn before
        self.product = product
        self.objective = objective or Classification()
        layers = network.named_modules(remove_duplicate=False)
        self._factors = {f"{name}.weight" if name else "weight" for name, m in layers if type(m) in PRODUCTS}
        self.stages, self._shared = stages_of(network)
        on_gpu = any(p.is_cuda for p in network.parameters())
        self.form = (form or (TasksOutside if on_gpu else TasksInside))(kernels)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Return the initial weights by name, detached copies, those of convolutions channels-last in memory."""
        return {name: _channels_last(p.detach()).clone() for name, p in self.network.named_parameters()}

    def __call__(self, fast: Weights, examples: Examples) -> Tensor:
        """Return the mean loss of every task, ``[T]``."""
        return self.objective.loss(self.outputs(fast, examples.x), examples.y).mean(dim=1)

    def outputs(self, fast: Weights, x: Tensor) -> Tensor:
        """Map inputs ``[T, n, ...]`` to the network's outputs ``[T, n, output_size]``."""
        if self.stages is None:
            own = {name: fast[name] for name, _ in self.network.named_parameters()}
            with torch.autocast(x.device.type, self.product, enabled=self.product is not None, cache_enabled=False):
                y: Tensor = vmap(lambda w, x: functional_call(self.network, w, (x,)))(own, x)
            return y.to(next(iter(own.values())).dtype)
        return self._through(self.stages, self._cast(fast), x)

    def outputs_alone(self, fast: Weights, support: Tensor, queries: Tensor) -> Tensor:
        """Return the outputs of each of the queries ``[T, q, ...]`` in a batch of its own with the support inputs.

        All layers in front of the first BatchNorm see the support inputs once; without any, the queries are enough.
        """
        if self.stages is None:
            batches = [torch.cat([support, image], dim=1) for image in queries.split(1, dim=1)]
            return torch.cat([self.outputs(fast, batch)[:, -1:] for batch in batches], dim=1)
        if self._shared == len(self.stages):
            return self.outputs(fast, queries)
        fast, x = self._cast(fast), torch.cat([support, queries], dim=1)
        x = self._through(self.stages[: self._shared], fast, x)
        dim = self.form.image_dim if x.dim() == 5 else 1
        shared, *images = x.split([support.shape[1], *[1] * queries.shape[1]], dim=dim)
        rest = self.stages[self._shared :]
        together = (torch.cat([shared, image], dim=dim) for image in images)
        return torch.cat([self._through(rest, fast, batch, entered=True)[:, -1:] for batch in together], dim=1)

    def _cast(self, fast: Weights) -> Weights:
        """Return the weights, those that products follow in the type of these."""
        if self.product is None:
            return fast
        return {name: w.to(self.product) if name in self._factors else w for name, w in fast.items()}

    def _through(self, stages: Sequence[Stage], fast: Weights, x: Tensor, entered: bool = False) -> Tensor:
        """Run some stages on inputs ``[T, n, ...]``, images ``[T, n, C, H, W]``, or on what is in the form already."""
        if x.dim() == 5 and not entered:
            x = self.form.enter(x)
        for stage in stages:
            x = stage(self.form, fast, x)
        return x


def _channels_last(w: Tensor) -> Tensor:
    return w.contiguous(memory_format=torch.channels_last) if w.dim() == 4 else w
