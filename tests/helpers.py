"""Small problems with answers on paper, and small networks, for the tests of algorithms."""

import torch

from bench.api import Examples, MetaAlgorithm, TaskBatch
from bench.check.trial import image_tasks, one_task, relative_error, small_classifier

__all__ = ["image_tasks", "one_task", "quadratic_loss", "quadratic_tasks", "relative_error", "small_classifier"]


def quadratic_loss(fast, examples):
    """Half the mean squared distance between the weights and the examples of each task: [T]."""
    return 0.5 * (fast["w"][:, None] - examples.x).square().sum(-1).mean(1)


def quadratic_tasks(support_optima, query_optima):
    """Two examples per set, placed around each task's optimum so that their mean is exactly there."""
    offset = torch.tensor([[0.3], [-0.3]], dtype=support_optima.dtype)

    def examples(optima):
        x = optima[:, None] + offset
        return Examples(x, torch.zeros(x.shape[:2], dtype=torch.long))

    return TaskBatch(examples(support_optima), examples(query_optima))


def loop_over_tasks(network, tasks, of_one_task):
    """Mean over tasks of a per-task estimate, each on a network of its own, as higher's examples are written."""
    per_task = []
    for t in range(tasks.support.n_tasks):
        sets = [(e.x[t], e.y[t]) for e in (tasks.support, tasks.query)]
        per_task.append(of_one_task(network, *sets, t))
    return {name: torch.stack([g[name] for g in per_task]).mean(dim=0) for name in per_task[0]}


def batches(tasks, size, steps):
    """Cut every task's minibatches from its passes by hand."""
    n = tasks.support.y.shape[1] + tasks.query.y.shape[1]
    order = tasks.support.orders(-(-size * steps // n), n).flatten(1)
    return lambda t: [order[t, s * size : (s + 1) * size] for s in range(steps)]


class Something(MetaAlgorithm):
    """An algorithm that nobody asks anything."""

    def meta_grad(self, task_loss, slow, tasks):
        raise AssertionError
