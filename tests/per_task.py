"""Meta-gradients the slow way, as references: one task after the other, by torch's own modules and autograd alone."""

import torch
import torch.nn.functional as F
from torch.func import functional_call


def mean_gradient(loss_of_task, slow, tasks):
    """The mean over tasks of the gradient of ``loss_of_task(slow, support, query, t)`` with respect to ``slow``."""
    found = []
    for t in range(tasks.support.n_tasks):
        leaves = {name: w.detach().clone().requires_grad_() for name, w in slow.items()}
        support, query = ((e.x[t], e.y[t]) for e in (tasks.support, tasks.query))
        loss = loss_of_task(leaves, support, query, t)
        found.append(torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True))
    return {name: torch.stack(grads).mean(dim=0) for name, grads in zip(slow, zip(*found))}


def outputs_of(network, weights, x):
    return functional_call(network, {n: w for n, w in weights.items() if n in dict(network.named_parameters())}, (x,))


def loss_of(network, weights, examples):
    return F.cross_entropy(outputs_of(network, weights, examples[0]), examples[1])


def gradients(loss, weights, names, create_graph=True):
    wanted = [weights[name] for name in names]
    grads = torch.autograd.grad(loss, wanted, create_graph=create_graph, materialize_grads=True)
    return dict(zip(names, grads))


def adapted_by(step, network, names, steps):
    """A loss of a task: the query loss after ``steps`` of ``step(w, g, state, i)`` on the weights ``names``."""

    def loss_of_task(slow, support, query, t):
        fast, states = dict(slow), {name: {} for name in names}
        for i in range(steps):
            grads = gradients(loss_of(network, fast, support), fast, names)
            fast |= {name: step(fast[name], grads[name], states[name], i, name, slow) for name in names}
        return loss_of(network, fast, query)

    return loss_of_task
