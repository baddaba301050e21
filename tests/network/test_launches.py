"""How many kernels a meta-step launches in a card's form, counted on a CPU: those of Triton do not run here."""

import importlib.util

import pytest
import torch

from bench.network.card.launches import Launches
from bench.network.kernels import triton_kernels
from bench.network.model import Classifier
from bench.network.stacked import TasksOutside
from bench.registry import create_algorithm
from bench.settings.config import RunConfig
from bench.speed.peers import launches_of
from bench.speed.work import BACKBONE, SETTINGS, Problem, hyperparameters
from bench.training.metastep import MetaStep


def test_views_and_empty_tensors_start_nothing():
    x = torch.ones(2, 3)
    with Launches() as launches:
        (x.t() @ x.view(2, 3)).add_(1)
        torch.empty(3, 0).mul(2)
        torch.empty_like(x)
    assert launches.names == {"aten::mm": 1, "aten::add_": 1}
    assert launches.total == 2


def step_of(name, algo, kernels):
    """Return a meta-step in a card's form, with torch's optimizer as it is there."""
    work = SETTINGS[name]
    problem = Problem(work, algo, torch.device("cpu"), meta_optimizer="sgd" if work.inner_batch else "adam")
    config = RunConfig(
        algo=algo, hyperparameters=hyperparameters(work), dataset="made-up", n_way=work.n_way, k_shot=work.k_shot,
        k_query=work.k_query, meta_batch=work.meta_batch, backbone=BACKBONE, meta_optimizer=problem.meta_optimizer,
        meta_steps=10, device="cpu",
    )  # fmt: skip
    task_loss = Classifier(problem.network(), kernels, TasksOutside)
    algorithm, slow = create_algorithm(algo, **hyperparameters(work)), task_loss.weights
    carry = algorithm.initial_carry(slow)
    step = MetaStep(config, algorithm, task_loss, slow, carry, problem.stream(), work.meta_batch, captured=False)
    group = step.optimizer.torch.param_groups[0]
    group.update({"fused": True} if "betas" in group else {"foreach": True})
    return step


# What a step takes now; lower a figure when the step takes fewer.
NOW = {("S1", "maml"): 120, ("S2", "maml"): 394, ("S4", "reptile"): 206}


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
@pytest.mark.parametrize(("name", "algo"), NOW)
def test_a_meta_step_takes_no_more_launches_than_it_did(name, algo, monkeypatch):
    monkeypatch.setattr("algorithms.flat._on_gpu", lambda weights: True)
    monkeypatch.setattr("bench.api.shared", lambda w: True)
    step = step_of(name, algo, triton_kernels())
    launches_of(step, running=False)  # the first makes the optimizer's state
    launches = launches_of(step, running=False)
    print(f"{name} {algo}: {launches.total} launches: {launches.names.most_common()}")
    assert launches.total <= NOW[name, algo], launches.names
    assert launches.names["norms::forward"] > 0
