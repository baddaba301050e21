"""Networks of every kind: the way each is run by, and its meta-gradients against a plain loop over the module itself.

The loop loads weights into the module and lets torch differentiate it; the second order of MAML is the chain of
products of Hessians with vectors along the inner steps, written out by hand.
"""

import pytest
import torch
import torch.nn.functional as F
from places import REPOSITORY
from torch.func import replace_all_batch_norm_modules_

from bench.api import Examples, TaskBatch
from bench.network.agreement import NoWay, choose_way
from bench.network.build import build_network
from bench.network.forward import twice_differentiable
from bench.network.model import Classifier
from bench.registry import BACKBONES, create_algorithm, create_backbone, load_plugin
from tests.plugins.networks_people_bring import EXPECTED, FLOAT32, REFUSED

SHAPE, WAYS, TASKS, STEPS, LR = (1, 28, 28), 5, 4, 2, 0.05
CASES = REPOSITORY.parent / "shared" / "cases" / "networks.py"
if CASES.exists():
    load_plugin(CASES)
BROUGHT = [name for name in BACKBONES.names() if name.startswith("n-")]


def made(name):
    return build_network(create_backbone(name), SHAPE, WAYS, seed=0)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_network_is_run_by_the_fastest_way_that_is_right(name):
    way = choose_way(lambda: made(name), SHAPE)
    assert way.name == EXPECTED[name]
    assert not way.once
    assert bool(way.reason) == (way.name == "loop"), "why it is slow"


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_that_is_no_function_of_weights_and_inputs_is_refused(name):
    with pytest.raises(NoWay, match=REFUSED[name]):
        choose_way(lambda: made(name), SHAPE)


def tasks_of(seed):
    rng = torch.Generator().manual_seed(seed)
    images = (torch.rand(TASKS, WAYS, *SHAPE, generator=rng, dtype=torch.float64) for _ in "sq")
    return TaskBatch(*(Examples(x, torch.arange(WAYS).expand(TASKS, -1)) for x in images))


class Module:
    """The module itself, with weights loaded into it."""

    def __init__(self, name):
        self.network = made(name).double().eval()
        replace_all_batch_norm_modules_(self.network)
        self.own = {n: p for n, p in self.network.named_parameters() if p.requires_grad}

    def weights(self):
        return [p.detach().clone() for p in self.own.values()]

    def gradient(self, weights, x, y, graph=False):
        with torch.no_grad():
            for p, w in zip(self.own.values(), weights):
                p.copy_(w)
        with twice_differentiable(self.network):
            loss = F.cross_entropy(self.network(x), y)
        return torch.autograd.grad(loss, list(self.own.values()), create_graph=graph, materialize_grads=True)

    def hessian_times(self, vector, weights, x, y):
        first = self.gradient(weights, x, y, graph=True)
        along = sum((g * v).sum() for g, v in zip(first, vector))
        return torch.autograd.grad(along, list(self.own.values()), materialize_grads=True)


def by_hand(name, algo, tasks):
    """The meta-gradient of plain loops, as one vector."""
    module, totals = Module(name), []
    start = module.weights()
    for task in range(TASKS):
        support, query = ((e.x[task], e.y[task]) for e in (tasks.support, tasks.query))
        if algo == "reptile":
            support = tuple(torch.cat(pair) for pair in zip(support, query))
        path = [start]
        for _ in range(STEPS):
            path.append([w - LR * g for w, g in zip(path[-1], module.gradient(path[-1], *support))])
        moved = [a - b for a, b in zip(start, path[-1])]
        found = moved if algo == "reptile" else module.gradient(path[-1], *query)
        if algo == "maml":
            for weights in path[-2::-1]:
                bent = module.hessian_times(found, weights, *support)
                found = [v - LR * h for v, h in zip(found, bent)]
        totals.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(totals).mean(dim=0)


@pytest.mark.parametrize("algo", ["maml", "fomaml", "reptile"])
@pytest.mark.parametrize("name", [*(name for name in EXPECTED if name not in FLOAT32), *BROUGHT])
def test_meta_gradients_are_those_of_a_plain_loop_over_the_module_itself(name, algo):
    whole = {"inner_batch": None} if algo == "reptile" else {}
    algorithm = create_algorithm(algo, inner_lr=LR, inner_steps=STEPS, **whole)
    network, tasks = made(name).double(), tasks_of(1)
    task_loss = Classifier(network, way=choose_way(lambda: made(name), SHAPE))
    got = algorithm.meta_grad(task_loss, task_loss.weights, tasks).grads
    expected = by_hand(name, algo, tasks)
    off = torch.cat([got[n].flatten() for n in task_loss.weights]) - expected
    assert float(off.norm()) <= 1e-9 * float(expected.norm())


@pytest.mark.parametrize("name", ["kind-frozen-part", *[name for name in BROUGHT if name == "n-frozen"]])
def test_frozen_parameters_are_no_weights(name):
    network = made(name)
    frozen = {n for n, p in network.named_parameters() if not p.requires_grad}
    assert frozen
    assert not frozen & set(Classifier(network).weights)


def test_parameters_in_lists_are_found_after_the_network_has_moved():
    """As on a device, where it has other parameters than those that the list keeps."""
    network = made("kind-kept-in-a-list")
    strays = dict(network.named_parameters())
    way = choose_way(lambda: made("kind-kept-in-a-list"), SHAPE)
    for layer in (network.inner, network.head):
        layer.weight, layer.bias = (torch.nn.Parameter(p.detach().clone()) for p in (layer.weight, layer.bias))
    task_loss = Classifier(network, way=way, strays=strays)
    fast = {n: 2 * w.expand(3, *w.shape) for n, w in task_loss.weights.items()}
    x = torch.rand(3, 4, *SHAPE)
    hidden = F.linear(x.flatten(2), 2 * network.inner.weight, 2 * network.inner.bias).tanh()
    expected = F.linear(hidden, 2 * network.head.weight, 2 * network.head.bias)
    torch.testing.assert_close(task_loss.outputs(fast, x), expected)
