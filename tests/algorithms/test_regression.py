"""Algorithms on a regression, sine waves: gradients against plain loops, and joint training beside Reptile."""

import higher
import pytest
import torch
from helpers import batches, loop_over_tasks, relative_error
from waves import loss_on_waves, make_stream, squared

from bench.registry import create_algorithm


@pytest.fixture(scope="module", params=["relu", "tanh"])
def task_loss(request):
    return loss_on_waves(request.param)


def maml_of_one_task(lr, steps, second_order):
    def of_one_task(network, support, query, t):
        optimizer = torch.optim.SGD(network.parameters(), lr=lr)
        context = higher.innerloop_ctx(
            network, optimizer, copy_initial_weights=False, track_higher_grads=second_order
        )  # fmt: skip
        with context as (fast, inner):
            for _ in range(steps):
                inner.step(squared(fast, *support))
            wanted = network.parameters() if second_order else fast.parameters()
            grads = torch.autograd.grad(squared(fast, *query), list(wanted), materialize_grads=True)
        return dict(zip(dict(network.named_parameters()), grads))

    return of_one_task


def reptile_of_one_task(lr, batches_of):
    def of_one_task(network, support, query, t):
        x, y = torch.cat([support[0], query[0]]), torch.cat([support[1], query[1]])
        optimizer = torch.optim.SGD(network.parameters(), lr=lr)
        with higher.innerloop_ctx(network, optimizer, track_higher_grads=False) as (fast, inner):
            for batch in batches_of(t):
                inner.step(squared(fast, x[batch], y[batch]))
            pairs = zip(network.named_parameters(), fast.parameters())
            return {name: (before - after).detach() for (name, before), after in pairs}

    return of_one_task


@pytest.mark.parametrize("name", ["reptile", "fomaml", "maml"])
@pytest.mark.parametrize("steps", [1, 5])
def test_vectorised_equals_a_per_task_higher_loop(name, steps, task_loss):
    tasks = make_stream().batch(0, 4)
    further = {"inner_batch": 10} if name == "reptile" else {}
    algorithm = create_algorithm(name, inner_lr=0.02, inner_steps=steps, **further)
    got = algorithm.meta_grad(task_loss, task_loss.weights, tasks)
    if name == "reptile":
        of_one_task = reptile_of_one_task(0.02, batches(tasks, 10, steps))
    else:
        of_one_task = maml_of_one_task(0.02, steps, name == "maml")
    assert relative_error(got.grads, loop_over_tasks(task_loss.network, tasks, of_one_task)) < 1e-12


@pytest.mark.parametrize("size", [10, None])
@pytest.mark.parametrize(("steps", "agrees"), [(1, True), (2, False), (5, False)])
def test_reptile_is_joint_training_with_one_inner_step_and_not_with_more(size, steps, agrees, task_loss):
    """w_0 - w_1 = inner_lr dL/dw_0 on the same minibatch: the question of supervised-reptile's issue 20."""
    tasks = make_stream().batch(0, 4)
    slow, rate = task_loss.weights, 0.02
    joint = create_algorithm("joint", train_batch=size).meta_grad(task_loss, slow, tasks)
    reptile = create_algorithm("reptile", inner_lr=rate, inner_steps=steps, inner_batch=size)
    got = reptile.meta_grad(task_loss, slow, tasks)
    # To the scale of several steps: what more of them change is their direction.
    expected = {name: steps * rate * g for name, g in joint.grads.items()}
    error = relative_error(got.grads, expected)
    assert error < 1e-12 if agrees else error > 0.01


def test_joint_training_follows_the_gradient_of_one_loss_over_all_points_of_all_tasks(task_loss):
    tasks = make_stream().batch(0, 4)
    everything = tasks.together()
    loss = squared(task_loss.network, everything.x.flatten(0, 1), everything.y.flatten())
    names = [name for name, _ in task_loss.network.named_parameters()]
    expected = dict(zip(names, torch.autograd.grad(loss, list(task_loss.network.parameters()))))
    got = create_algorithm("joint").meta_grad(task_loss, task_loss.weights, tasks)
    assert relative_error(got.grads, expected) < 1e-12
    torch.testing.assert_close(got.query_loss.mean(), loss.detach())
