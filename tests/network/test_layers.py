"""Sums, tokens and attention over stacked weights, and colour images, against plain loops over the module's forward."""

import pytest
import torch
from plain_loop import meta_gradient, relative, tasks_of
from torch import nn

from bench.backbones.resnet12 import block
from bench.network.build import build_network
from bench.network.layers import MeanOfTokens, Positions, Residual, SelfAttention, Tokens
from bench.network.model import Classifier
from bench.network.stacked import TasksInside, TasksOutside
from bench.registry import create_algorithm, create_backbone

LR, STEPS, WAYS = 0.05, 2, 3
COLOUR = (3, 84, 84)


def tail(channels):
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, WAYS)


def registered(shape, name, **options):
    return shape, lambda: build_network(create_backbone(name, **options), shape, WAYS, seed=0)


NETWORKS = {
    "resnet12": registered((3, 17, 20), "resnet12"),
    "two of its blocks": ((3, 21, 18), lambda: nn.Sequential(*block(3, 4), *block(4, 6), *tail(6))),
    "vit": registered((3, 28, 28), "vit", depth=2, width=12, heads=3),
    "vit with a border": registered((1, 10, 13), "vit", depth=1, width=8, heads=2, patch=4),
    "a sum of ways that hold sums": (
        (2, 6, 6),
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3),
            Residual(nn.Sequential(Residual(nn.Sequential(nn.Conv2d(4, 4, 1), nn.GELU("tanh"))), nn.Tanh())),
            nn.LeakyReLU(0.3),
            *tail(4),
        ),
    ),
    "what normalisation leaves to its activation": (
        (1, 6, 6),
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(-0.5), *tail(4)),
    ),
    "LayerNorm on features, without weights": (
        (1, 4, 4),
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(16, 8), nn.LayerNorm(8, elementwise_affine=False), nn.Linear(8, 8),
            nn.LayerNorm(8, bias=False), nn.GELU(), nn.Linear(8, WAYS),
        ),
    ),
    "one token a position": (
        (4, 2, 3),
        lambda: nn.Sequential(Tokens(), Positions(6, 4), SelfAttention(4, 2), MeanOfTokens(), nn.Linear(4, WAYS)),
    ),
    "conv4 in colour": registered(COLOUR, "conv4"),
    "conv4 of MAML in colour": registered(COLOUR, "conv4", padding="same", filters=32, head="mean"),
    "conv4-pool in colour": registered(COLOUR, "conv4-pool"),
    "conv4-gap in colour": registered((3, 21, 21), "conv4-gap"),
    "mlp in colour": registered(COLOUR, "mlp"),
}  # fmt: skip


def classifier(name, form):
    torch.manual_seed(0)
    shape, make = NETWORKS[name]
    network = Classifier(make().double(), form=form)
    assert network.stages, "falls back to vmap"
    return network, shape


@pytest.mark.parametrize("form", [TasksInside, TasksOutside])
@pytest.mark.parametrize("name", NETWORKS)
def test_meta_gradients_are_those_of_a_plain_loop(name, form, rng):
    task_loss, shape = classifier(name, form)
    torch.manual_seed(0)
    network, tasks = NETWORKS[name][1]().double(), tasks_of(shape, rng, n_way=WAYS)
    for algo in ("maml", "fomaml"):
        algorithm = create_algorithm(algo, inner_lr=LR, inner_steps=STEPS)
        got = algorithm.meta_grad(task_loss, task_loss.weights, tasks)
        expected = meta_gradient(network, tasks, LR, STEPS, algo == "maml")
        assert relative(got.grads, expected) < 1e-10


@pytest.mark.parametrize("form", [TasksInside, TasksOutside])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_the_modules_own_and_queries_alone_are_those_in_batches_of_their_own(name, form, rng):
    task_loss, shape = classifier(name, form)
    tasks = tasks_of(shape, rng, n_way=WAYS)
    noise = {n: torch.randn(2, *w.shape, generator=rng, dtype=w.dtype) for n, w in task_loss.weights.items()}
    fast = {n: w + 0.1 * w.std(correction=0) * noise[n] for n, w in task_loss.weights.items()}
    support, queries = tasks.support.x, tasks.query.x
    alone = task_loss.outputs_alone(fast, support, queries)
    for task in range(2):
        own = {n: w[task] for n, w in fast.items()}

        def outputs(x, own=own):
            return torch.func.functional_call(task_loss.network, own, (x,))

        together = task_loss.outputs(fast, queries)[task]
        torch.testing.assert_close(together, outputs(queries[task]), rtol=1e-10, atol=1e-12)
        each = [outputs(torch.cat([support[task], queries[task, q : q + 1]]))[-1:] for q in range(queries.shape[1])]
        torch.testing.assert_close(alone[task], torch.cat(each), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("name", "alone"), [("vit", True), ("resnet12", False)])
def test_batch_normalisation_inside_of_a_sum_looks_across_the_batch(name, alone):
    network = Classifier(NETWORKS[name][1]())
    assert any(stage.across for stage in network.stages) is not alone


def test_attention_and_its_block_are_torchs_own_transformer_layer(rng):
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(12, 3, 48, 0.0, "gelu", batch_first=True, norm_first=True).double()
    ours = NETWORKS["vit"][1]().double()[3:5]
    attention, mlp = ours[0].body, ours[1].body
    pairs = (
        (theirs.norm1, attention[0]), (theirs.norm2, mlp[0]), (theirs.linear1, mlp[1]), (theirs.linear2, mlp[3]),
        (theirs.self_attn.out_proj, attention[1].outputs),
    )  # fmt: skip
    for a, b in pairs:
        b.load_state_dict(a.state_dict())
    attention[1].inputs.load_state_dict(
        {"weight": theirs.self_attn.in_proj_weight, "bias": theirs.self_attn.in_proj_bias}
    )
    x = torch.randn(2, 5, 12, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("product", "expected"), [(None, 1.0), (torch.bfloat16, 0.5)])
def test_products_of_attention_are_taken_in_the_type_of_all_products(product, expected):
    """The mean of the values 257 and -255, of which the first is 256 in bfloat16; both tokens ask for both."""
    network = nn.Sequential(Tokens(), SelfAttention(1, 1), MeanOfTokens())
    weights = {"weight": torch.tensor([[0.0], [0.0], [512.0]]), "bias": torch.tensor([0.0, 0.0, -255.0])}
    network[1].inputs.load_state_dict(weights)
    network[1].outputs.load_state_dict({"weight": torch.ones(1, 1), "bias": torch.zeros(1)})
    task_loss = Classifier(network, product=product)
    fast = {n: w[None] for n, w in task_loss.weights.items()}
    assert task_loss.outputs(fast, torch.tensor([1.0, 0.0]).view(1, 1, 1, 1, 2)).item() == expected
