"""The meta-gradient by other ways than the graph of the whole inner loop: the same numbers, in less memory."""

import dataclasses
import logging

import pytest
import torch
from helpers import image_tasks, quadratic_loss, quadratic_tasks, relative_error, small_classifier
from torch import nn

from algorithms import unroll
from algorithms.anil import ANIL
from algorithms.maml import MAML
from algorithms.unroll import hessian_by_forward, hessian_by_reverse
from bench.api import BenchError, Recall, TaskBatch
from bench.network.build import build_network, extra_weights
from bench.network.card.launches import Launches
from bench.network.convolution import once
from bench.network.model import Classifier
from bench.network.stacked import TasksInside, TasksOutside
from bench.registry import create_algorithm, create_backbone, hyperparameter_names
from bench.training.memory import LiveTensors

WAYS = ("mixed", "recompute")
RULES = {
    "sgd": {},
    "decay": {"inner_decay": 0.3},
    "momentum": {"inner_optimizer": "momentum", "inner_momentum": 0.8, "inner_decay": 0.2},
    "adam": {"inner_optimizer": "adam", "inner_decay": 0.3},
    "clip": {"inner_clip": 0.3},
    "all of it": {"inner_optimizer": "momentum", "inner_decay": 0.2, "inner_clip": 0.3},
}


def apart(name, task_loss, tasks, steps=3, **settings):
    """How far gradient and losses of both ways are from those of the graph."""
    found = {}
    for way in ("higher", *WAYS):
        algorithm = create_algorithm(name, inner_lr=0.05, inner_steps=steps, unroll=way, **settings)
        slow = {**task_loss.weights, **extra_weights(name, algorithm, task_loss.weights, 15)}
        before = {n: w.clone() for n, w in slow.items()}
        found[way] = algorithm.meta_grad(task_loss, slow, tasks)
        assert all(torch.equal(w, before[n]) for n, w in slow.items())
        assert not any(g.requires_grad for g in found[way].grads.values())
    expected = found["higher"]
    losses = [float((found[way].query_loss - expected.query_loss).abs().max()) for way in WAYS]
    return max(*losses, *(relative_error(found[way].grads, expected.grads) for way in WAYS))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["maml", "boil", "cavia", "meta-sgd", "maml++"])
def test_every_way_gives_the_gradient_of_the_whole_graph(name, rule, rng):
    """Also where some weights adapt alone, where rates are learned and where a context does."""
    tasks = image_tasks(rng, n_tasks=3, size=8, k_query=6)  # of which two passes are made
    assert apart(name, small_classifier(rng), tasks, **RULES[rule]) < 1e-12


@pytest.mark.parametrize("name", ["maml", "cavia", "maml++"])
def test_every_way_gives_it_as_weights_lie_on_a_card(name, rng, monkeypatch):
    """Shared where tasks begin, and then parts of one buffer."""
    monkeypatch.setattr("bench.api.shared", lambda w: True)
    monkeypatch.setattr("algorithms.flat._on_gpu", lambda weights: True)
    task_loss = Classifier(small_classifier(rng).network, form=TasksOutside)
    assert apart(name, task_loss, image_tasks(rng, n_tasks=3, size=8)) < 1e-12


def test_memory_that_runs_out_while_the_way_is_chosen_says_nothing_of_the_way(rng, monkeypatch, caplog):
    task_loss, tasks, calls = small_classifier(rng), image_tasks(rng, n_tasks=2, size=8), []
    why_not = unroll._why_not

    def full(*args):
        calls.append(args)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("full")
        return why_not(*args)

    monkeypatch.setattr(unroll, "_why_not", full)
    maml = create_algorithm("maml", inner_steps=2, unroll="mixed")
    with pytest.raises(torch.OutOfMemoryError):
        maml.meta_grad(task_loss, task_loss.weights, tasks)
    maml.meta_grad(task_loss, task_loss.weights, tasks)
    assert len(calls) == 2, "asked again"
    assert list(unroll._PRODUCTS[task_loss].values()) == [hessian_by_forward]
    assert not caplog.records


