"""Which layers have a stacked form, and what becomes of those that do not, are used twice or stand before others."""

import pytest
import torch
from torch import nn

from bench.api import Examples
from bench.network.build import build_network
from bench.network.model import Classifier
from bench.registry import create_backbone


@pytest.mark.parametrize("layer", [nn.Conv2d(1, 4, 3, dilation=2), nn.Conv2d(1, 4, 3, padding="same"), nn.Sigmoid()])
def test_layers_without_a_stacked_form_go_through_vmap_and_stay_right(layer, rng):
    torch.manual_seed(0)
    classifier = Classifier(nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(5)).double())
    with torch.no_grad():
        x = torch.rand(2, 3, 1, 9, 9, generator=rng, dtype=torch.float64)
        classifier.network(x[0])  # LazyLinear learns its size
        fast = {n: torch.stack([w, 2 * w]) for n, w in classifier.weights.items()}
        expected = [
            torch.func.functional_call(classifier.network, {n: w[t] for n, w in fast.items()}, x[t]) for t in (0, 1)
        ]
        assert classifier.stages is None
        torch.testing.assert_close(classifier.outputs(fast, x), torch.stack(expected))


@pytest.mark.parametrize("shared", ["activation", "weights"])
def test_a_layer_that_is_used_twice_is_used_twice(shared, rng):
    torch.manual_seed(0)
    act, linear = nn.ReLU(), nn.Linear(9, 9)
    between = [linear, act] * 2 if shared == "weights" else [nn.Linear(9, 9), act, nn.Linear(9, 9), act]
    classifier = Classifier(nn.Sequential(nn.Flatten(), *between, nn.Linear(9, 5)).double())
    x = torch.randn(2, 4, 1, 3, 3, generator=rng, dtype=torch.float64)
    fast = {n: w.expand(2, *w.shape) for n, w in classifier.weights.items()}
    torch.testing.assert_close(classifier.outputs(fast, x)[1], classifier.network(x[1]))


def test_bias_in_front_of_batch_norm_has_no_gradient_at_all(rng):
    classifier = Classifier(build_network(create_backbone("conv4"), (1, 28, 28), 5, seed=0).double())
    fast = {n: w[None].requires_grad_() for n, w in classifier.weights.items()}
    examples = Examples(torch.rand(1, 5, 1, 28, 28, generator=rng, dtype=torch.float64), torch.arange(5)[None])
    grads = dict(
        zip(fast, torch.autograd.grad(classifier(fast, examples).sum(), list(fast.values()), materialize_grads=True))
    )
    assert grads["0.bias"].count_nonzero() == 0
    assert grads["0.weight"].count_nonzero() > 0
