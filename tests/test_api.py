"""What the contract hands to algorithms: the number of classes, the number of the step, a graph where one is wanted."""

from dataclasses import dataclass

import torch
from helpers import image_tasks, relative_error, small_classifier

from bench.api import Episode, MetaAlgorithm, MetaGrad
from bench.registry import create_algorithm
from bench.tasks.stream import TaskStream


@dataclass(frozen=True)
class Plain(MetaAlgorithm):
    """All that it inherits, differentiated with respect to slow weights."""

    inner_lr: float = 0.1
    inner_steps: int = 3

    def meta_grad(self, task_loss, slow, tasks):
        slow = {name: w.detach().requires_grad_() for name, w in slow.items()}
        loss = task_loss(self.adapt(task_loss, slow, tasks.support), tasks.query)
        grads = torch.autograd.grad(loss.mean(), list(slow.values()), materialize_grads=True)
        return MetaGrad(dict(zip(slow, grads)), loss.detach())


def test_the_inherited_inner_loop_is_mamls_where_slow_weights_require_gradients(rng):
    task_loss, tasks = small_classifier(rng), image_tasks(rng, 3, size=8)
    got, expected = (
        algorithm.meta_grad(task_loss, task_loss.weights, tasks).grads
        for algorithm in (Plain(), create_algorithm("maml", inner_lr=0.1, inner_steps=3))
    )
    assert relative_error(got, expected) < 1e-12


def test_steps_are_numbered_and_leave_leaves_behind_at_test(rng):
    task_loss, tasks, seen = small_classifier(rng), image_tasks(rng, 2, size=8), []

    class Counting(Plain):
        def inner_step(self, loss, fast, carry, step):
            seen.append(step)
            return super().inner_step(loss, fast, carry, step)

    for state in Counting().adaptation(task_loss, task_loss.weights, tasks.support, 5):
        assert all(w.is_leaf and w.requires_grad for w in state.fast.values())
    assert seen == [0, 1, 2, 3, 4]


def test_examples_of_a_stream_and_their_parts_say_how_many_classes_there_are(toy_images):
    pool = toy_images.pool("meta_train", "none", torch.device("cpu"))
    tasks = TaskStream(pool, Episode(3, 1, 2), 0).batch(0, 2)
    batches = tasks.query.minibatches(2, 3)
    assert {e.n_way for e in (tasks.support, tasks.query, tasks.together(), *batches)} == {3}
