"""Backbones that break their contract, each a change of one linear layer: what ``bench.check`` must find, and where."""

import random

import torch
from torch import nn

from bench.api import Backbone
from bench.network.layers import BatchNormShift2d
from tests.plugins.wrong import caught

BACKBONES: dict[type, tuple[str, str]] = {}


class Linear(Backbone):
    paper = "none"

    def build(self, input_shape, output_size):
        return nn.Sequential(nn.Flatten(), nn.Linear(784, output_size))


@caught(BACKBONES, "declared", "says nothing of where it comes from")
class Anonymous(Linear):
    paper = ""


@caught(BACKBONES, "builds", "with output_size 7 give (4, 5)")
class AlwaysFive(Linear):
    def build(self, input_shape, output_size):
        return super().build(input_shape, 5)


@caught(BACKBONES, "builds", "no parameter that the inner loop may adapt")
class NothingToAdapt(Linear):
    def build(self, input_shape, output_size):
        return nn.Sequential(BatchNormShift2d(1), nn.Flatten(), nn.AdaptiveAvgPool1d(output_size))


@caught(BACKBONES, "deterministic", "other initial weights the second time")
class OwnRandomness(Linear):
    def build(self, input_shape, output_size):
        network = super().build(input_shape, output_size)
        nn.init.constant_(network[1].bias, random.random())
        return network


@caught(BACKBONES, "deterministic", "another seed gives the same initial weights")
class OwnSeed(Linear):
    def build(self, input_shape, output_size):
        torch.manual_seed(0)
        return super().build(input_shape, output_size)


class Counting(nn.Linear):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * self.calls


@caught(BACKBONES, "deterministic", "other outputs again")
class Remembers(Linear):
    def build(self, input_shape, output_size):
        return nn.Sequential(nn.Flatten(), Counting(784, output_size))


class OnceOnly(torch.autograd.Function):
    """A square whose derivative torch is told to be a constant."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0].detach())

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0].detach() * grad


class Squares(nn.Module):
    def forward(self, x):
        return OnceOnly.apply(x)


@caught(BACKBONES, "twice", "the derivative through an inner step is")
class FirstOrderOnly(Linear):
    def build(self, input_shape, output_size):
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 8), Squares(), nn.Linear(8, output_size))
