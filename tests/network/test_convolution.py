"""Products of every task with its own weights."""

import pytest
import torch
from tangents import check_tangents

from bench.network.convolution import by_patches, grouped, linear


def test_a_bf16_product_is_that_of_rounded_factors():
    """1 + 2**-9 is 1 in bfloat16, and so is its square; the bias keeps its digits."""
    x = torch.full((1, 1, 1), 1 + 2.0**-9)
    weight, bias = torch.full((1, 1, 1), 1 + 2.0**-9), torch.full((1, 1), 2.0**-9)
    assert linear(x, weight.bfloat16(), bias).item() == 1 + 2.0**-9
    assert linear(x, weight, bias).item() == (1 + 2.0**-9) ** 2 + 2.0**-9


@pytest.mark.parametrize("moving", [(0,), (1,), (0, 1)], ids=["inputs", "weights", "both"])
@pytest.mark.parametrize("product", ["linear", "grouped", "patches"])
def test_products_move_with_their_factors_forward_and_forward_over_reverse(product, moving, rng):
    def numbers(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    of, factors = {
        "linear": (lambda x, w: linear(x, w, None), (numbers(2, 3, 4), numbers(2, 5, 4))),
        "grouped": (lambda x, w: grouped(x, w, ((2, 2), (1, 1), 2)), (numbers(3, 4, 5, 5), numbers(6, 2, 3, 3))),
        "patches": (
            lambda x, w: by_patches(x, w, None, (2, 2), (1, 1)), (numbers(2, 2, 5, 5, 2), numbers(2, 3, 2, 3, 3)),
        ),
    }[product]  # fmt: skip
    check_tangents(of, factors, moving)
