"""Stacked networks against torch's own layers, to second order in float64."""

import pytest
import torch
from torch import nn

from bench.api import Examples
from bench.network.build import build_network
from bench.network.model import Classifier
from bench.network.stacked import TasksInside, TasksOutside
from bench.registry import create_backbone

SIZES = {
    "conv4": 113_221, "conv4 of MAML": 112_005, "conv4-pool": 112_261, "conv4-gap": 111_749, "mlp": 247_621,
}  # fmt: skip
OPTIONS = {"conv4 of MAML": {"padding": "same", "norm": "shift", "norm_eps": 1e-3, "head": "mean", "head_std": 1.0}}


def build(name, output_size=5, seed=0):
    backbone = create_backbone(name.split()[0], **OPTIONS.get(name, {}))
    return build_network(backbone, (1, 28, 28), output_size, seed).double()


def derivatives(classifier, fast, examples):
    """Outputs, gradients of the loss and gradients of a function of these gradients."""
    loss = classifier(fast, examples)
    leaves = list(fast.values())
    first = torch.autograd.grad(loss.sum(), leaves, create_graph=True, materialize_grads=True)
    mix = sum((g * torch.cos(torch.arange(g.numel(), dtype=g.dtype)).view_as(g)).sum() for g in first)
    return classifier.outputs(fast, examples.x), first, torch.autograd.grad(mix, leaves, materialize_grads=True)


def per_network(network, fast, examples):
    """The same one network at a time, through ``torch.func.functional_call``."""

    class Loop(Classifier):
        def outputs(self, fast, x):
            calls = [
                torch.func.functional_call(network, {n: w[t] for n, w in fast.items()}, x[t]) for t in range(len(x))
            ]
            return torch.stack(calls)

    return derivatives(Loop(network), fast, examples)


def distance(got, expected):
    got, expected = (list(v) if isinstance(v, tuple) else [v] for v in (got, expected))
    return max(((a - b).norm() / (b.norm() + 1e-30)).item() for a, b in zip(got, expected) if b.norm() > 1e-9)


@pytest.mark.parametrize("form", [TasksInside, TasksOutside])
@pytest.mark.parametrize("name", sorted(SIZES))
def test_stacked_networks_agree_with_torch_to_second_order(name, form, rng):
    network = build(name)
    classifier = Classifier(network, form=form)
    assert classifier.stages, "falls back to vmap"
    fast = {n: w + 0.1 * torch.randn(2, *w.shape, generator=rng, dtype=w.dtype) for n, w in classifier.weights.items()}
    fast = {n: w.requires_grad_() for n, w in fast.items()}
    examples = Examples(
        torch.rand(2, 6, 1, 28, 28, generator=rng, dtype=torch.float64), torch.arange(6).expand(2, 6) % 5
    )
    for got, expected in zip(derivatives(classifier, fast, examples), per_network(network, fast, examples)):
        assert distance(got, expected) < 1e-12


@pytest.mark.parametrize("name", [*sorted(SIZES), "residual"])
def test_queries_alone_are_those_in_batches_of_their_own(name, rng):
    classifier = Classifier(Residual().double() if name == "residual" else build(name))
    fast = {n: w + 0.1 * torch.randn(2, *w.shape, generator=rng, dtype=w.dtype) for n, w in classifier.weights.items()}
    support, queries = (torch.rand(2, n, 1, 28, 28, generator=rng, dtype=torch.float64) for n in (5, 3))
    got = classifier.outputs_alone(fast, support, queries)
    expected = [classifier.outputs(fast, torch.cat([support, queries[:, q : q + 1]], dim=1))[:, -1:] for q in range(3)]
    torch.testing.assert_close(got, torch.cat(expected, dim=1), rtol=1e-12, atol=1e-12)


def apart(got, expected):
    """Norm of the difference over the norm of what is expected, over all tensors."""
    difference = sum((g - e).square().sum() for g, e in zip(got, expected, strict=True)).sqrt()
    return (difference / sum(e.square().sum() for e in expected).sqrt()).item()


