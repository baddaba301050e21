"""The two forms in which images of many tasks lie in memory."""

import pytest
import torch

from bench.network.stacked import TasksInside, TasksOutside


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"), [(8, 3, 2, 1), (9, 3, 2, 1), (6, 3, 1, 0), (4, 3, 2, 1)]
)
def test_both_forms_convolve_alike_to_second_order(rng, size, kernel, stride, padding):
    """The smallest one takes the way by patches in both."""
    x = torch.randn(3, 2, 4, size, size, generator=rng, dtype=torch.float64).requires_grad_()
    w = torch.randn(3, 5, 4, kernel, kernel, generator=rng, dtype=torch.float64).requires_grad_()
    b = torch.randn(3, 5, generator=rng, dtype=torch.float64).requires_grad_()
    results = []
    for form in (TasksInside(), TasksOutside()):
        y = form.flatten(form.conv2d(form.enter(x), w, b, (stride, stride), (padding, padding)))
        y = y * y.detach().sin()
        first = torch.autograd.grad(y.square().sum(), (x, w, b), create_graph=True)
        results.append([y, *first, *torch.autograd.grad(sum(g.pow(3).sum() for g in first), (x, w, b))])
    for a, c in zip(*results, strict=True):
        torch.testing.assert_close(a, c, rtol=1e-10, atol=1e-10)
