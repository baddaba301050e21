"""The sizes of resnet12, and what it refuses."""

import itertools

import pytest
import torch
from torch import nn

from bench.api import BenchError
from bench.registry import BACKBONES, create_backbone, hyperparameter_types
from bench.settings.values import coerce


@pytest.mark.parametrize(("widths", "millions"), [("64-128-256-512", 8.0), ("64-160-320-640", 12.4)])
def test_parameters_are_those_counted_on_paper(widths, millions):
    """A block: 9 c w and twice 9 w w for its convolutions, c w for the shortcut, 2 w for each of four BatchNorms."""
    network = create_backbone("resnet12", widths=widths).build((3, 84, 84), 5)
    sizes = [3, *map(int, widths.split("-"))]
    body = sum(9 * c * w + 18 * w * w + c * w + 8 * w for c, w in itertools.pairwise(sizes))
    assert sum(p.numel() for p in network.parameters()) == body + (sizes[-1] + 1) * 5
    assert round(body / 1e6, 1) == millions


def test_it_is_the_network_of_the_papers(rng):
    """They bend first and pool then; each of their blocks halves the image."""
    network = create_backbone("resnet12").build((3, 40, 33), 5).train()
    x = torch.rand(4, 3, 40, 33, generator=rng)
    y = x
    for place in range(0, 12, 3):
        sizes = y.shape[-2:]
        y = nn.functional.max_pool2d(nn.functional.leaky_relu(network[place](y), 0.1), 2)
        assert y.shape[-2:] == (sizes[0] // 2, sizes[1] // 2)
    torch.testing.assert_close(network(x), network[-1](y.mean((2, 3))))


def test_what_it_cannot_be_is_refused_in_one_line():
    widths = hyperparameter_types(BACKBONES.get("resnet12"))["widths"]
    with pytest.raises(BenchError, match=r"^resnet12\.widths '64'; accepted: 64-128-256-512, 64-160-320-640$"):
        coerce("resnet12.widths", "64", widths)
