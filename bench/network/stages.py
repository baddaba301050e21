"""A sequence of the usual layers as stages that run on stacked weights, looked up in one table by the layer's class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.api import Weights
from bench.network.convolution import linear
from bench.network.layers import BatchNormShift2d, Rotate180
from bench.network.normalisation import normalise
from bench.network.stacked import Form

Stage = Callable[[Form, Weights, Tensor], Tensor]


def stages_of(network: nn.Module) -> tuple[list[Stage] | None, int]:
    """Return the stacked form of a sequence of known layers, None where a layer is not known.

    The number says how many stages come before the first that looks across its batch.
    """
    layers = _layers(network, "")
    if layers is None:
        return None, 0
    shared: int | None = None
    first_names: dict[nn.Module, str] = {}  # a layer used again keeps its name
    layers = [(first_names.setdefault(layer, name), layer) for name, layer in layers]
    stages: list[Stage] = []
    position = 0
    while position < len(layers):
        name, layer = layers[position]
        following = layers[position + 1][1] if position + 1 < len(layers) else None
        stage = _STAGES[type(layer)](name, layer, following)
        if stage is None:
            return None, 0
        if shared is None and type(layer) in _NORMS:
            shared = len(stages)
        stages.append(stage)
        position += 2 if type(layer) in _NORMS and type(following) is nn.ReLU else 1
    return stages, len(stages) if shared is None else shared


def _layers(module: nn.Module, name: str) -> list[tuple[str, nn.Module]] | None:
    """Return the named layers of nested ``nn.Sequential``s in order, None if something else is among them."""
    if any(getattr(module, hooks) for hooks in _HOOKS) or "forward" in vars(module):
        return None
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
    return lambda form, w, x: linear(x, w[f"{name}.weight"], w[bias] if bias else None)


def _batch_norm(name: str, layer: nn.BatchNorm1d | nn.BatchNorm2d, following: nn.Module | None) -> Stage | None:
    relu, weight, bias = type(following) is nn.ReLU, f"{name}.weight", f"{name}.bias"
    if not layer.affine:
        return None
    if isinstance(layer, nn.BatchNorm1d):
        return lambda form, w, x: normalise(x, w[weight], w[bias], layer.eps, relu, 1, form.kernels)
    return lambda form, w, x: form.batch_norm(x, w[weight], w[bias], layer.eps, relu)


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


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, BatchNormShift2d)
PRODUCTS = (nn.Conv2d, nn.Linear)
_STAGES: dict[type[nn.Module], Callable[..., Stage | None]] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    BatchNormShift2d: _shift_norm,
    Rotate180: lambda name, layer, following: lambda form, w, x: x.flip(form.position_dims),
    nn.Tanh: lambda name, layer, following: lambda form, w, x: x.tanh(),
    nn.ReLU: lambda name, layer, following: lambda form, w, x: x.relu(),
    nn.MaxPool2d: lambda name, layer, following: lambda form, w, x: form.max_pool(x, layer),
    nn.AdaptiveAvgPool2d: _global_average,
    nn.Flatten: _flatten,
}
