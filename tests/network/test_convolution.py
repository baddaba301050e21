"""Products of every task with its own weights."""

import pytest
import torch
from helpers import image_tasks, relative_error, small_classifier
from tangents import check_tangents
from torch.utils._python_dispatch import TorchDispatchMode

import bench.api
from bench.network.convolution import by_patches, grouped, linear
from bench.network.model import Classifier
from bench.network.stacked import TasksOutside
from bench.registry import create_algorithm


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


class Products(TorchDispatchMode):
    """Counts products, batched ones apart."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layer", ["linear", "convolution"])
def test_tasks_that_share_a_weight_have_their_own_derivatives_to_second_order(layer, rng):
    """One dense product forward and one by inputs take the place of batched ones; a weight's own stays batched."""
    shape, kernel = ((3, 5, 7), (4, 7)) if layer == "linear" else ((3, 2, 6, 6, 7), (4, 7, 3, 3))
    x = torch.randn(shape, generator=rng, dtype=torch.float64).requires_grad_()
    slow = torch.randn(kernel, generator=rng, dtype=torch.float64)
    slow = slow.contiguous(memory_format=torch.channels_last) if slow.dim() == 4 else slow  # as the harness keeps them
    results, counted = [], []
    for w in (slow.expand(3, *kernel).clone(), slow.expand(3, *kernel)):
        w = w.detach().requires_grad_()
        with Products() as products:
            y = linear(x, w, None) if layer == "linear" else by_patches(x, w, None, (2, 2), (1, 1))
            y = y * y.detach().sin()
            first = torch.autograd.grad(y.square().sum(), (x, w), create_graph=True)
        second = torch.autograd.grad(sum(g.pow(3).sum() for g in first), (x, w), create_graph=True)
        third = torch.autograd.grad(sum(g.square().sum() for g in second), (x, w))
        results.append([y, *first, *second, *third])
        counted.append([products.names.count(name) for name in ("mm", "bmm")])
    for apart, shared in zip(*results, strict=True):
        assert (shared - apart).norm() < 1e-12 * apart.norm()
    assert counted == [[0, 3], [2, 1]]


@pytest.mark.parametrize("name", ["maml", "fomaml", "reptile", "maml++", "imaml", "meta-sgd"])
def test_a_first_step_from_shared_weights_has_the_meta_gradient_of_copies(name, rng, monkeypatch):
    classifier, tasks = small_classifier(rng), image_tasks(rng, n_tasks=3, size=8)
    task_loss = Classifier(classifier.network, form=TasksOutside)
    algorithm = create_algorithm(name, inner_steps=2)
    slow = {**task_loss.weights, **algorithm.extra_weights(task_loss.weights)}
    ends = []
    for shares in (False, True):
        monkeypatch.setattr(bench.api, "shared", lambda w, shares=shares: shares and w.dim() > 1)
        with Products() as products:
            ends.append(algorithm.meta_grad(task_loss, slow, tasks).grads)
        assert ("mm" in products.names) == shares
    assert relative_error(ends[1], ends[0]) < 1e-12