@pytest.mark.parametrize("kind", ["sequence", "module"])
def test_bf16_products_give_derivatives_near_those_in_float32_to_second_order(kind, rng):
    """Without kinks: those of ReLU and max-pooling turn rounding of 2**-9 into some percent of a deep gradient."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 14 * 14, 5)]
    if kind == "module":
        layers.insert(2, nn.Softsign())
    network = nn.Sequential(*layers)
    exact, rounded = Classifier(network), Classifier(network, product=torch.bfloat16)
    assert bool(exact.stages) is (kind == "sequence")
    fast = {n: w.expand(2, *w.shape).clone().requires_grad_() for n, w in exact.weights.items()}
    examples = Examples(torch.rand(2, 10, 1, 28, 28, generator=rng), torch.arange(10).expand(2, 10) % 5)
    for got, expected in zip(derivatives(rounded, fast, examples), derivatives(exact, fast, examples)):
        got, expected = (list(v) if isinstance(v, tuple) else [v] for v in (got, expected))
        assert {g.dtype for g in got} == {torch.float32}
        assert 1e-5 < apart(got, expected) < 2e-2


@pytest.mark.parametrize("name", sorted(SIZES))
def test_bf16_gradients_are_as_far_from_float32_as_torchs_autocast_is(name, rng):
    network = build(name).float()
    exact, rounded = Classifier(network), Classifier(network, product=torch.bfloat16)
    fast = {n: w[None].requires_grad_() for n, w in exact.weights.items()}
    x, y = torch.rand(1, 10, 1, 28, 28, generator=rng), torch.arange(10)[None] % 5
    losses = [classifier(fast, Examples(x, y)).sum() for classifier in (exact, rounded)]
    with torch.autocast("cpu", torch.bfloat16):
        outputs = torch.func.functional_call(network, {n: w[0] for n, w in fast.items()}, (x[0],))
    losses.append(nn.functional.cross_entropy(outputs.float(), y[0]))
    expected, got, autocast = (torch.autograd.grad(v, list(fast.values()), materialize_grads=True) for v in losses)
    assert 0 < apart(got, expected) < 1.5 * apart(autocast, expected)


class Residual(nn.Module):
    """A user's own network: not a sequence, with BatchNorm that keeps running statistics."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 5)

    def forward(self, x):
        return self.head((x + self.norm(self.conv(x)).relu()).mean(dim=(2, 3)))


def test_a_users_own_module_works_without_changes_to_second_order(rng):
    torch.manual_seed(0)
    network = Residual().double()
    classifier = Classifier(network)
    assert classifier.stages is None
    fast = {
        n: (w + torch.randn(3, *w.shape, generator=rng, dtype=w.dtype)).requires_grad_()
        for n, w in classifier.weights.items()
    }
    examples = Examples(torch.rand(3, 5, 1, 8, 8, generator=rng, dtype=torch.float64), torch.arange(5).expand(3, 5))
    for got, expected in zip(derivatives(classifier, fast, examples), per_network(network, fast, examples)):
        assert distance(got, expected) < 1e-12
    assert not list(network.buffers()), "no running statistics that test tasks could leak into"


def test_dropout_is_off_because_its_numbers_would_depend_on_what_was_drawn_before(rng):
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(9, 5)))
    fast = {n: w[None] for n, w in classifier.weights.items()}
    x = torch.randn(1, 4, 1, 3, 3, generator=rng)
    assert torch.equal(classifier.outputs(fast, x), classifier.outputs(fast, x))


@pytest.mark.parametrize("name", sorted(SIZES))
def test_backbones_have_the_published_number_of_parameters(name):
    assert sum(p.numel() for p in build(name).parameters()) == SIZES[name]


def test_loss_is_the_mean_cross_entropy_in_nats():
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(2, 5)))
    fast = {n: torch.zeros(3, *w.shape) for n, w in classifier.weights.items()}
    loss = classifier(fast, Examples(torch.ones(3, 4, 1, 1, 2), torch.zeros(3, 4, dtype=torch.long)))
    torch.testing.assert_close(loss, torch.full((3,), 5.0).log())
