"""Fused normalisation against torch's own, two derivatives deep; that of a card is in ``interpreted_card.py``."""

import pytest
import torch
import torch.nn.functional as F
from tangents import check_tangents

from bench.network.kernels import NATIVE, Kernels
from bench.network.normalisation import normalise

EPS = 1e-5


def inputs(rng, dim, n_tasks=3, m=7, channels=4, dtype=torch.float64):
    """Return x with the tasks where ``dim`` is not, weight and bias."""
    shape = (n_tasks, m, channels) if dim == 1 else (m, n_tasks, channels)
    x = torch.randn(*shape, generator=rng, dtype=dtype)
    weight, bias = (torch.randn(n_tasks, channels, generator=rng, dtype=dtype) for _ in range(2))
    return [t.requires_grad_() for t in (x, weight, bias)]


def torchs_own(x, weight, bias, slope, dim):
    """Every task by itself through ``F.batch_norm``."""
    parts = []
    for t in range(weight.shape[0]):
        y = F.batch_norm(x.select(1 - dim, t), None, None, weight[t], bias[t], training=True, eps=EPS)
        parts.append(y if slope is None else F.leaky_relu(y, slope))
    return torch.stack(parts, dim=1 - dim)


def two_derivatives(y, leaves, further=False):
    """Return y and its derivatives; only if none beyond the second is wanted do the kernels compute the second."""
    mix = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view_as(y)
    first = torch.autograd.grad(y, leaves, mix, create_graph=True)
    scalar = sum((g * torch.sin(1 + torch.arange(g.numel(), dtype=g.dtype)).view_as(g)).sum() for g in first)
    return [y, *first, *torch.autograd.grad(scalar, leaves, create_graph=further, allow_unused=True)[:2]]


@pytest.mark.parametrize("kernels", [NATIVE, Kernels()], ids=["native", "written out"])
@pytest.mark.parametrize("slope", [None, 0.0, 0.1])
@pytest.mark.parametrize("dim", [0, 1])
def test_two_derivatives_equal_those_of_torch(rng, slope, dim, kernels):
    leaves = inputs(rng, dim)
    got = two_derivatives(normalise(*leaves, EPS, slope, dim, kernels), leaves)
    for a, b in zip(got, two_derivatives(torchs_own(*leaves, slope, dim), leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_third_derivative_is_right_too(rng):
    """Against the formula written out: torch's own stops at two."""
    x, weight, bias = leaves = inputs(rng, 1)
    centred = x - x.mean(dim=1, keepdim=True)
    by_hand = centred / (centred.square().mean(dim=1, keepdim=True) + EPS).sqrt() * weight[:, None] + bias[:, None]
    thirds = []
    for y in (normalise(*leaves, EPS, None, 1, NATIVE), by_hand):
        second = two_derivatives(y, leaves, further=True)[4]
        thirds.append(torch.autograd.grad((second * second.detach().cos()).sum(), x)[0])
    torch.testing.assert_close(*thirds, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kernels", [NATIVE, Kernels()], ids=["native", "written out"])
@pytest.mark.parametrize("slope", [None, 0.0, 0.1])
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("moving", [(0,), (1, 2), (0, 1, 2)], ids=["inputs", "weights", "both"])
def test_normalisation_moves_with_what_it_is_given_forward_and_forward_over_reverse(rng, moving, dim, slope, kernels):
    def of(x, weight, bias):
        return normalise(x, weight, bias, EPS, slope, dim, kernels)

    check_tangents(of, [t.detach() for t in inputs(rng, dim, 2, 5, 3)], moving)
