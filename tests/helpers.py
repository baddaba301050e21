"""Small problems with answers on paper, and small networks, for the tests of algorithms."""

import torch
from torch import nn

from bench.api import Examples, TaskBatch
from bench.model import Classifier


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


def image_tasks(rng, n_tasks, n_way=5, k_shot=1, k_query=2, size=28):
    """Random images with balanced labels, float64, and minibatch orders drawn once."""

    def examples(k):
        x = torch.rand(n_tasks, n_way * k, 1, size, size, generator=rng, dtype=torch.float64)
        y = torch.arange(n_way).repeat_interleave(k).expand(n_tasks, -1)
        drawn = {}

        def orders(passes, n):
            while len(drawn.setdefault(n, [])) < passes:
                drawn[n].append(torch.rand(n_tasks, n, generator=rng).argsort(dim=1))
            return torch.stack(drawn[n][:passes], dim=1)

        return Examples(x, y, orders)

    return TaskBatch(examples(k_shot), examples(k_query))


def one_task(tasks, t):
    """Task t of a batch as a batch of its own."""

    def part(e):
        return Examples(e.x[t : t + 1], e.y[t : t + 1], lambda passes, n: e.orders(passes, n)[t : t + 1])

    return TaskBatch(part(tasks.support), part(tasks.query), tasks.carry)


def small_classifier(rng, n_way=5, size=8):
    """A two-layer convolutional network with BatchNorm in float64, its weights drawn from ``rng``."""
    side = size // 4
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * side * side, n_way),
    ).double()  # fmt: skip
    for p in network.parameters():
        p.data = 0.5 * torch.randn(p.shape, generator=rng, dtype=torch.float64)
    return Classifier(network)


def relative_error(got, expected):
    """Norm of the difference over the norm of what is expected, over all named tensors."""
    assert set(got) == set(expected)
    difference = sum((got[n] - expected[n]).square().sum() for n in got).sqrt()
    return (difference / sum(e.square().sum() for e in expected.values()).sqrt()).item()