@pytest.mark.parametrize("phase", [1, 2, 3])
def test_losses_of_several_steps_and_first_order_are_led_back_too(phase, rng):
    tasks = image_tasks(rng, n_tasks=3, size=8)
    early = TaskBatch(tasks.support, tasks.query, {}, torch.tensor(0.05, dtype=torch.float64), phase)
    assert apart("maml++", small_classifier(rng), early) < 1e-12


@pytest.mark.parametrize("form", [TasksInside, TasksOutside])
@pytest.mark.parametrize("backbone", ["conv4", "conv4-pool", "mlp"])
def test_the_networks_of_the_papers_give_it_in_both_forms(backbone, form, rng):
    task_loss = Classifier(build_network(create_backbone(backbone), (1, 28, 28), 5, 0).double(), form=form)
    assert task_loss.stages
    assert apart("maml", task_loss, image_tasks(rng, n_tasks=2, k_query=1), steps=4) < 1e-12


@pytest.mark.parametrize("way", WAYS)
def test_quadratic_tasks_have_the_gradient_that_is_known_on_paper(way, rng):
    w0 = torch.randn(3, generator=rng, dtype=torch.float64)
    s, q = torch.randn(2, 4, 3, generator=rng, dtype=torch.float64)
    wk = s + 0.9**5 * (w0 - s)
    maml = create_algorithm("maml", inner_lr=0.1, inner_steps=5, unroll=way)
    got = maml.meta_grad(quadratic_loss, {"w": w0}, quadratic_tasks(s, q))
    torch.testing.assert_close(got.grads["w"], (0.9**5 * (wk - q)).mean(dim=0))


def peak(task_loss, tasks, steps, unroll, rule):
    """Most bytes of tensors at once."""
    algorithm = create_algorithm("maml", inner_steps=steps, unroll=unroll, inner_optimizer=rule)
    algorithm.meta_grad(task_loss, task_loss.weights, tasks)  # has asked what it asks once
    with LiveTensors() as live:
        algorithm.meta_grad(task_loss, task_loss.weights, tasks)
    return live.peak


@pytest.mark.parametrize(("rule", "mixed", "recompute"), [("sgd", 1, 1), ("momentum", 1, 2), ("adam", 4, 3)])
def test_memory_grows_by_the_weights_of_a_step_and_what_the_rule_keeps(rule, mixed, recompute, rng):
    """Momentum asks for no number of the step; for Adam the gradient is kept beside weights and moments."""
    task_loss, tasks = small_classifier(rng, size=28), image_tasks(rng, n_tasks=3, k_query=1)
    weights = 3 * sum(w.numel() * w.element_size() for w in task_loss.weights.values())
    grown = {
        way: peak(task_loss, tasks, 9, way, rule) - peak(task_loss, tasks, 4, way, rule) for way in ("higher", *WAYS)
    }
    kept = Recall()
    fast = {name: w.expand(3, *w.shape) for name, w in task_loss.weights.items()}
    kept.note(lambda: task_loss(fast, tasks.support))
    products = sum(slot.result.numel() * slot.result.element_size() for slot in kept._slots)
    assert 0 < products < weights / 2, "of the layers behind the first"
    assert grown["mixed"] <= 5 * (mixed * weights + products) + 1000
    assert grown["recompute"] <= 5 * (recompute * weights + products) + 1000
    assert grown["higher"] > 5 * 10 * weights, "there is nothing to be gained here"


@pytest.mark.parametrize("way", WAYS)
def test_costly_products_of_a_step_are_not_made_again_and_no_bit_changes(way, rng, monkeypatch):
    task_loss = Classifier(build_network(create_backbone("conv4", filters=8), (1, 28, 28), 5, seed=0))
    tasks = image_tasks(rng, n_tasks=3, k_query=1, dtype=torch.float32)
    algorithm, found, made = create_algorithm("maml", inner_lr=0.05, inner_steps=3, unroll=way), [], []
    algorithm.meta_grad(task_loss, task_loss.weights, tasks)  # which finds the way
    for worth in (10**9, 64):
        monkeypatch.setattr(Recall, "WORTH", worth)
        with Launches() as launches:
            found.append(algorithm.meta_grad(task_loss, task_loss.weights, tasks))
        made.append(sum(launches.names[f"aten::{product}"] for product in ("convolution", "mm", "bmm")))
    assert all(torch.equal(g, found[1].grads[name]) for name, g in found[0].grads.items())
    assert made[0] - made[1] == 3 * 3, "in three steps those of the convolutions behind the first"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("still", [1, 2, 3])
