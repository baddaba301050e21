"""Stacked networks against torch's own layers, to second order in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import image_tasks
from torch import nn

from bench.api import BenchError, Examples
from bench.network import stacked
from bench.network.layers import Rotate180
from bench.network.model import Classifier, build_network
from bench.network.stacked import TasksInside, TasksOutside
from bench.registry import create_algorithm, create_backbone

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


def test_a_bf16_product_is_that_of_rounded_factors():
    """1 + 2**-9 is 1 in bfloat16, and so is its square; the bias keeps its digits."""
    x = torch.full((1, 1, 1), 1 + 2.0**-9)
    weight, bias = torch.full((1, 1, 1), 1 + 2.0**-9), torch.full((1, 1), 2.0**-9)
    assert stacked.linear(x, weight.bfloat16(), bias).item() == 1 + 2.0**-9
    assert stacked.linear(x, weight, bias).item() == (1 + 2.0**-9) ** 2 + 2.0**-9


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


def test_dropout_is_off_because_its_numbers_would_depend_on_what_was_drawn_before(rng):
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(9, 5)))
    fast = {n: w[None] for n, w in classifier.weights.items()}
    x = torch.randn(1, 4, 1, 3, 3, generator=rng)
    assert torch.equal(classifier.outputs(fast, x), classifier.outputs(fast, x))


@pytest.mark.parametrize("name", sorted(SIZES))
def test_backbones_have_the_published_number_of_parameters(name):
    assert sum(p.numel() for p in build(name).parameters()) == SIZES[name]


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
    network = build("conv4 of MAML")
    task_loss = Classifier(network)
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


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    first = build("conv4").state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    assert all(torch.equal(w, first[n]) for n, w in build("conv4").state_dict().items())
    assert not torch.equal(build("conv4", seed=1).state_dict()["0.weight"], first["0.weight"])


def test_bias_in_front_of_batch_norm_has_no_gradient_at_all(rng):
    classifier = Classifier(build("conv4"))
    fast = {n: w[None].requires_grad_() for n, w in classifier.weights.items()}
    examples = Examples(torch.rand(1, 5, 1, 28, 28, generator=rng, dtype=torch.float64), torch.arange(5)[None])
    grads = dict(
        zip(fast, torch.autograd.grad(classifier(fast, examples).sum(), list(fast.values()), materialize_grads=True))
    )
    assert grads["0.bias"].count_nonzero() == 0
    assert grads["0.weight"].count_nonzero() > 0


def test_loss_is_the_mean_cross_entropy_in_nats():
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(2, 5)))
    fast = {n: torch.zeros(3, *w.shape) for n, w in classifier.weights.items()}
    loss = classifier(fast, Examples(torch.ones(3, 4, 1, 1, 2), torch.zeros(3, 4, dtype=torch.long)))
    torch.testing.assert_close(loss, torch.full((3,), 5.0).log())
