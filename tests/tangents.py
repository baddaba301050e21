"""Forward-mode rules against finite differences, and both mixed second derivatives against reverse over reverse."""

import warnings

import torch
from torch.autograd import forward_ad


def check_tangents(function, inputs, moving):
    """Hold tangents of a function, of its first derivative, and the derivative of its tangent against the truth.

    The function is curved before it is differentiated, so that its derivatives depend on all inputs.
    """
    along = [torch.cos(1.0 + torch.arange(t.numel(), dtype=t.dtype)).view_as(t) for t in inputs]

    def head(y):
        return (y.tanh() * torch.sin(torch.arange(y.numel(), dtype=y.dtype)).view_as(y)).sum()

    def curved(*given):
        return head(function(*given))

    with warnings.catch_warnings():  # torch's own, of what it loads at the first dual number
        warnings.simplefilter("ignore", FutureWarning)
        with forward_ad.dual_level():  # forward, and forward over reverse
            leaves = [t.detach().requires_grad_() for t in inputs]
            dual = [forward_ad.make_dual(t, a) if i in moving else t for i, (t, a) in enumerate(zip(leaves, along))]
            tangent = forward_ad.unpack_dual(function(*dual)).tangent
            grads = torch.autograd.grad(curved(*dual), dual)
            moved = [forward_ad.unpack_dual(g).tangent for g in grads]
    y = function(*leaves)
    (slope,) = torch.autograd.grad(head(y), y, create_graph=True)
    over_forward = torch.autograd.grad((slope * tangent).sum(), leaves, materialize_grads=True)
    leaves = [t.detach().requires_grad_() for t in inputs]
    there, back = (
        function(*(t + s * 1e-6 * a if i in moving else t for i, (t, a) in enumerate(zip(leaves, along))))
        for s in (1, -1)
    )
    torch.testing.assert_close(tangent, ((there - back) / 2e-6), rtol=1e-6, atol=1e-7)
    first = torch.autograd.grad(curved(*leaves), leaves, create_graph=True)
    product = sum((first[i] * along[i]).sum() for i in moving)
    expected = torch.autograd.grad(product, leaves, materialize_grads=True)
    for other, wanted in zip(over_forward, expected, strict=True):
        torch.testing.assert_close(other, wanted, rtol=1e-10, atol=1e-12)
    for got, wanted in zip(moved, expected, strict=True):
        torch.testing.assert_close(torch.zeros_like(wanted) if got is None else got, wanted, rtol=1e-10, atol=1e-12)