def test_layers_in_front_that_stand_still_run_once_and_are_recalled_at_every_step(still, way, rng, monkeypatch):
    """Frozen, so that only the first pass over the same images runs them; all layers but the last are alike."""
    tasks, found, recalled, again = image_tasks(rng, n_tasks=3, size=8, k_query=1), {}, [], Recall.again

    def looked_at(kept, run):
        result = again(kept, run)
        recalled.extend([kept._next == len(kept._slots) == 5] * bool(kept._slots))
        return result

    monkeypatch.setattr(Recall, "again", looked_at)
    for unroll_by in ("higher", way):
        layers = [nn.Flatten(), *(part for _ in range(4) for part in (nn.Linear(64, 64), nn.Tanh())), nn.Linear(64, 5)]
        torch.manual_seed(0)
        for layer in layers:
            getattr(layer, "reset_parameters", int)()
        network = nn.Sequential(*layers).double()
        for layer in [layer for layer in layers if isinstance(layer, nn.Linear)][:still]:
            layer.requires_grad_(False)
        task_loss = Classifier(network)
        algorithm = create_algorithm("maml", inner_lr=0.05, inner_steps=3, unroll=unroll_by)
        found[unroll_by] = algorithm.meta_grad(task_loss, task_loss.weights, tasks).grads
    assert relative_error(found[way], found["higher"]) < 1e-12
    assert recalled == [True] * 3


def test_a_pass_that_asks_for_other_products_runs_once_more_without(rng):
    def asking(*shapes):
        def run():
            runs.append(shapes)
            return [once(Recall.slot(64, torch.ones(shape)), make) for shape in shapes]

        return run

    def make():
        made.append(torch.ones(1))
        return made[-1]

    runs, made, kept = [], [], Recall()
    kept.note(asking(2, 3))
    assert (len(runs), len(made)) == (1, 2)
    kept.again(asking(2, 3))
    assert (len(runs), len(made)) == (2, 2)
    for other, new in (((2,), 1), ((2, 3, 4), 4), ((3, 2), 4), ((2, 4), 3)):
        runs.clear()
        made.clear()
        assert len(kept.again(asking(*other))) == len(other)
        assert (len(runs), len(made)) == (2, new), other
    assert Recall.slot(64, torch.ones(2)) is None


class Own(nn.Module):
    """A network that the harness runs by its own forward."""

    def __init__(self, last):
        super().__init__()
        self.one, self.two, self.last = nn.Linear(64, 7), nn.Linear(7, 5), last

    def forward(self, x):
        return self.last(self.two(self.one(x.flatten(1)).sin()))


