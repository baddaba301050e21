"""Measuring: variants must compute the same, rounds are interleaved, a start is timed twice."""

import sys
import types

import pytest
import torch
from tiny_work import CASES, TINY
from torch import nn
from torch.func import functional_call

from bench.speed import measure
from bench.speed.measure import Disagreement, agreement, interleaved, seconds, start_seconds
from bench.speed.peers import VARIANTS, Runner

CPU = torch.device("cpu")


class FakeLearner(nn.Module):
    """learn2learn 0.2's learner: adapted weights that lead back to those of the module it was cloned from."""

    def __init__(self, module, weights, lr, first_order):
        super().__init__()
        self.inner, self.fast, self.lr, self.first_order = [module], weights, lr, first_order

    def adapt(self, loss):
        grads = torch.autograd.grad(loss, list(self.fast.values()), create_graph=not self.first_order)
        self.fast = {n: w - self.lr * g for (n, w), g in zip(self.fast.items(), grads)}

    def forward(self, x):
        return functional_call(self.inner[0], self.fast, (x,))


class FakeMAML(nn.Module):
    """learn2learn 0.2's ``algorithms.MAML``, as far as its examples use it."""

    def __init__(self, model, lr, first_order=False):
        super().__init__()
        self.module, self.lr, self.first_order = model, lr, first_order

    def clone(self):
        weights = {n: w.clone() for n, w in self.module.named_parameters()}
        return FakeLearner(self.module, weights, self.lr, self.first_order)


@pytest.fixture
def learn2learn(monkeypatch):
    """A stand-in for the library, so that the loop over it runs where it cannot be installed."""
    module = types.ModuleType("learn2learn")
    module.algorithms = types.SimpleNamespace(MAML=FakeMAML)
    module.__spec__ = types.SimpleNamespace(name="learn2learn")
    monkeypatch.setitem(sys.modules, "learn2learn", module)


@pytest.mark.parametrize(("setting", "algo"), CASES)
def test_variants_agree_in_float64(setting, algo, learn2learn):
    """Per-task loops, vmap of grad and the stacked project are independent of each other; so is the sum of tasks."""
    errors = agreement(TINY[setting], algo, CPU)
    expected = {"loop", "vmap", "project"} | ({"learn2learn"} if algo != "reptile" else set())
    assert set(errors) == expected
    assert max(errors.values()) < 1e-11


def test_a_gradient_that_is_no_number_does_not_pass(monkeypatch):
    def broken(problem):
        weights = {n: p.detach().clone() for n, p in problem.network().named_parameters()}
        return Runner(lambda: [w.mul_(float("nan")) for w in weights.values()], weights)

    monkeypatch.setitem(VARIANTS, "vmap", broken)
    with pytest.raises(Disagreement):
        agreement(TINY["S1"], "fomaml", CPU)


def test_rounds_read_every_clock_once_and_begin_with_another():
    read = []

    def clock(name):
        def reading():
            read.append(name)
            return float(len(read))

        return reading

    times = interleaved({name: clock(name) for name in "abcd"}, rounds=4)
    rounds = [read[i : i + 4] for i in range(0, 16, 4)]
    assert all(sorted(names) == list("abcd") for names in rounds)
    assert [names[0] for names in rounds] == list("abcd")
    assert times["a"] == [1.0, 8.0, 11.0, 14.0]


def test_seconds_is_the_mean_over_the_calls(monkeypatch):
    clock = iter([10.0, 13.0])
    monkeypatch.setattr(measure, "now", lambda device: next(clock))
    calls = []
    assert seconds(lambda: calls.append(1), 6, CPU) == 0.5
    assert len(calls) == 6


def test_a_second_start_is_reported_beside_the_first(monkeypatch, tmp_path):
    """The command is run_bench.py's own, twice with one --out."""
    commands = []

    def run(command, **_):
        commands.append(command)
        return types.SimpleNamespace(returncode=0)

    def load(out):
        return [types.SimpleNamespace(row=types.SimpleNamespace(algo="maml", setup_s=10.0 / len(commands)))]

    monkeypatch.setattr(measure.subprocess, "run", run)
    monkeypatch.setattr(measure, "load_runs", load)
    assert start_seconds(["maml"], CPU, 1) == {"maml": (10.0, 5.0)}
    assert commands[0] == commands[1]
