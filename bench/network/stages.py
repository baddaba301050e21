"""A sequence of the usual layers as stages that run on stacked weights, looked up in one table by the layer's class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api import Weights
from bench.network.layers import (
    BatchNormShift2d,
    MeanOfTokens,
    Positions,
    Residual,
    Rotate180,
    SelfAttention,
    Tokens,
    attend,
)
from bench.network.normalisation import normalise
from bench.network.stacked import Form

_Run = Callable[[Form, Weights, Tensor], Tensor]


@dataclass(frozen=True)
class Stage:
    """A layer over stacked weights, with an activation that follows where it takes that upon itself.

    Attributes:
        run: maps form, weights and inputs to outputs.
        reads: the names of the layer's parameters.
        across: it looks across its batch.
    """

    run: _Run
    reads: frozenset[str]
    across: bool


def stages_of(network: nn.Module, name: str = "") -> list[Stage] | None:
    """Return the stacked form of a sequence of known layers, None where a layer is not known.

    ``name`` stands in front of the names of the layers.
    """
    layers = _layers(network, name)
    if layers is None:
        return None
    stages: list[Stage] = []
    position = 0
    while position < len(layers):
        own_name, layer = layers[position]
        following = layers[position + 1][1] if position + 1 < len(layers) else None
        run = _STAGES[type(layer)](own_name, layer, following)
        if run is None:
            return None
        reads = {f"{own_name}.{p}" if own_name else p for p, _ in layer.named_parameters(remove_duplicate=False)}
        stages.append(Stage(run, frozenset(reads), any(type(inner) in _NORMS for inner in layer.modules())))
        position += 2 if type(layer) in _NORMS and _slope(following) is not None else 1
    return stages


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


def _conv(name: str, layer: nn.Conv2d, following: nn.Module | None) -> _Run | None:
    if layer.groups != 1 or layer.dilation != (1, 1) or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return None
    # A bias in front of BatchNorm cancels. Left out, its gradient is an exact zero, not rounding noise that Adam
    # would blow up to full steps.
    bias = f"{name}.bias" if layer.bias is not None and type(following) not in _NORMS else None
    stride, padding = (layer.stride[0], layer.stride[1]), (layer.padding[0], layer.padding[1])
    return lambda form, w, x: form.conv2d(x, w[f"{name}.weight"], w[bias] if bias else None, stride, padding)


def _linear(name: str, layer: nn.Linear, following: nn.Module | None) -> _Run:
    bias = f"{name}.bias" if layer.bias is not None and type(following) not in _NORMS else None

    def stage(form: Form, w: Weights, x: Tensor) -> Tensor:
        if x.dim() == 5:  # images that the layer before left as they lie
            return form.linear(x, w[f"{name}.weight"], w[bias] if bias else None)
        y = form.linear(x.flatten(1, -2), w[f"{name}.weight"], w[bias] if bias else None)
        return y if x.dim() == 3 else y.view(*x.shape[:-1], -1)

    return stage


def _batch_norm(name: str, layer: nn.BatchNorm1d | nn.BatchNorm2d, following: nn.Module | None) -> _Run | None:
    slope, weight, bias = _slope(following), f"{name}.weight", f"{name}.bias"
    if not layer.affine:
        return None
    if isinstance(layer, nn.BatchNorm1d):
        return lambda form, w, x: normalise(x, w[weight], w[bias], layer.eps, slope, 1, form.kernels)
    return lambda form, w, x: form.batch_norm(x, w[weight], w[bias], layer.eps, slope)


def _shift_norm(name: str, layer: BatchNormShift2d, following: nn.Module | None) -> _Run:
    slope, shift = _slope(following), f"{name}.{layer.SHIFT}"
    return lambda form, w, x: form.batch_norm(x, torch.ones_like(w[shift]), w[shift], layer.eps, slope)


def _slope(layer: nn.Module | None) -> float | None:
    """Return the slope of an activation that normalisation takes upon itself: it is told from the result's sign."""
    if type(layer) is nn.LeakyReLU and layer.negative_slope > 0:
        return float(layer.negative_slope)
    return 0.0 if type(layer) is nn.ReLU else None


