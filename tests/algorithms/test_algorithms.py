"""What each algorithm computes: closed forms, finite differences, plain per-task loops with ``higher``."""

import copy
import weakref

import higher
import pytest
import torch
import torch.nn.functional as F
from helpers import (
    batches,
    image_tasks,
    loop_over_tasks,
    quadratic_loss,
    quadratic_tasks,
    relative_error,
    small_classifier,
)

from bench.api import TaskBatch
from bench.network.build import build_network
from bench.network.model import Classifier
from bench.registry import BACKBONES, create_algorithm

CLOSED_FORM = {
    "maml": lambda w0, wk, q, decay: decay * (wk - q),
    "fomaml": lambda w0, wk, q, decay: wk - q,
    "reptile": lambda w0, wk, q, decay: w0 - wk,
}


@pytest.mark.parametrize("name", CLOSED_FORM)
@pytest.mark.parametrize("steps", [1, 5])
def test_meta_grad_matches_closed_form_on_quadratic_tasks(name, steps, rng):
    """L(w) = |w - c|^2 / 2 gives w_k = c + decay (w_0 - c), with decay = (1 - inner_lr)^k."""
    w0 = torch.randn(3, generator=rng, dtype=torch.float64)
    s, q = torch.randn(2, 4, 3, generator=rng, dtype=torch.float64)  # optima of T = 4 tasks
    decay = (1 - 0.1) ** steps
    trained_on = (s + q) / 2 if name == "reptile" else s
    wk = trained_on + decay * (w0 - trained_on)  # [T, 3]
    algorithm = create_algorithm(name, inner_lr=0.1, inner_steps=steps)
    got = algorithm.meta_grad(quadratic_loss, {"w": w0}, quadratic_tasks(s, q))
    torch.testing.assert_close(got.grads["w"], CLOSED_FORM[name](w0, wk, q, decay).mean(dim=0))
    if name != "reptile":
        expected = 0.5 * (wk - q).square().sum(1) + 0.5 * 3 * 0.3**2
        torch.testing.assert_close(got.query_loss, expected)


def test_maml_matches_central_finite_differences(rng):
    """(L(w + h d) - L(w - h d)) / 2h along random directions d, on a convolutional network with BatchNorm."""
    task_loss = small_classifier(rng)
    tasks = image_tasks(rng, n_tasks=3, size=8)
    maml = create_algorithm("maml", inner_lr=0.05, inner_steps=3)
    slow = task_loss.weights
    grads = maml.meta_grad(task_loss, slow, tasks).grads

    def loss_at(h, direction):
        moved = {n: w + h * direction[n] for n, w in slow.items()}
        return task_loss(maml.adapt(task_loss, moved, tasks.support), tasks.query).mean().item()

    for _ in range(5):
        direction = {n: torch.randn(w.shape, generator=rng, dtype=w.dtype) for n, w in slow.items()}
        numerical = (loss_at(1e-6, direction) - loss_at(-1e-6, direction)) / 2e-6
        analytical = sum((grads[n] * d).sum() for n, d in direction.items()).item()
        assert numerical == pytest.approx(analytical, rel=2e-6)
    first_order = create_algorithm("fomaml", inner_lr=0.05, inner_steps=3).meta_grad(task_loss, slow, tasks).grads
    assert relative_error(first_order, grads) > 0.01, "the second-order term is too small here to be tested"


def maml_of_one_task(lr, steps, second_order):
    def of_one_task(network, support, query, t):
        optimizer = torch.optim.SGD(network.parameters(), lr=lr)
        with higher.innerloop_ctx(network, optimizer, copy_initial_weights=False, track_higher_grads=second_order) as (
            fast,
            opt,
        ):
            for _ in range(steps):
                opt.step(F.cross_entropy(fast(support[0]), support[1]))
            loss = F.cross_entropy(fast(query[0]), query[1])
            wanted = network.parameters() if second_order else fast.parameters()
            grads = torch.autograd.grad(loss, list(wanted), materialize_grads=True)
        return dict(zip(dict(network.named_parameters()), grads))

    return of_one_task


