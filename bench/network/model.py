"""A user's network as a function of stacked weights, and the task loss over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, replace_all_batch_norm_modules_, vmap

from bench.api import Backbone, Examples, Objective, Weights
from bench.network import stacked
from bench.network.kernels import UNCOMPILED, Kernels
from bench.network.layers import BatchNormShift2d, Rotate180
from bench.network.stacked import Form, TasksInside, TasksOutside
from bench.tasks.images import Classification

Stage = Callable[[Form, Weights, Tensor], Tensor]


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
        self._factors = {f"{name}.weight" if name else "weight" for name, m in layers if type(m) in _PRODUCTS}
        self.stages, self._shared = _compile(network)
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


def build_network(backbone: Backbone, input_shape: tuple[int, ...], output_size: int, seed: int) -> nn.Module:
    """Build a network whose initial weights depend on ``seed`` alone, leaving torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = backbone.build(input_shape, output_size)
    if not isinstance(network, nn.Module):
        raise TypeError(f"build returned {type(network).__name__}; it must return a torch.nn.Module")
    return network


def _compile(network: nn.Module) -> tuple[list[Stage] | None, int]:
    """Return the stacked form of a sequence of known layers, None where a layer is not known.

    The number says how many stages come before the first that looks across its batch.
    """
    layers = _layers(network, "")
    if layers is None:
        return None, 0
    shared: int | None = None
    first_names: dict[nn.Module, str] = {}
    layers = [
        (first_names.setdefault(layer, name), layer) for name, layer in layers
    ]  # a layer used again keeps its name
    stages: list[Stage] = []
    position = 0
    while position < len(layers):
        name, layer = layers[position]
        following = layers[position + 1][1] if position + 1 < len(layers) else None
        make = _STAGES.get(type(layer))
        stage = make(name, layer, following) if make else None
        if stage is None:
            return None, 0
        if shared is None and type(layer) in _NORMS:
            shared = len(stages)
        stages.append(stage)
        position += 2 if type(layer) in _NORMS and type(following) is nn.ReLU else 1
    return stages, len(stages) if shared is None else shared


def _layers(module: nn.Module, name: str) -> list[tuple[str, nn.Module]] | None:
    """Return the named layers of nested ``nn.Sequential``s in order, None if something else is among them."""
    if type(module) is not nn.Sequential:
        return [(name, module)] if type(module) in _STAGES else None
    layers: list[tuple[str, nn.Module]] = []
    for child_name, child in module._modules.items():  # named_children() leaves out a layer that is used again
        assert child is not None
        inner = _layers(child, f"{name}.{child_name}" if name else child_name)
        if inner is None:
            return None
        layers += inner
    return layers


def _channels_last(w: Tensor) -> Tensor:
    return w.contiguous(memory_format=torch.channels_last) if w.dim() == 4 else w


def _conv(name: str, layer: nn.Conv2d, following: nn.Module | None) -> Stage | None:
    if layer.groups != 1 or layer.dilation != (1, 1) or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return None
    # A bias in front of BatchNorm cancels. Left out, its gradient is an exact zero, not rounding noise that Adam
    # would blow up to full steps.
    bias = f"{name}.bias" if layer.bias is not None and type(following) not in _NORMS else None
    stride, padding = (layer.stride[0], layer.stride[1]), (layer.padding[0], layer.padding[1])
    return lambda form, w, x: form.conv2d(x, w[f"{name}.weight"], w[bias] if bias else None, stride, padding)


def _linear(name: str, layer: nn.Linear, following: nn.Module | None) -> Stage:
    bias = f"{name}.bias" if layer.bias is not None and type(following) not in _NORMS else None
    return lambda form, w, x: stacked.linear(x, w[f"{name}.weight"], w[bias] if bias else None)


def _batch_norm_1d(name: str, layer: nn.BatchNorm1d, following: nn.Module | None) -> Stage | None:
    relu = type(following) is nn.ReLU
    if not layer.affine:
        return None
    return lambda form, w, x: stacked.batch_norm(
        x, w[f"{name}.weight"], w[f"{name}.bias"], layer.eps, relu, form.kernels
    )


def _batch_norm_2d(name: str, layer: nn.BatchNorm2d, following: nn.Module | None) -> Stage | None:
    relu = type(following) is nn.ReLU
    if not layer.affine:
        return None
    return lambda form, w, x: form.batch_norm(x, w[f"{name}.weight"], w[f"{name}.bias"], layer.eps, relu)


def _shift_norm(name: str, layer: BatchNormShift2d, following: nn.Module | None) -> Stage:
    relu, shift = type(following) is nn.ReLU, f"{name}.{layer.SHIFT}"
    return lambda form, w, x: form.batch_norm(x, torch.ones_like(w[shift]), w[shift], layer.eps, relu)


def _global_average(name: str, layer: nn.AdaptiveAvgPool2d, following: nn.Module | None) -> Stage | None:
    if layer.output_size not in (1, (1, 1)):
        return None
    return lambda form, w, x: form.global_average(x)


def _flatten(name: str, layer: nn.Flatten, following: nn.Module | None) -> Stage | None:
    if (layer.start_dim, layer.end_dim) != (1, -1):
        return None
    return lambda form, w, x: form.flatten(x) if x.dim() == 5 else x.flatten(2)


_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, BatchNormShift2d)
_PRODUCTS = (nn.Conv2d, nn.Linear)
_STAGES: dict[type[nn.Module], Callable[..., Stage | None]] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.BatchNorm1d: _batch_norm_1d,
    nn.BatchNorm2d: _batch_norm_2d,
    BatchNormShift2d: _shift_norm,
    Rotate180: lambda name, layer, following: lambda form, w, x: x.flip(form.position_dims),
    nn.Tanh: lambda name, layer, following: lambda form, w, x: x.tanh(),
    nn.ReLU: lambda name, layer, following: lambda form, w, x: x.relu(),
    nn.MaxPool2d: lambda name, layer, following: lambda form, w, x: form.max_pool(x, layer),
    nn.AdaptiveAvgPool2d: _global_average,
    nn.Flatten: _flatten,
}