class Cubed(torch.autograd.Function):
    """With a second derivative, and without a forward-mode rule."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        return 3 * ctx.saved_tensors[0] ** 2 * grad


class Wrong(Cubed):
    """One that is wrong."""

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx, tangent):
        return 2 * ctx.saved_tensors[0] ** 2 * tangent


@pytest.mark.parametrize(
    ("last", "line"),
    [
        (torch.tanh, ""),
        (Cubed.apply, "because forward mode cannot follow the network: "),
        (Wrong.apply, "because forward mode gives another second derivative"),
    ],
)
def test_a_network_that_forward_mode_cannot_follow_goes_the_slow_way_and_says_so_once(last, line, rng, caplog):
    task_loss, tasks = Classifier(Own(last).double()), image_tasks(rng, n_tasks=2, size=8)
    assert task_loss.stages is None
    with caplog.at_level(logging.WARNING, logger="bench"):
        assert apart("maml", task_loss, tasks) < 1e-12
        create_algorithm("maml", unroll="mixed").meta_grad(task_loss, task_loss.weights, tasks)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == bool(line)
    assert all(line in text and "\n" not in text for text in said)


@dataclasses.dataclass(frozen=True)
class OffTheSupport(MAML):
    """Its steps follow another gradient than that of the loss it is given."""

    def inner_step(self, loss, fast, carry, step):
        return {name: w - 0.1 * w.sin() for name, w in fast.items()}, carry


@dataclasses.dataclass(frozen=True)
class ByItsValue(MAML):
    """Its steps depend on the value of the loss."""

    def inner_step(self, loss, fast, carry, step):
        moved, carry = super().inner_step(loss, fast, carry, step)
        return {name: w * (1 + loss.view(-1, *[1] * (w.dim() - 1))) for name, w in moved.items()}, carry


@dataclasses.dataclass(frozen=True)
class OfThrice(MAML):
    """Its steps follow three times the gradient."""

    def inner_step(self, loss, fast, carry, step):
        return super().inner_step(3 * loss, fast, carry, step)


@dataclasses.dataclass(frozen=True)
class InOtherBatches(MAML):
    """Its steps are on one example each."""

    def adaptation(self, task_loss, slow, support, steps, carry=None):
        return self.descent(task_loss, slow, support.minibatches(1, steps), support.n_tasks, carry)


@dataclasses.dataclass(frozen=True)
class OfTwoLosses(MAML):
    """Its steps are on the loss of the loss's examples and of something else."""

    def descent(self, task_loss, slow, batches, n_tasks, carry):
        return super().descent(
            lambda fast, e: task_loss(fast, e) + task_loss(fast, e) ** 2, slow, batches, n_tasks, carry
        )


RIGHT = (
    [(OffTheSupport, way) for way in WAYS]
    + [(InOtherBatches, way) for way in WAYS]
    + [(ByItsValue, "recompute"), (OfThrice, "recompute")]
)


@pytest.mark.parametrize(("cls", "way"), RIGHT)
def test_an_algorithm_of_ones_own_gets_the_right_gradient(cls, way, rng):
    task_loss, tasks = small_classifier(rng), image_tasks(rng, n_tasks=2, size=8)
    got, expected = (
        cls(inner_steps=2, unroll=unroll).meta_grad(task_loss, task_loss.weights, tasks).grads
        for unroll in (way, "higher")
    )
    assert relative_error(got, expected) < 1e-12


@pytest.mark.parametrize(
    ("cls", "way"), [(ByItsValue, "mixed"), (OfThrice, "mixed"), *((OfTwoLosses, way) for way in WAYS)]
)
def test_or_is_refused_in_one_line(cls, way, rng):
    task_loss, tasks = small_classifier(rng), image_tasks(rng, n_tasks=2, size=8)
    with pytest.raises(
        BenchError, match=r"^[^\n]*(comes to other weights|losses in 2 inner steps)[^\n]*unroll higher$"
    ):
        cls(inner_steps=2, unroll=way).meta_grad(task_loss, task_loss.weights, tasks)


class Quartic:
    """L = sum of w**4 / 12, which has the Hessian diag(w**2)."""

    def outputs(self, fast, x):
        return fast["w"] ** 2

    def of_outputs(self, outputs, y):
        return (outputs**2 / 12).sum(1)

    def __call__(self, fast, examples):
        return self.of_outputs(self.outputs(fast, examples.x), examples.y)


@pytest.mark.parametrize("product", [hessian_by_forward, hessian_by_reverse])
def test_products_with_the_hessian_are_of_each_task_alone(product, rng):
    w, along = torch.randn(2, 3, 4, generator=rng, dtype=torch.float64)
    got = product(Quartic(), {"w": w, "rate/w": w}, image_tasks(rng, n_tasks=3, size=8).support, {"w": along}, Recall())
    assert set(got) == {"w"}
    torch.testing.assert_close(got["w"], w**2 * along)


def test_the_setting_is_offered_where_it_pays_and_an_unknown_one_is_refused():
    """The steps of ANIL's head keep next to nothing, and other ways would run the body at every step."""
    assert "unroll" not in hyperparameter_names(ANIL)
    with pytest.raises(BenchError, match=r"unknown unroll 'mixt'\. Did you mean 'mixed'"):
        create_algorithm("maml", unroll="mixt")
