"""What every plugin must satisfy: the built-in ones and three algorithms that stretch the contract."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from helpers import image_tasks, small_classifier
from places import PLUGINS

from bench.api import BenchError, MetaGrad, TaskBatch
from bench.check import backbone, dataset
from bench.check.algorithm import CHECKS, Algorithm
from bench.check.verdicts import Status, ask, ask_all
from bench.network.build import extra_weights
from bench.network.model import Classifier
from bench.registry import ALGORITHMS, BACKBONES, DATASETS, algorithm_names, create_algorithm, load_plugin
from bench.training.contract import Diverged, check_contract

PLUGIN = PLUGINS / "three_kinds.py"
load_plugin(PLUGIN)
NAMES = algorithm_names()


def setting(name, rng, n_tasks=3):
    algorithm = create_algorithm(name)
    task_loss = small_classifier(rng, n_way=algorithm.output_size(5))
    weights = task_loss.weights
    slow = {**weights, **extra_weights(name, algorithm, weights, n_tasks * 5)}
    tasks = image_tasks(rng, n_tasks, size=8)
    return algorithm, task_loss, slow, TaskBatch(tasks.support, tasks.query, algorithm.initial_carry(slow))


def test_built_in_and_plugin_algorithms_are_all_asked():
    assert {"reptile", "fomaml", "maml", "toy-meta-sgd", "toy-anil", "toy-protonet"} <= set(NAMES)


@pytest.mark.parametrize("check", [c for c in CHECKS if c.name != "outpaces"], ids=lambda check: check.name)
@pytest.mark.parametrize("name", NAMES)
def test_every_algorithm_passes_the_checks_of_plugins(name, check):
    """Those of ``python -m bench.check``, which test_command.py shows can fail."""
    verdict = ask(check, Algorithm(name, ALGORITHMS.get(name)))
    assert verdict.status in (Status.OK, Status.SKIPPED), verdict


CLAIMED = {
    "first": ("reptile", "fomaml", "foml"),
    "second": ("maml", "anil", "boil", "meta-sgd", "maml++", "cavia", "protonet", "r2d2"),
}


@pytest.mark.parametrize(("claimed", "name"), [(claimed, name) for claimed in CLAIMED for name in CLAIMED[claimed]])
def test_built_in_algorithms_claim_an_order_and_get_it(claimed, name):
    (order,) = (check for check in CHECKS if check.name == "order")
    assert ask(order, Algorithm(name, ALGORITHMS.get(name))).found.startswith(f"{claimed}, as claimed")


def test_carried_state_passes_the_checks_too():
    """Reptile with its inner Adam, whose second moment is carried."""
    fields = {"__annotations__": {"inner_optimizer": str}, "inner_optimizer": "adam"}
    with_adam = dataclasses.dataclass(frozen=True)(type("WithAdam", (ALGORITHMS.get("reptile"),), fields))
    assert with_adam().initial_carry({"w": torch.ones(1)})
    for verdict in ask_all([c for c in CHECKS if c.name != "outpaces"], Algorithm("reptile-adam", with_adam)):
        assert verdict.status in (Status.OK, Status.SKIPPED), verdict


@pytest.mark.parametrize("name", BACKBONES.names())
def test_every_backbone_passes_the_checks_of_plugins(name):
    for verdict in ask_all(backbone.CHECKS, backbone.Network(name, BACKBONES.get(name))):
        assert verdict.status == Status.OK, verdict


@pytest.mark.parametrize("name", ["glyphs", "sine", "navigation"])
def test_every_data_set_passes_the_checks_of_plugins(name, tmp_path, prepared_glyphs):
    passes(dataset.Data(name, DATASETS.get(name), prepared_glyphs if name == "glyphs" else tmp_path))


def test_omniglot_passes_the_checks_of_plugins(prepared_omniglot):
    passes(dataset.Data("omniglot", DATASETS.get("omniglot"), prepared_omniglot))


def passes(data):
    verdicts = list(ask_all(dataset.CHECKS, data))
    assert [v for v in verdicts if v.status != Status.OK] == []


def test_learned_rates_get_the_gradient_that_finite_differences_give(rng):
    algorithm, task_loss, slow, tasks = setting("toy-meta-sgd", rng)
    name = "rate/7.weight"
    grad = algorithm.meta_grad(task_loss, slow, tasks).grads[name]
    values = []
    for h in (1e-6, -1e-6):
        moved = {**slow, name: slow[name] + h}
        values.append(algorithm.meta_grad(task_loss, moved, tasks).query_loss.mean().item())
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(grad.sum().item(), rel=1e-5)


def test_adapting_the_head_leaves_the_body_alone_but_trains_it(rng):
    algorithm, task_loss, slow, tasks = setting("toy-anil", rng)
    fast = algorithm.adapt(task_loss, slow, tasks.support)
    changed = {n for n in slow if not torch.equal(fast[n], slow[n].expand_as(fast[n]))}
    assert changed == {"7.weight", "7.bias"}
    assert algorithm.meta_grad(task_loss, slow, tasks).grads["0.weight"].count_nonzero() > 0


def test_nearest_prototype_is_what_it_says(rng):
    """One task by hand: distances to the class means of the support embeddings."""
    algorithm, task_loss, slow, tasks = setting("toy-protonet", rng, n_tasks=1)
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
