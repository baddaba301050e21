"""Meta-gradients as anybody would write them: one task after the other, through the module's own forward."""

import torch
import torch.nn.functional as F
from torch.func import functional_call

from bench.api import Examples, TaskBatch


def meta_gradient(network, tasks, lr, steps, second_order):
    """Return the mean over tasks of MAML's meta-gradient, or of FOMAML's, by weight."""
    network.train()  # batch normalisation as torch has it: by the batch
    slow = {name: p.detach().clone().requires_grad_() for name, p in network.named_parameters()}
    total = {name: torch.zeros_like(p) for name, p in slow.items()}
    for task in range(tasks.support.n_tasks):
        fast = slow
        for _ in range(steps):
            loss = F.cross_entropy(functional_call(network, fast, (tasks.support.x[task],)), tasks.support.y[task])
            grads = torch.autograd.grad(loss, list(fast.values()), create_graph=second_order)
            fast = {name: p - lr * g for (name, p), g in zip(fast.items(), grads)}
            if not second_order:
                fast = {name: p.detach().requires_grad_() for name, p in fast.items()}
        loss = F.cross_entropy(functional_call(network, fast, (tasks.query.x[task],)), tasks.query.y[task])
        at = slow if second_order else fast
        for name, g in zip(at, torch.autograd.grad(loss, list(at.values()))):
            total[name] += g / tasks.support.n_tasks
    return total


def tasks_of(shape, rng, n_tasks=2, n_way=3, k_query=1):
    """Return tasks of random inputs in float64, one support example per class."""

    def examples(k):
        x = torch.rand(n_tasks, n_way * k, *shape, generator=rng, dtype=torch.float64)
        return Examples(x, torch.arange(n_way).repeat_interleave(k).expand(n_tasks, -1))

    return TaskBatch(examples(1), examples(k_query))


def relative(got, expected):
    """Return how far some tensors by name are from others, relative to these."""
    got, expected = (torch.cat([t[name].flatten() for name in sorted(expected)]) for t in (got, expected))
    return float((got - expected).norm() / expected.norm())
