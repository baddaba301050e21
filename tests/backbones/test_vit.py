"""The sizes of vit, what it sees and what it refuses."""

import pytest
import torch

from bench.api import BenchError
from bench.registry import create_backbone


@pytest.mark.parametrize(("shape", "tokens"), [((1, 28, 28), 16), ((3, 84, 84), 144), ((3, 32, 30), 25)])
def test_parameters_are_those_counted_on_paper(shape, tokens):
    """A block: two LayerNorms of 2 d, 4 d (d + 1) for attention, 4 d (d + 1) and d (4 d + 1) behind it."""
    network, d = create_backbone("vit").build(shape, 5), 64
    block = 2 * 2 * d + 4 * d * (d + 1) + 4 * d * (d + 1) + d * (4 * d + 1)
    expected = d * (49 * shape[0] + 1) + tokens * d + 4 * block + 2 * d + 5 * (d + 1)
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize("size", [(28, 28), (32, 27), (7, 7), (29, 34)])
def test_it_sees_every_pixel(size):
    torch.manual_seed(0)
    x = torch.rand(2, 3, *size, requires_grad=True)
    create_backbone("vit").build((3, *size), 5)(x).square().sum().backward()
    assert bool((x.grad != 0).all())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"depth": 0}, "depth 0; accepted: 1 or more"),
        ({"heads": 5}, "heads 5; accepted: a divisor of the width, 64"),
        ({"patch": 0}, "patch 0; accepted: 1 or more"),
    ],
)
def test_numbers_that_make_no_network_are_refused(options, said):
    with pytest.raises(BenchError, match=said):
        create_backbone("vit", **options)
