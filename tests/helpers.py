"""Small problems with answers on paper, and small networks, for the tests of algorithms."""

import torch

from bench.api import Examples, TaskBatch
from bench.checks.problem import image_tasks, one_task, relative_error, small_classifier

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
