"""Networks of every kind that is not a plain sequence of layers; ``EXPECTED`` says by which way each is run."""

import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize, spectral_norm, weight_norm

from bench.api import Backbone
from bench.registry import register_backbone

EXPECTED: dict[str, str] = {}
REFUSED: dict[str, str] = {}


def network(way="", refused=""):
    """Register a function that builds a network, which is to be run by ``way`` or refused with some words."""

    def register(function):
        name = f"kind-{function.__name__.replace('_', '-')}"
        members = {
            "build": lambda self, shape, size: function(shape, size),
            "paper": "made up for a test",
            "__module__": __name__,
        }
        register_backbone(name)(dataclass(frozen=True)(type(f"Kind{function.__name__}", (Backbone,), members)))
        (EXPECTED if way else REFUSED)[name] = way or refused
        return function

    return register


class Rows(nn.Module):
    """An image as a sequence of its rows, each of 8 numbers."""

    def __init__(self, inside, size, width=8):
        super().__init__()
        self.embed, self.inside, self.head = nn.Linear(28, 8), inside, nn.Linear(width, size)

    def forward(self, x):
        return self.head(self.attend(self.embed(x.squeeze(1))).mean(1))

    def attend(self, x):
        return self.inside(x)


def small(size, *between):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 12), nn.Tanh(), *between, nn.Linear(12, size))


@network("stacked")
def plain(shape, size):
    return small(size)


@network("stacked")
def frozen_part(shape, size):
    net = small(size)
    net[1].requires_grad_(False)
    return net


@network("stacked")
def tied(shape, size):
    first, second = nn.Linear(12, 12), nn.Linear(12, 12)
    second.weight = first.weight
    return small(size, first, nn.ReLU(), second, nn.ReLU())


@network("own")
def temperature(shape, size):
    net = small(size)
    net[-1].register_forward_hook(lambda module, given, out: 10.0 * out)
    return net


@network("own")
def inputs_scaled_before(shape, size):
    net = small(size)
    net[1].register_forward_pre_hook(lambda module, given: (2 * given[0],))
    return net


@network("own")
def own_forward_of_one_layer(shape, size):
    net = small(size)
    net[1].forward = lambda x, layer=net[1]: F.linear(x, layer.weight, layer.bias).sin()
    return net


@network("own")
def weight_norm_new(shape, size):
    net = small(size)
    parametrizations.weight_norm(net[1])
    return net


@network("own")
def weight_norm_old(shape, size):
    net = small(size)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # deprecated, and in use
        weight_norm(net[1])
    return net


@network("own")
def spectral_norm_new(shape, size):
    net = small(size)
    parametrizations.spectral_norm(net[1])
    return net


@network("own")
def spectral_norm_old(shape, size):
    net = small(size)
    spectral_norm(net[1])
    return net


class Symmetric(nn.Module):
    def forward(self, w):
        return w + w.T


@network("own")
def reparametrised(shape, size):
    net = small(size, nn.Linear(12, 12))
    parametrize.register_parametrization(net[3], "weight", Symmetric())
    return net


@network("own")
def kept_in_a_list(shape, size):
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(784, 8), nn.Linear(8, size)
            self.kept = list(self.head.parameters())

        def forward(self, x):
            return F.linear(self.inner(x.flatten(1)).tanh(), *self.kept)

    return Keeps()


@network("own")
def attention(shape, size):
    class Attends(Rows):
        def attend(self, x):
            return x + self.inside(x, x, x)[0]

    return Attends(nn.MultiheadAttention(8, 2, batch_first=True), size)


@network("own")
def attention_without_weights(shape, size):
    class Attends(Rows):
        def attend(self, x):
            return x + self.inside(x, x, x, need_weights=False)[0]

    return Attends(nn.MultiheadAttention(8, 2, batch_first=True), size)


@network("own")
def attention_by_function(shape, size):
    class Attends(Rows):
        def attend(self, x):
            q, k, v = self.inside(x).chunk(3, dim=-1)
            return F.scaled_dot_product_attention(q, k, v)

    return Attends(nn.Linear(8, 24), size)


@network("own")
def transformer_layer(shape, size):
    return Rows(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), size)


