"""The arithmetic of the work: the issue's numbers, by hand, and what torch counts."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from bench.speed.work import SETTINGS, Problem, gflop, layers, supervised_gflop


@pytest.mark.parametrize(
    ("setting", "maml", "fomaml", "images"),
    [("S1", 10.5, 5.0, 320), ("S2", 77.7, 50.3, 3200), ("S3", 105.3, 50.4, 3200)],
)
def test_work_is_that_of_the_issue(setting, maml, fomaml, images):
    work = SETTINGS[setting]
    assert round(gflop(work, "maml"), 1) == maml
    assert round(gflop(work, "fomaml"), 1) == fomaml
    assert work.support_images + work.query_images == images
    assert supervised_gflop(work) == gflop(work, "fomaml")


def test_work_by_hand():
    """Multiply-adds of a forward pass: output positions x 9 x channels in x channels out, 256 x 5 in the last layer."""
    first, rest = 14 * 14 * 9 * 64, (49 + 16 + 4) * 9 * 64 * 64 + 256 * 5
    assert sum(layer.forward for layer in layers(5)) == 2 * (first + rest)
    passes = 2 * (2 * first + 3 * rest)  # forward, gradient to weights, and to inputs but for the first layer
    assert gflop(SETTINGS["S4"], "reptile") == pytest.approx(5 * 50 * passes / 1e9)
    more = 2 * (2 * first + 6 * rest)  # second order: each of those products differentiated in both of its factors
    assert gflop(SETTINGS["S1"], "maml", least=True) == pytest.approx((320 * passes + 160 * more) / 1e9)


@pytest.mark.parametrize("algo", ["maml", "fomaml"])
def test_work_is_what_torch_counts_in_a_plain_loop(algo):
    work = dataclasses.replace(SETTINGS["S1"], meta_batch=1, inner_steps=2)
    case = Problem(work, algo, torch.device("cpu"))
    network, tasks = case.network(), case.tasks()
    slow = dict(network.named_parameters())
    with FlopCounterMode(display=False) as counter:
        fast = slow
        for _ in range(work.inner_steps):
            loss = F.cross_entropy(functional_call(network, fast, (tasks.support.x[0],)), tasks.support.y[0])
            grads = torch.autograd.grad(loss, list(fast.values()), create_graph=algo == "maml")
            fast = {n: w - 0.4 * g for (n, w), g in zip(fast.items(), grads)}
        loss = F.cross_entropy(functional_call(network, fast, (tasks.query.x[0],)), tasks.query.y[0])
        torch.autograd.grad(loss, list(slow.values()))
    assert gflop(work, algo) == pytest.approx(counter.get_total_flops() / 1e9, rel=1e-12)
