"""The inner rules: SGD, momentum, Adam, decay and clipping against rules written out, first and second order."""

import dataclasses

import pytest
import torch
from helpers import image_tasks, relative_error, small_classifier
from per_task import adapted_by, gradients, loss_of, mean_gradient

from algorithms.inner_loop import normalisation
from bench.api import BenchError
from bench.check.algorithm import CHECKS, Algorithm
from bench.check.verdicts import Status, ask_all
from bench.registry import ALGORITHMS, create_algorithm, create_backbone
from bench.tasks.images import Classification

LR, STEPS = 0.05, 3


def sgd(w, g, state, i, name, slow):
    return w - LR * g


def momentum(w, g, state, i, name, slow):
    state["v"] = g if i == 0 else 0.8 * state["v"] + g
    return w - LR * state["v"]


def adam(w, g, state, i, name, slow):
    m = state["m"] = 0.1 * g + (0.9 * state["m"] if i else 0)
    v = state["v"] = 0.001 * g**2 + (0.999 * state["v"] if i else 0)
    return w - LR * m / (1 - 0.9 ** (i + 1)) / (v / (1 - 0.999 ** (i + 1)) + 1e-8) ** 0.5


def decayed(w, g, state, i, name, slow):
    return w - LR * (g + 0.3 * w)


def adam_decayed(w, g, state, i, name, slow):
    return adam(w, g + 0.3 * w, state, i, name, slow)


RULES = {
    "sgd": (sgd, {}),
    "momentum": (momentum, {"inner_optimizer": "momentum", "inner_momentum": 0.8}),
    "adam": (adam, {"inner_optimizer": "adam"}),
    "decay": (decayed, {"inner_decay": 0.3}),
    "adam-decay": (adam_decayed, {"inner_optimizer": "adam", "inner_decay": 0.3}),
}


@pytest.mark.parametrize("rule", RULES)
def test_second_order_through_each_rule_is_that_of_the_rule_written_out(rule, rng):
    step, settings = RULES[rule]
    task_loss, tasks = small_classifier(rng), image_tasks(rng, n_tasks=3, size=8)
    slow = task_loss.weights
    got = create_algorithm("maml", inner_lr=LR, inner_steps=STEPS, **settings).meta_grad(task_loss, slow, tasks)
    expected = mean_gradient(adapted_by(step, task_loss.network, list(slow), STEPS), slow, tasks)
    assert relative_error(got.grads, expected) < 1e-11


@pytest.mark.parametrize("rule", RULES)
def test_first_order_takes_the_query_gradient_at_the_end_of_the_same_path(rule, rng):
    step, settings = RULES[rule]
    task_loss, tasks = small_classifier(rng), image_tasks(rng, n_tasks=3, size=8)
    slow, network = task_loss.weights, task_loss.network

    def loss_of_task(leaves, support, query, t):
        fast, states = dict(leaves), {name: {} for name in leaves}
        for i in range(STEPS):
            grads = gradients(loss_of(network, fast, support), fast, list(leaves), create_graph=False)
            fast = {n: step(fast[n].detach(), grads[n], states[n], i, n, slow).requires_grad_() for n in leaves}
        at_end = gradients(loss_of(network, fast, query), fast, list(leaves))
        return sum((leaves[n] * at_end[n].detach()).sum() for n in leaves)  # whose gradient that is

    got = create_algorithm("fomaml", inner_lr=LR, inner_steps=STEPS, **settings).meta_grad(task_loss, slow, tasks)
    assert relative_error(got.grads, mean_gradient(loss_of_task, slow, tasks)) < 1e-11