@network("own")
def transformer(shape, size):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    return Rows(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), size)


class Recurrent(Rows):
    def attend(self, x):
        return self.inside(x)[0]


@network("loop")
def lstm(shape, size):
    return Recurrent(nn.LSTM(8, 8, batch_first=True), size)


@network("loop")
def gru_both_ways(shape, size):
    return Recurrent(nn.GRU(8, 8, batch_first=True, bidirectional=True), size, width=16)


@network("loop")
def elman(shape, size):
    return Recurrent(nn.RNN(8, 8, num_layers=2, batch_first=True), size)


@network("own")
def cells(shape, size):
    class Cells(Rows):
        def attend(self, x):
            h = x.new_zeros(len(x), 8)
            for step in range(3):
                h = self.inside(x[:, step], h)
            return h[:, None]

    return Cells(nn.GRUCell(8, 8), size)


class Averages(nn.Module):
    """Keeps a moving average of what it sees, and uses it or not."""

    def __init__(self, uses):
        super().__init__()
        self.uses = uses
        self.register_buffer("average", torch.zeros(12))

    def forward(self, x):
        self.average.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        return x - self.average if self.uses else x


@network("own")
def average_kept(shape, size):
    return small(size, Averages(uses=False))


@network(refused="keeps something from call to call")
def average_used(shape, size):
    return small(size, Averages(uses=True))


@network("own")
def dropout_layers(shape, size):
    return small(size, nn.Dropout(0.5), nn.AlphaDropout(0.5))


class Drops(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)


@network(refused="draws random numbers")
def dropout_always(shape, size):
    return small(size, Drops())


class Noisy(nn.Module):
    def forward(self, x):
        return x + 0.1 * torch.randn_like(x)


@network(refused="draws random numbers")
def noise(shape, size):
    return small(size, Noisy())


class Decides(nn.Module):
    def forward(self, x):
        return x.exp() if x.mean() > 100 else x


@network("loop")
def decides_by_values(shape, size):
    return small(size, Decides())


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):
        return 3 * ctx.saved_tensors[0] ** 2 * grad


class Cubes(nn.Module):
    def forward(self, x):
        return Cube.apply(x)


@network("loop")
def own_function(shape, size):
    return small(size, Cubes())


@network("stacked")
def lazy(shape, size):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(12), nn.ReLU(), nn.LazyLinear(size))


@network("own")
def normalised(shape, size):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=4),
        nn.BatchNorm2d(4),
        nn.GELU(),
        nn.GroupNorm(2, 4),
        nn.Flatten(),
        nn.LazyLinear(size),
    )


@network(refused="no parameter that learns")
def all_frozen(shape, size):
    return small(size).requires_grad_(False)


@network(refused="torch cannot differentiate it")
def detached(shape, size):
    class Detaches(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(784, size)

        def forward(self, x):
            return self.head(x.flatten(1)).detach()

    return Detaches()


@network(refused="must return a tensor")
def two_outputs(shape, size):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(784, size)

        def forward(self, x):
            return self.head(x.flatten(1)), x

    return Two()


class Caches(nn.Module):
    mean = None

    def forward(self, x):
        if self.mean is None:
            self.mean = x.detach().mean(0)
        return x - self.mean


@network(refused="keeps something from call to call")
def first_batch_kept(shape, size):
    return small(size, Caches())


class Rarely(nn.Module):
    def forward(self, x):
        return x * 0 if torch.rand(()) < 1e-6 else x


@network(refused="draws random numbers")
def seldom_random(shape, size):
    return small(size, Rarely())


@network("loop")
def lstm_with_a_state_of_its_own(shape, size):
    class Stateful(Rows):
        def attend(self, x):
            h = torch.zeros(1, len(x), 8)
            return self.inside(x, (h, h))[0]

    return Stateful(nn.LSTM(8, 8, batch_first=True), size)


class InFloat32(nn.Module):
    def forward(self, x):
        return x.float()


FLOAT32 = ("kind-in-float32-alone", "kind-lstm-with-a-state-of-its-own")
"""Of these a forward() in float64 needs torch's default type to be that, or cannot be."""


@network("own")
def in_float32_alone(shape, size):
    return small(size, InFloat32())
