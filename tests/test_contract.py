"""What every algorithm must satisfy: the built-in ones and three plugins that stretch the contract."""

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from bench.api import BenchError, MetaGrad, TaskBatch
from bench.model import Classifier
from bench.registry import algorithm_names, create_algorithm, load_plugin
from bench.train import Diverged, check_contract
from tests.helpers import image_tasks, one_task, relative_error, small_classifier

PLUGIN = Path(__file__).parent / "plugins" / "three_kinds.py"
load_plugin(PLUGIN)
NAMES = algorithm_names()


def setting(name, rng, n_tasks=3):
    algorithm = create_algorithm(name)
    task_loss = small_classifier(rng, n_way=algorithm.output_size(5))
    weights = task_loss.weights
    slow = {**weights, **algorithm.extra_weights(weights)}
    tasks = image_tasks(rng, n_tasks, size=8)
    return algorithm, task_loss, slow, TaskBatch(tasks.support, tasks.query, algorithm.initial_carry(slow))


def test_built_in_and_plugin_algorithms_are_all_asked():
    assert {"reptile", "fomaml", "maml", "meta-sgd", "anil", "protonet"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_names_shapes_and_values_are_as_the_contract_says(name, rng):
    algorithm, task_loss, slow, tasks = setting(name, rng)
    result = algorithm.meta_grad(task_loss, slow, tasks)
    check_contract(name, slow, tasks.carry, 3, result)
    assert not any(t.requires_grad for t in (*result.grads.values(), *result.carry.values(), result.query_loss))
    assert any(g.count_nonzero() for g in result.grads.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_equals_the_mean_of_its_tasks_run_alone(name, rng):
    algorithm, task_loss, slow, tasks = setting(name, rng)
    whole = algorithm.meta_grad(task_loss, slow, tasks)
    alone = [algorithm.meta_grad(task_loss, slow, one_task(tasks, t)) for t in range(3)]
    mean = {n: torch.stack([a.grads[n] for a in alone]).mean(dim=0) for n in slow}
    assert relative_error(whole.grads, mean) < 1e-12
    torch.testing.assert_close(whole.query_loss, torch.cat([a.query_loss for a in alone]))
    for n, value in whole.carry.items():
        torch.testing.assert_close(value, torch.stack([a.carry[n] for a in alone]).mean(dim=0))


@pytest.mark.parametrize("name", NAMES)
def test_slow_weights_and_tasks_are_unchanged_and_repetition_changes_nothing(name, rng):
    algorithm, task_loss, slow, tasks = setting(name, rng)
    before = {n: w.clone() for n, w in slow.items()}
    images = tasks.support.x.clone(), tasks.query.x.clone()
    first = algorithm.meta_grad(task_loss, slow, tasks)
    again = algorithm.meta_grad(task_loss, slow, tasks)
    assert all(torch.equal(first.grads[n], again.grads[n]) for n in slow)
    assert all(torch.equal(slow[n], before[n]) and not slow[n].requires_grad and slow[n].grad is None for n in slow)
    assert torch.equal(tasks.support.x, images[0])
    assert torch.equal(tasks.query.x, images[1])


@pytest.mark.parametrize("name", NAMES)
def test_predictors_score_every_query_without_touching_the_slow_weights(name, rng):
    algorithm, task_loss, slow, tasks = setting(name, rng)
    before = {n: w.clone() for n, w in slow.items()}
    carry = {n: c.clone() for n, c in tasks.carry.items()}
    predictors = list(algorithm.predictors(task_loss, slow, tasks.support, 2, tasks.carry))
    assert len(predictors) == (3 if hasattr(algorithm, "inner_steps") else 1)
    assert all(p(tasks.query.x).shape == (3, 10, 5) for p in predictors)
    assert all(torch.equal(slow[n], before[n]) for n in slow)
    assert all(torch.equal(tasks.carry[n], carry[n]) for n in carry)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "protonet"])