@pytest.mark.parametrize("name", ["reptile", "foml"])
def test_torch_takes_the_same_clipped_steps_with_momentum_and_decay(name, rng):
    """A task alone, so that torch's optimizer and its clipping are the reference."""
    task_loss, tasks = small_classifier(rng), image_tasks(rng, n_tasks=1, size=8)
    slow, network = task_loss.weights, task_loss.network
    settings = {"inner_optimizer": "momentum", "inner_momentum": 0.7, "inner_decay": 0.1, "inner_clip": 0.5}
    extra = {"tail": "shared"} if name == "foml" else {}
    algorithm = create_algorithm(name, inner_lr=LR, inner_steps=STEPS, inner_batch=None, **settings, **extra)
    got = algorithm.meta_grad(task_loss, slow, tasks).grads
    leaves = {n: w.clone().requires_grad_() for n, w in slow.items()}
    optimizer = torch.optim.SGD(leaves.values(), lr=LR, momentum=0.7, weight_decay=0.1)
    both, norms = tasks.together(), []
    for _ in range(STEPS):
        before = {n: w.detach().clone() for n, w in leaves.items()}
        grads = gradients(loss_of(network, leaves, (both.x[0], both.y[0])), leaves, list(leaves), create_graph=False)
        for n, w in leaves.items():
            w.grad = grads[n]
        norms.append(float(torch.nn.utils.clip_grad_norm_(leaves.values(), 0.5, error_if_nonfinite=True)))
        optimizer.step()
    start = slow if name == "reptile" else before
    assert max(norms) > 0.5, "nothing was clipped"
    # torch divides by the norm plus 1e-6
    assert relative_error(got, {n: start[n] - w.detach() for n, w in leaves.items()}) < 1e-5


def test_clipping_leaves_short_gradients_alone_and_looks_at_each_task(rng):
    task_loss, tasks = small_classifier(rng), image_tasks(rng, n_tasks=3, size=8)
    slow = task_loss.weights
    free = create_algorithm("maml", inner_steps=2).meta_grad(task_loss, slow, tasks).grads
    long = create_algorithm("maml", inner_steps=2, inner_clip=1e6).meta_grad(task_loss, slow, tasks).grads
    assert relative_error(long, free) < 1e-12
    fast = create_algorithm("fomaml", inner_steps=1, inner_lr=1.0, inner_clip=0.01).adapt(
        task_loss, slow, tasks.support
    )
    lengths = sum((fast[n] - w).flatten(1).square().sum(dim=1) for n, w in slow.items()).sqrt()
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.01))


@pytest.mark.parametrize("name", ["maml", "fomaml", "reptile", "anil", "boil", "maml++", "cavia", "imaml", "meta-sgd"])
@pytest.mark.parametrize("settings", [{"inner_optimizer": "momentum"}, {"inner_optimizer": "adam", "inner_clip": 1.0}])
def test_every_gradient_based_algorithm_passes_the_checks_with_other_rules(name, settings):
    cls = ALGORITHMS.get(name)
    fields = {"__annotations__": {key: type(value) for key, value in settings.items()}, **settings}
    changed = dataclasses.dataclass(frozen=True)(type("Changed", (cls,), fields))
    asked = ("returns", "finite", "apart", "descends", "order")
    kept = [dataclasses.replace(c, needs=()) for c in CHECKS if c.name in asked]
    for verdict in ask_all(kept, Algorithm(name, changed)):
        assert verdict.status in (Status.OK, Status.SKIPPED), verdict


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"inner_optimizer": "adm"}, "unknown inner_optimizer 'adm'. Did you mean 'adam'"),
        ({"inner_momentum": 1.0}, "inner_momentum 1.0; accepted: 0 or more, below 1"),
        ({"inner_decay": -0.1}, "inner_decay -0.1; accepted: 0 or more"),
        ({"inner_clip": 0.0}, "inner_clip 0.0; accepted: above 0, or none"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(BenchError, match=words):
        create_algorithm("fomaml", **settings)


def test_normalisation_is_found_by_its_scales_or_by_its_shifts():
    affine, shift = (create_backbone("conv4", norm=norm).build((1, 28, 28), 5) for norm in ("affine", "shift"))
    assert normalisation(dict(affine.named_parameters())) == [
        f"{n}.{w}" for n in (1, 4, 7, 10) for w in ("weight", "bias")
    ]
    assert normalisation(dict(shift.named_parameters())) == [f"{n}.outer/shift" for n in (1, 4, 7, 10)]
    assert normalisation(dict(create_backbone("sine-mlp").build((1,), 1).named_parameters())) == []


def test_slopes_of_an_activation_are_no_normalisation():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.PReLU(4), torch.nn.GroupNorm(2, 4))
    assert normalisation(dict(network.named_parameters())) == ["2.weight", "2.bias"]


def test_classification_is_the_objective_of_the_references(rng):
    """``loss_of`` of per_task.py and the harness mean the same loss."""
    y, outputs = torch.tensor([[0, 2, 1]]), torch.randn(1, 3, 4, generator=rng, dtype=torch.float64)
    own = torch.nn.functional.cross_entropy(outputs[0], y[0])
    torch.testing.assert_close(Classification().loss(outputs, y).mean(), own)