def _layer_norm(name: str, layer: nn.LayerNorm, following: nn.Module | None) -> _Run | None:
    if len(layer.normalized_shape) != 1:
        return None
    factor, shift = (f"{name}.{part}" if layer._parameters.get(part) is not None else "" for part in ("weight", "bias"))

    def per_task(w: Tensor, x: Tensor) -> Tensor:
        return w.view(len(w), *[1] * (x.dim() - 2), -1)

    def stage(form: Form, w: Weights, x: Tensor) -> Tensor:
        if x.dim() == 5:
            raise ValueError("the last dimension of images is not where either form has it")
        y = F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
        y = y * per_task(w[factor], x) if factor else y
        return y + per_task(w[shift], x) if shift else y

    return stage


def _residual(name: str, layer: Residual, following: nn.Module | None) -> _Run | None:
    body, shortcut = (
        stages_of(part, f"{name}.{of}") for of, part in (("body", layer.body), ("shortcut", layer.shortcut))
    )
    if body is None or shortcut is None:
        return None

    def stage(form: Form, w: Weights, x: Tensor) -> Tensor:
        y = x
        for inner in body:
            y = inner.run(form, w, y)
        for inner in shortcut:
            x = inner.run(form, w, x)
        return y + x

    return stage


def _self_attention(name: str, layer: SelfAttention, following: nn.Module | None) -> _Run:
    before, after = _linear(f"{name}.inputs", layer.inputs, None), _linear(f"{name}.outputs", layer.outputs, None)
    product = f"{name}.inputs.weight"
    return lambda form, w, x: after(form, w, attend(before(form, w, x), layer.heads, w[product].dtype))


def _max_pool(name: str, layer: nn.MaxPool2d, following: nn.Module | None) -> _Run | None:
    return None if layer.return_indices else lambda form, w, x: form.max_pool(x, layer)


def _global_average(name: str, layer: nn.AdaptiveAvgPool2d, following: nn.Module | None) -> _Run | None:
    if layer.output_size not in (1, (1, 1)):
        return None
    return lambda form, w, x: form.global_average(x)


def _flatten(name: str, layer: nn.Flatten, following: nn.Module | None) -> _Run | None:
    if (layer.start_dim, layer.end_dim) != (1, -1):
        return None
    if type(following) is nn.Linear:
        return lambda form, w, x: x if x.dim() == 5 else x.flatten(2)
    return lambda form, w, x: form.flatten(x) if x.dim() == 5 else x.flatten(2)


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, BatchNormShift2d)
PRODUCTS = (nn.Conv2d, nn.Linear)
_STAGES: dict[type[nn.Module], Callable[..., _Run | None]] = {
    nn.Conv2d: _conv,
    nn.Linear: _linear,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    BatchNormShift2d: _shift_norm,
    Rotate180: lambda name, layer, following: lambda form, w, x: x.flip(form.position_dims),
    nn.Tanh: lambda name, layer, following: lambda form, w, x: x.tanh(),
    nn.ReLU: lambda name, layer, following: lambda form, w, x: x.relu(),
    nn.LeakyReLU: lambda name, layer, following: lambda form, w, x: F.leaky_relu(x, layer.negative_slope),
    nn.GELU: lambda name, layer, following: lambda form, w, x: F.gelu(x, approximate=layer.approximate),
    nn.Identity: lambda name, layer, following: lambda form, w, x: x,
    nn.LayerNorm: _layer_norm,
    nn.MaxPool2d: _max_pool,
    nn.AdaptiveAvgPool2d: _global_average,
    nn.Flatten: _flatten,
    Residual: _residual,
    Tokens: lambda name, layer, following: lambda form, w, x: form.tokens(x),
    Positions: lambda name, layer, following: lambda form, w, x: x + w[f"{name}.embedding"].unsqueeze(1),
    MeanOfTokens: lambda name, layer, following: lambda form, w, x: x.mean(2),
    SelfAttention: _self_attention,
}
