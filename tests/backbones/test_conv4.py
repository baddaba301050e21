"""The options of conv4, against TensorFlow's arithmetic and formulas on paper."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import image_tasks
from torch import nn

from bench.api import BenchError
from bench.network.build import build_network
from bench.network.layers import Rotate180
from bench.network.model import Classifier
from bench.registry import create_algorithm, create_backbone

OF_MAML = {"padding": "same", "norm": "shift", "norm_eps": 1e-3, "head": "mean", "head_std": 1.0}


@pytest.mark.parametrize("size", [(28, 28), (27, 20), (9, 16)])
def test_padding_same_is_tensorflows_with_every_kernel_turned_by_180_degrees(size, rng):
    """SAME pads max((ceil(n / s) - 1) s + k - n, 0) in all, the smaller half of it in front."""
    network = build_network(create_backbone("conv4", padding="same"), (1, *size), 5, seed=0).double()
    x = torch.rand(3, 1, *size, generator=rng, dtype=torch.float64)
    y = x
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            total = [max((-(-n // 2) - 1) * 2 + 3 - n, 0) for n in y.shape[-2:]]
            (top, bottom), (left, right) = ((t // 2, t - t // 2) for t in total)
            padded = F.pad(y, (left, right, top, bottom))
            y = F.conv2d(padded, layer.weight.flip(-2, -1), layer.bias, stride=2)
        elif isinstance(layer, nn.Flatten):
            y = layer(y.flip(-2, -1))
        elif not isinstance(layer, Rotate180):
            y = layer(y)
    torch.testing.assert_close(network(x), y)
    symmetric = build_network(create_backbone("conv4"), (1, *size), 5, seed=0).double()
    assert not torch.allclose(symmetric(x), y)


def test_a_shift_that_is_learned_outside_stays_as_it_is_inside_and_has_a_meta_gradient(rng):
    task_loss = Classifier(build_network(create_backbone("conv4", **OF_MAML), (1, 28, 28), 5, seed=0).double())
    slow = task_loss.weights
    shifts = [name for name in slow if name.endswith("outer/shift")]
    assert len(shifts) == 4
    tasks = image_tasks(rng, 2)
    cancelled = {f"{place}.bias" for place in (1, 4, 7, 10)}  # of convolutions in front of the normalisation
    for name in ("maml", "fomaml", "reptile"):
        algorithm = create_algorithm(name, inner_lr=0.5, inner_steps=2)
        fast = algorithm.adapt(task_loss, slow, tasks.support)
        for weight in slow:
            left_alone = weight in {*shifts, *cancelled}
            assert torch.equal(fast[weight][0], slow[weight]) == left_alone, weight
        grads = algorithm.meta_grad(task_loss, slow, tasks).grads
        assert all(bool(grads[shift].any()) == (name != "reptile") for shift in shifts)


def test_options_make_the_network_that_they_name():
    def weights(**options):
        return create_backbone("conv4", **options).build((1, 28, 28), 5)

    torch.manual_seed(0)
    assert weights(filters=16)[0].weight.shape == (16, 1, 3, 3)
    assert weights(norm_eps=1e-3)[1].eps == 1e-3
    assert weights(head_std=1.0)[-1].weight.std().item() == pytest.approx(1.0, abs=0.1)
    limit = math.sqrt(6 / (9 * 64 + 9 * 64))  # Glorot and Bengio 2010, eq. 16
    assert weights()[3].weight.abs().max().item() == pytest.approx(limit, rel=1e-3)
    assert weights(init="torch")[3].weight.abs().max().item() == pytest.approx(1 / math.sqrt(9 * 64), rel=1e-3)
    with pytest.raises(BenchError, match="filters 0; accepted: 1 or more"):
        create_backbone("conv4", filters=0)
    with pytest.raises(BenchError, match=r"unknown option of conv4 'filter'\. Did you mean 'filters'\? Accepted: "):
        create_backbone("conv4", filter=3)
