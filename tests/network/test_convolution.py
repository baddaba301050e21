"""Products of every task with its own weights."""

import torch

from bench.network.convolution import linear


def test_a_bf16_product_is_that_of_rounded_factors():
    """1 + 2**-9 is 1 in bfloat16, and so is its square; the bias keeps its digits."""
    x = torch.full((1, 1, 1), 1 + 2.0**-9)
    weight, bias = torch.full((1, 1, 1), 1 + 2.0**-9), torch.full((1, 1), 2.0**-9)
    assert linear(x, weight.bfloat16(), bias).item() == 1 + 2.0**-9
    assert linear(x, weight, bias).item() == (1 + 2.0**-9) ** 2 + 2.0**-9
