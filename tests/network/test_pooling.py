"""Max-pooling that keeps places alone, against torch's own."""

import pytest
import torch
from tangents import check_tangents
from torch import nn

from bench.network.pooling import max_pool
from bench.training.memory import LiveTensors


@pytest.mark.parametrize("layer", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d((2, 3), 1, ceil_mode=True)])
def test_three_derivatives_equal_those_of_torch(layer, rng):
    x = torch.randn(2, 3, 7, 6, generator=rng, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    found = []
    for y in (max_pool(x, layer), layer(x)):
        results = [y]
        for _ in range(3):
            results += torch.autograd.grad((results[-1] ** 4).sum(), x, create_graph=True)
        found.append(results)
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


def test_images_are_not_kept(rng):
    x = torch.rand(2, 8, 16, 16, generator=rng).requires_grad_()
    with LiveTensors() as live:
        y = max_pool(x * 1, nn.MaxPool2d(2))
    assert live.held == y.numel() * (4 + 8), "what comes out, and where it was"


@pytest.mark.parametrize("layer", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1)])
def test_pooling_moves_with_what_it_is_given_forward_and_forward_over_reverse(layer, rng):
    x = torch.randn(2, 3, 7, 6, generator=rng, dtype=torch.float64)
    check_tangents(lambda x: max_pool(x, layer), [x.contiguous(memory_format=torch.channels_last)], (0,))