def reptile_of_one_task(make_optimizer, batches_of):
    def of_one_task(network, support, query, t):
        x, y = torch.cat([support[0], query[0]]), torch.cat([support[1], query[1]])
        fast = copy.deepcopy(network)
        optimizer = make_optimizer(fast.parameters())
        for batch in batches_of(t):
            optimizer.zero_grad()
            F.cross_entropy(fast(x[batch]), y[batch]).backward()
            optimizer.step()
        pairs = zip(network.named_parameters(), fast.parameters())
        return {name: (before - after).detach() for (name, before), after in pairs}

    return of_one_task


@pytest.fixture(scope="module")
def conv4():
    network = build_network(BACKBONES.get("conv4")(), (1, 28, 28), 5, seed=0).double()
    task_loss = Classifier(network)
    with torch.no_grad():  # the bias in front of BatchNorm has no gradient: the stacked network leaves it out
        for name, p in network.named_parameters():
            p += 0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name)), dtype=p.dtype)
    return task_loss


@pytest.mark.parametrize("name", ["maml", "fomaml"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_vectorised_equals_the_per_task_higher_loop_on_conv4(name, steps, conv4, rng):
    tasks = image_tasks(rng, n_tasks=3)
    algorithm = create_algorithm(name, inner_lr=0.1, inner_steps=steps)
    got = algorithm.meta_grad(conv4, conv4.weights, tasks).grads
    expected = loop_over_tasks(conv4.network, tasks, maml_of_one_task(0.1, steps, name == "maml"))
    assert relative_error(got, expected) < 1e-12


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_vectorised_reptile_equals_a_per_task_loop_on_conv4(steps, conv4, rng):
    """Batches of 6 out of 15 images: five of them span two passes."""
    tasks = image_tasks(rng, n_tasks=3)
    reptile = create_algorithm("reptile", inner_lr=0.1, inner_steps=steps, inner_batch=6)
    got = reptile.meta_grad(conv4, conv4.weights, tasks).grads
    of_one_task = reptile_of_one_task(lambda p: torch.optim.SGD(p, lr=0.1), batches(tasks, 6, steps))
    assert relative_error(got, loop_over_tasks(conv4.network, tasks, of_one_task)) < 1e-12


@pytest.mark.parametrize("steps", [1, 5])
def test_reptiles_inner_adam_is_torchs_with_beta1_zero(steps, conv4, rng):
    tasks = image_tasks(rng, n_tasks=2)
    reptile = create_algorithm("reptile", inner_lr=1e-3, inner_steps=steps, inner_batch=6, inner_optimizer="adam")
    got = reptile.meta_grad(conv4, conv4.weights, tasks).grads
    adam = lambda p: torch.optim.Adam(p, lr=1e-3, betas=(0.0, 0.999))  # noqa: E731
    expected = loop_over_tasks(conv4.network, tasks, reptile_of_one_task(adam, batches(tasks, 6, steps)))
    biases = [
        n for n in got if n in ("0.bias", "3.bias", "6.bias", "9.bias")
    ]  # torch's are Adam steps on rounding noise
    for name in biases:
        del got[name], expected[name]
    assert relative_error(got, expected) < 1e-9


def test_reptile_carries_adams_second_moment_as_one_long_run_would(rng):
    """One task, two meta-steps that leave the weights alone, equal one torch Adam over both, its state kept."""
    task_loss = small_classifier(rng)
    tasks = image_tasks(rng, n_tasks=1, size=8)
    reptile = create_algorithm("reptile", inner_lr=1e-3, inner_steps=2, inner_batch=None, inner_optimizer="adam")
    slow = task_loss.weights
    first = reptile.meta_grad(task_loss, slow, tasks)
    second = reptile.meta_grad(task_loss, slow, TaskBatch(tasks.support, tasks.query, first.carry))

    fast = {n: w.clone().requires_grad_() for n, w in slow.items()}
    adam = torch.optim.Adam(list(fast.values()), lr=1e-3, betas=(0.0, 0.999))
    together = tasks.together()
    for _ in range(2):
        with torch.no_grad():
            for n, w in fast.items():
                w.copy_(slow[n])
        for _ in range(2):
            adam.zero_grad()
            task_loss({n: w[None] for n, w in fast.items()}, together).sum().backward()
            adam.step()
    expected = {n: slow[n] - w.detach() for n, w in fast.items() if w.grad is not None}
    assert relative_error({n: second.grads[n] for n in expected}, expected) < 1e-9
    assert first.carry["step"] == 2
    assert second.carry["step"] == 4

    reset = create_algorithm(
        "reptile", inner_lr=1e-3, inner_steps=2, inner_batch=None, inner_optimizer="adam", inner_state="reset"
    )
    again = reset.meta_grad(task_loss, slow, TaskBatch(tasks.support, tasks.query, first.carry))
    assert relative_error(again.grads, first.grads) < 1e-12


def test_fomaml_approaches_maml_as_inner_lr_goes_to_zero_and_differs_otherwise(rng):
    task_loss = small_classifier(rng)
    tasks = image_tasks(rng, n_tasks=3, size=8)

    def difference(lr):
        both = [
            create_algorithm(n, inner_lr=lr, inner_steps=2).meta_grad(task_loss, task_loss.weights, tasks)
            for n in ("fomaml", "maml")
        ]
        return relative_error(both[0].grads, both[1].grads)

    assert difference(0.1) > 0.02
    assert difference(1e-4) / difference(1e-3) == pytest.approx(0.1, rel=0.05)  # the missing term is linear in inner_lr


def test_reptile_with_one_step_is_joint_training_and_with_two_is_not(rng):
    """Then w_0 - w_1 is inner_lr times the gradient of the mean loss over all images of all tasks."""
    task_loss = small_classifier(rng)
    tasks = image_tasks(rng, n_tasks=4, size=8)
    slow = {n: w.requires_grad_() for n, w in task_loss.weights.items()}
    together = tasks.together()
    shared = {n: w.expand(4, *w.shape) for n, w in slow.items()}
    joint = torch.autograd.grad(task_loss(shared, together).mean(), list(slow.values()), materialize_grads=True)
    expected = {n: 0.1 * g for n, g in zip(slow, joint)}
    for steps, agrees in ((1, True), (2, False)):
        reptile = create_algorithm("reptile", inner_lr=0.1, inner_steps=steps, inner_batch=None)
        error = relative_error(reptile.meta_grad(task_loss, slow, tasks).grads, expected)
        assert error < 1e-12 if agrees else error > 0.1


def test_mamls_memory_of_the_inner_graph_is_not_kept_at_test(rng):
    task_loss = small_classifier(rng)
    tasks = image_tasks(rng, n_tasks=2, size=8)
    maml = create_algorithm("maml", inner_lr=0.1, inner_steps=3)
    at_test = list(maml.adaptation(task_loss, task_loss.weights, tasks.support, 3))[-1].fast
    assert all(w.is_leaf for w in at_test.values())
    slow = {n: w.requires_grad_() for n, w in task_loss.weights.items()}
    in_training = list(maml.adaptation(task_loss, slow, tasks.support, 3))[-1].fast
    for name, w in at_test.items():
        torch.testing.assert_close(w, in_training[name])


@pytest.mark.parametrize("name", ["fomaml", "reptile"])
def test_first_order_inner_loops_let_go_of_the_weights_of_earlier_steps(name, rng, monkeypatch):
    """Counted before every step: those that it starts from, and at most one more that is about to go."""
    algorithm = create_algorithm(name, inner_steps=8)
    step, made, alive = type(algorithm).inner_step, [], []

    def counted(self, loss, fast, carry, step_number):
        made.append(weakref.ref(fast["w"]))
        alive.append(sum(ref() is not None for ref in made))
        return step(self, loss, fast, carry, step_number)

    monkeypatch.setattr(type(algorithm), "inner_step", counted)
    s, q = torch.randn(2, 4, 3, generator=rng, dtype=torch.float64)
    algorithm.meta_grad(quadratic_loss, {"w": torch.zeros(3, dtype=torch.float64)}, quadratic_tasks(s, q))
    assert len(alive) == 8
    assert max(alive) <= 2