def test_adaptation_lowers_the_support_loss(name, rng):
    algorithm, task_loss, slow, tasks = setting(name, rng)
    algorithm = dataclasses.replace(algorithm, inner_lr=0.01)
    path = list(algorithm.adaptation(task_loss, slow, tasks.support, 4))
    losses = [task_loss(state.fast, tasks.support).mean().item() for state in path]
    assert losses[0] > losses[-1]
    assert path[0].loss is None
    torch.testing.assert_close(path[1].loss.mean().item(), losses[0])


def test_learned_rates_get_the_gradient_that_finite_differences_give(rng):
    algorithm, task_loss, slow, tasks = setting("meta-sgd", rng)
    name = "rate/7.weight"
    grad = algorithm.meta_grad(task_loss, slow, tasks).grads[name]
    values = []
    for h in (1e-6, -1e-6):
        moved = {**slow, name: slow[name] + h}
        values.append(algorithm.meta_grad(task_loss, moved, tasks).query_loss.mean().item())
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(grad.sum().item(), rel=1e-5)


def test_adapting_the_head_leaves_the_body_alone_but_trains_it(rng):
    algorithm, task_loss, slow, tasks = setting("anil", rng)
    fast = algorithm.adapt(task_loss, slow, tasks.support)
    changed = {n for n in slow if not torch.equal(fast[n], slow[n].expand_as(fast[n]))}
    assert changed == {"7.weight", "7.bias"}
    assert algorithm.meta_grad(task_loss, slow, tasks).grads["0.weight"].count_nonzero() > 0


def test_nearest_prototype_is_what_it_says(rng):
    """One task by hand: distances to the class means of the support embeddings."""
    algorithm, task_loss, slow, tasks = setting("protonet", rng, n_tasks=1)
    (predictor,) = algorithm.predictors(task_loss, slow, tasks.support, None, {})
    both = torch.cat([tasks.support.x, tasks.query.x], dim=1)
    outputs = task_loss.outputs({n: w[None] for n, w in slow.items()}, both)[0]
    means = torch.stack([outputs[:5][tasks.support.y[0] == c].mean(dim=0) for c in range(5)])
    expected = -(outputs[5:, None] - means).square().sum(-1)
    torch.testing.assert_close(predictor(tasks.query.x)[0], expected)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda r: {"w": r.grads["w"]}, BenchError, "must return a MetaGrad"),
        (lambda r: dataclasses.replace(r, grads={}), BenchError, r"named like the slow weights.*'w'"),
        (lambda r: dataclasses.replace(r, grads={"w": None}), BenchError, r"gradient of w is None"),
        (lambda r: dataclasses.replace(r, grads={"w": torch.ones(2)}), BenchError, r"shape \(3,\)"),
        (lambda r: dataclasses.replace(r, grads={"w": torch.full((3,), torch.nan)}), Diverged, "w is not finite"),
        (lambda r: dataclasses.replace(r, carry={"v": torch.ones(1)}), BenchError, "names and shapes of initial_carry"),
        (
            lambda r: dataclasses.replace(r, query_loss=torch.ones(4, requires_grad=True)),
            BenchError,
            "query_loss still holds its graph",
        ),
        (lambda r: dataclasses.replace(r, query_loss=torch.tensor(1.0)), BenchError, r"one loss per task, \(4,\)"),
    ],
)
def test_breaches_of_the_contract_are_named(change, error, words):
    right = MetaGrad({"w": torch.ones(3)}, torch.ones(4))
    check_contract("mine", {"w": torch.zeros(3)}, {}, 4, right)
    with pytest.raises(error, match=words):
        check_contract("mine", {"w": torch.zeros(3)}, {}, 4, change(right))


def test_classifier_is_a_task_loss_of_its_outputs(rng):
    task_loss = small_classifier(rng)
    assert isinstance(task_loss, Classifier)
    tasks = image_tasks(rng, 2, size=8)
    fast = {n: w.expand(2, *w.shape) for n, w in task_loss.weights.items()}
    expected = F.cross_entropy(task_loss.outputs(fast, tasks.query.x)[1], tasks.query.y[1])
    torch.testing.assert_close(task_loss(fast, tasks.query)[1], expected)
