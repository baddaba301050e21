"""The algorithms beside Reptile and MAML, each against its rule written out task by task, or against a closed form."""

import dataclasses
import functools
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from helpers import image_tasks, quadratic_loss, quadratic_tasks, relative_error, small_classifier
from per_task import adapted_by, gradients, loss_of, mean_gradient, outputs_of
from torch import nn

from bench.api import BenchError, TaskBatch
from bench.network.build import build_network, extra_weights
from bench.network.model import Classifier
from bench.registry import create_algorithm, create_backbone
from bench.training.memory import peak_of_tensors

LR, STEPS = 0.05, 3
HEAD, BODY = (
    ["7.weight", "7.bias"],
    ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias", "4.weight", "4.bias"],
)
NORMS = ["1.weight", "1.bias", "4.weight", "4.bias"]


def sgd(w, g, state, i, name, slow):
    return w - LR * g


def trial(name, rng, n_tasks=3, k_shot=1, n_classes=40, **hyper):
    """An algorithm, a small network, its slow weights with the algorithm's own moved about, and tasks."""
    algorithm = create_algorithm(name, **hyper)
    task_loss = small_classifier(rng, n_way=algorithm.output_size(5))
    extra = extra_weights(name, algorithm, task_loss.weights, n_classes)
    moved = {n: w + 0.1 * w.abs().max() * torch.rand(w.shape, generator=rng, dtype=w.dtype) for n, w in extra.items()}
    return algorithm, task_loss, {**task_loss.weights, **moved}, image_tasks(rng, n_tasks, k_shot=k_shot, size=8)


@pytest.mark.parametrize(("name", "adapting"), [("anil", HEAD), ("boil", BODY)])
def test_anil_and_boil_differentiate_through_the_steps_of_their_own_layers(name, adapting, rng):
    algorithm, task_loss, slow, tasks = trial(name, rng, inner_lr=LR, inner_steps=STEPS)
    expected = mean_gradient(adapted_by(sgd, task_loss.network, adapting, STEPS), slow, tasks)
    assert relative_error(algorithm.meta_grad(task_loss, slow, tasks).grads, expected) < 1e-11
    fast = algorithm.adapt(task_loss, slow, tasks.support)
    assert {n for n in slow if not torch.equal(fast[n], slow[n].expand_as(fast[n]))} <= set(adapting)


def test_boil_on_a_single_layer_is_refused():
    with pytest.raises(BenchError, match="all layers but the last, and this network has one"):
        create_algorithm("boil").adapted({"1.weight": torch.zeros(5, 4), "1.bias": torch.zeros(5)})


def test_anil_on_conv4_is_maml_of_which_only_the_head_has_moved(rng):
    network = build_network(create_backbone("conv4"), (1, 28, 28), 5, seed=0).double()
    task_loss, tasks = Classifier(network), image_tasks(rng, n_tasks=2)
    got = create_algorithm("anil", inner_lr=LR, inner_steps=2).meta_grad(task_loss, task_loss.weights, tasks)
    expected = mean_gradient(adapted_by(sgd, network, ["13.weight", "13.bias"], 2), task_loss.weights, tasks)
    assert relative_error(got.grads, expected) < 1e-11


def counted(task_loss, place=0):
    """Count the runs of a stage from now on."""
    stage, runs = task_loss.stages[place], []
    task_loss.stages[place] = dataclasses.replace(stage, run=lambda *given: runs.append(place) or stage.run(*given))
    return runs


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("anil", 2),  # once on the support set, once on the query set
        ("cavia", 2),  # the first convolution, in front of the first shift
        ("maml", 6),
    ],
)
def test_layers_in_front_of_the_first_that_adapts_run_once(name, runs, rng):
    algorithm, task_loss, slow, tasks = trial(name, rng, inner_lr=LR, inner_steps=5)
    first = counted(task_loss)
    algorithm.meta_grad(task_loss, slow, tasks)
    assert len(first) == runs


def test_weights_that_are_tied_to_one_that_adapts_are_run_again(rng):
    """The second layer is the first, so that a step of the first moves both."""
    tied = nn.Linear(8, 8)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), tied, nn.Tanh(), tied).double()
    task_loss = Classifier(network)
    fast = {n: w.expand(2, *w.shape).clone() for n, w in task_loss.weights.items()}
    tasks = image_tasks(rng, n_tasks=2, size=8)
    loss_of = task_loss.moving(tasks.support, ["3.weight"])
    loss_of(fast)
    moved = {**fast, "3.weight": fast["3.weight"] + 0.1}
    assert torch.equal(loss_of(moved), task_loss(moved, tasks.support))


@pytest.mark.parametrize("steps", [1, 3])
def test_a_rule_that_moves_more_than_it_named_is_followed(steps, rng):
    """``adapted`` says the head, and the rule moves the first layer as well."""

    class More(type(create_algorithm("anil"))):
        def inner_step(self, loss, fast, carry, step):
            moved, carry = super().inner_step(loss, fast, carry, step)
            return {**moved, "0.bias": fast["0.bias"] + 1, "1.bias": fast["1.bias"] + 1}, carry

    task_loss, tasks = small_classifier(rng), image_tasks(rng, n_tasks=2, size=8)
    *_, end = More(inner_lr=LR).adaptation(task_loss, task_loss.weights, tasks.support, steps)
    fast = {n: w.expand(2, *w.shape).clone().requires_grad_() for n, w in task_loss.weights.items()}
    for _ in range(steps):
        grads = torch.autograd.grad(task_loss(fast, tasks.support).sum(), [fast[n] for n in HEAD])
        fast = fast | {n: fast[n] - LR * g for n, g in zip(HEAD, grads)}
        fast = fast | {n: fast[n] + 1 for n in ("0.bias", "1.bias")}
    assert relative_error(end.fast, fast) < 1e-12


def test_a_rule_may_differentiate_by_weights_that_it_does_not_move(rng):
    """It clips the head's gradient by the norm of all gradients: the layers in front pass a gradient in every step."""

    class WholeNorm(type(create_algorithm("anil"))):
        def inner_step(self, loss, fast, carry, step):
            grads = gradients(loss.sum(), fast, list(fast), create_graph=False)
            norm = sum(g.flatten(1).square().sum(dim=1) for g in grads.values()).sqrt()
            return {n: fast[n] - LR * grads[n] / norm.view(-1, *[1] * (grads[n].dim() - 1)) for n in HEAD}, carry

    task_loss, tasks = small_classifier(rng), image_tasks(rng, n_tasks=2, size=8)
    *_, end = WholeNorm(inner_lr=LR).adaptation(task_loss, task_loss.weights, tasks.support, 3)
    fast = {n: w.expand(2, *w.shape).clone().requires_grad_() for n, w in task_loss.weights.items()}
    for _ in range(3):
        grads = gradients(task_loss(fast, tasks.support).sum(), fast, list(fast), create_graph=False)
        norm = torch.stack([g.flatten(1).square().sum(dim=1) for g in grads.values()]).sum(dim=0).sqrt()
        fast |= {n: fast[n] - LR * torch.einsum("t...,t->t...", grads[n], 1 / norm) for n in HEAD}
    assert relative_error(end.fast, fast) < 1e-12


@pytest.mark.parametrize("steps", [1, 3])
def test_nothing_of_the_layers_in_front_is_kept_after_adaptation(steps, rng):
    """A hook on a tensor that holds the tensor is a circle that Python's collector does not see."""
    task_loss, tasks = small_classifier(rng), image_tasks(rng, n_tasks=2, size=8)
    stage, made = task_loss.stages[-2], []  # what the head gets

    def run(*given):
        y = stage.run(*given)
        made.append(weakref.ref(y))
        return y

    task_loss.stages[-2] = dataclasses.replace(stage, run=run)
    algorithm = create_algorithm("anil", inner_lr=LR, inner_steps=steps)
    algorithm.adapt(task_loss, task_loss.weights, tasks.support)
    algorithm.meta_grad(task_loss, task_loss.weights, tasks)
    gc.collect()
    assert made
    assert [y() for y in made if y() is not None] == []


def test_a_loss_of_a_plugins_own_around_the_harness_s_will_do(rng):
    task_loss, tasks = small_classifier(rng), image_tasks(rng, n_tasks=2, size=8)
    algorithm = create_algorithm("anil", inner_lr=LR, inner_steps=2)
    got = algorithm.adapt(lambda fast, examples: 2 * task_loss(fast, examples), task_loss.weights, tasks.support)
    twice = create_algorithm("anil", inner_lr=2 * LR, inner_steps=2).adapt(task_loss, task_loss.weights, tasks.support)
    assert relative_error(got, twice) < 1e-12


def test_meta_sgd_learns_the_rate_of_every_weight(rng):
    algorithm, task_loss, slow, tasks = trial("meta-sgd", rng, inner_lr=LR, inner_steps=2)

    def step(w, g, state, i, name, leaves):
        return w - leaves[f"rate/{name}"] * g

    own = [name for name in slow if "/" not in name]

    def loss_of_task(leaves, support, query, t):
        return adapted_by(functools.partial(with_slow, step, leaves), task_loss.network, own, 2)(
            leaves, support, query, t
        )

    expected = mean_gradient(loss_of_task, slow, tasks)
    assert relative_error(algorithm.meta_grad(task_loss, slow, tasks).grads, expected) < 1e-11


def with_slow(step, leaves, w, g, state, i, name, slow):
    return step(w, g, state, i, name, leaves)


@pytest.mark.parametrize(
    ("done", "weights"),
    [
        (0.0, (1 / 3, 1 / 3, 1 / 3)),
        (0.05, (1 / 6, 1 / 6, 2 / 3)),  # half of the annealing is over
        (0.099, (0.01, 0.01, 0.98)),  # three hundredths of a third stay
        (0.1, (0, 0, 1)),
        (0.9, (0, 0, 1)),
    ],
)
def test_maml_plus_plus_weights_the_losses_of_several_steps_as_far_as_the_run_is(done, weights, rng):
    """Rates per parameter and step, normalisation per number of steps taken, losses weighted by hand."""
    algorithm, task_loss, slow, tasks = trial("maml++", rng, inner_lr=LR, inner_steps=STEPS)
    network = task_loss.network
    inner = [name for name in slow if "/" not in name and name not in NORMS]

    def loss_of_task(leaves, support, query, t):
        fast, loss = dict(leaves), 0
        for i in range(STEPS):
            fast |= {n: leaves[f"step/{n}"][i] for n in NORMS}
            grads = gradients(loss_of(network, fast, support), fast, inner)
            fast |= {n: fast[n] - leaves[f"rate/{n}"][i] * grads[n] for n in inner}
            fast |= {n: leaves[f"step/{n}"][i + 1] for n in NORMS}
            loss = loss + weights[i] * loss_of(network, fast, query)
        return loss

    tasks = TaskBatch(tasks.support, tasks.query, {}, torch.tensor(done, dtype=torch.float64), algorithm.phase(done))
    got = algorithm.meta_grad(task_loss, slow, tasks)
    assert relative_error(got.grads, mean_gradient(loss_of_task, slow, tasks)) < 1e-10


def test_maml_plus_plus_begins_without_second_derivatives_where_asked(rng):
    algorithm, task_loss, slow, tasks = trial("maml++", rng, inner_lr=LR, inner_steps=1, first_order=0.5)
    network, inner = task_loss.network, [*HEAD, *(n for n in BODY if n not in NORMS)]

    def loss_of_task(leaves, support, query, t, constant):
        fast = {**leaves, **{n: leaves[f"step/{n}"][0] for n in NORMS}}
        grads = gradients(loss_of(network, fast, support), fast, inner)
        grads = {n: g.detach() for n, g in grads.items()} if constant else grads
        fast |= {n: fast[n] - leaves[f"rate/{n}"][0] * grads[n] for n in inner}
        return loss_of(network, {**fast, **{n: leaves[f"step/{n}"][1] for n in NORMS}}, query)

    for done, constant in ((0.3, True), (0.6, False)):
        now = TaskBatch(tasks.support, tasks.query, {}, torch.tensor(done), algorithm.phase(done))
        expected = mean_gradient(functools.partial(loss_of_task, constant=constant), slow, tasks)
        assert relative_error(algorithm.meta_grad(task_loss, slow, now).grads, expected) < 1e-10
    assert algorithm.phase(0.05) != algorithm.phase(0.3) != algorithm.phase(0.6)


def test_cavia_moves_a_context_and_nothing_else(rng):
    algorithm, task_loss, slow, tasks = trial("cavia", rng, inner_lr=0.7, inner_steps=STEPS, context=6)
    network = task_loss.network

    def with_context(leaves, context):
        return {**leaves, **{n: leaves[n] + leaves[f"map/{n}"] @ context for n in NORMS}}

    def loss_of_task(leaves, support, query, t):
        context = torch.zeros(6, dtype=torch.float64, requires_grad=True)
        for _ in range(STEPS):
            loss = loss_of(network, with_context(leaves, context), support)
            context = context - 0.7 * torch.autograd.grad(loss, context, create_graph=True)[0]
        return loss_of(network, with_context(leaves, context), query)

    got = algorithm.meta_grad(task_loss, slow, tasks)
    assert relative_error(got.grads, mean_gradient(loss_of_task, slow, tasks)) < 1e-11
    fast = algorithm.adapt(task_loss, slow, tasks.support)
    assert {n for n in slow if not torch.equal(fast[n], slow[n].expand_as(fast[n]))} == set(NORMS)


def test_cavia_without_normalisation_shifts_the_first_bias():
    network = dict(build_network(create_backbone("sine-mlp"), (1,), 1, seed=0).named_parameters())
    assert list(create_algorithm("cavia", context=5).extra_weights(network)) == ["map/1.bias"]
    with pytest.raises(BenchError, match="neither"):
        create_algorithm("cavia").extra_weights({"w": torch.zeros(2, 2)})


@pytest.mark.parametrize("steps", [1, 4])
def test_imaml_on_quadratic_tasks_has_its_closed_form(steps, rng):
    """L = |w - c|^2 / 2, so H = I: w_k contracts to (c + lambda w_0) / (1 + lambda), x = v lambda / (1 + lambda)."""
    w0 = torch.randn(3, generator=rng, dtype=torch.float64)
    s, q = torch.randn(2, 4, 3, generator=rng, dtype=torch.float64)
    end = (s + 2 * w0) / 3
    wk = end + (1 - 0.1 * 3) ** steps * (w0 - end)
    algorithm = create_algorithm("imaml", inner_lr=0.1, inner_steps=steps, proximity=2.0, cg_steps=1)
    got = algorithm.meta_grad(quadratic_loss, {"w": w0}, quadratic_tasks(s, q)).grads["w"]
    torch.testing.assert_close(got, ((wk - q) * 2 / 3).mean(dim=0))


def test_the_implicit_gradient_of_imaml_knows_the_inner_decay(rng):
    """With decay d it ends where w - c + lambda (w - w_0) + d w = 0, so that dw/dw_0 = lambda / (1 + lambda + d)."""
    w0 = torch.randn(3, generator=rng, dtype=torch.float64)
    s, q = torch.randn(2, 4, 3, generator=rng, dtype=torch.float64)
    algorithm = create_algorithm("imaml", inner_lr=0.1, inner_steps=200, proximity=2.0, cg_steps=1, inner_decay=0.5)
    got = algorithm.meta_grad(quadratic_loss, {"w": w0}, quadratic_tasks(s, q)).grads["w"]
    end = (s + 2 * w0) / 3.5
    torch.testing.assert_close(got, ((end - q) * 2 / 3.5).mean(dim=0))


def test_imaml_solves_what_a_direct_solver_solves(rng):
    """The Hessian in full, solved by LAPACK, on a network with weights that the inner loop leaves alone."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5)).double()
    task_loss, tasks = Classifier(network), image_tasks(rng, 2, size=8)
    slow = {n: torch.randn(w.shape, generator=rng, dtype=w.dtype) for n, w in task_loss.weights.items()}
    algorithm = create_algorithm("imaml", inner_lr=0.2, inner_steps=3, proximity=0.5, cg_steps=40)
    got = algorithm.meta_grad(task_loss, slow, tasks).grads
    fast, found = algorithm.adapt(task_loss, slow, tasks.support), []
    for t in range(2):
        at = torch.cat([fast[n][t].flatten() for n in slow]).detach()

        def loss(flat, examples, t=t):
            w = flat[:320].view(5, 64)
            return F.cross_entropy(examples.x[t].flatten(1) @ w.T + flat[320:], examples.y[t])

        hessian = torch.autograd.functional.hessian(functools.partial(loss, examples=tasks.support), at)
        (slope,) = torch.autograd.functional.jacobian(functools.partial(loss, examples=tasks.query), (at,))
        found.append(torch.linalg.solve(torch.eye(325, dtype=at.dtype) + hessian / 0.5, slope))
    expected = torch.stack(found).mean(dim=0)
    torch.testing.assert_close(torch.cat([got[n].flatten() for n in slow]), expected, rtol=1e-6, atol=1e-9)


def test_the_memory_of_imaml_does_not_grow_with_its_inner_steps(rng):
    def peak(name, steps):
        algorithm, task_loss, slow, tasks = trial(name, torch.Generator().manual_seed(0), inner_steps=steps)
        return peak_of_tensors(lambda: algorithm.meta_grad(task_loss, slow, tasks), torch.device("cpu"))

    assert peak("imaml", 20) == peak("imaml", 5)
    assert peak("maml", 20) > 2 * peak("maml", 5)


def both_sets(network, slow, support, query):
    """Outputs of support and query as one batch, which normalisation sees together."""
    outputs = outputs_of(network, slow, torch.cat([support[0], query[0]]))
    return outputs[: len(support[0])], outputs[len(support[0]) :]


@pytest.mark.parametrize("k_shot", [1, 3])
def test_prototypes_are_class_means_and_scores_their_distances(k_shot, rng):
    algorithm, task_loss, slow, tasks = trial("protonet", rng, k_shot=k_shot, embedding=6)

    def loss_of_task(leaves, support, query, t):
        known, asked = both_sets(task_loss.network, leaves, support, query)
        prototypes = torch.stack([known[support[1] == c].mean(dim=0) for c in range(5)])
        return F.cross_entropy(-torch.cdist(asked, prototypes).square(), query[1])

    expected = mean_gradient(loss_of_task, slow, tasks)
    assert relative_error(algorithm.meta_grad(task_loss, slow, tasks).grads, expected) < 1e-10


@pytest.mark.parametrize("k_shot", [1, 3])
def test_r2d2_is_the_ridge_regression_of_the_normal_equations(k_shot, rng):
    """(X'X + lambda I)^-1 X'Y, of another size than the system that is solved; the same by Woodbury."""
    algorithm, task_loss, slow, tasks = trial("r2d2", rng, k_shot=k_shot, embedding=7)

    def loss_of_task(leaves, support, query, t):
        known, asked = both_sets(task_loss.network, leaves, support, query)
        system = known.T @ known + leaves["ridge/log_lambda"].exp() * torch.eye(7, dtype=known.dtype)
        weights = torch.linalg.solve(system, known.T @ F.one_hot(support[1], 5).to(known.dtype))
        return F.cross_entropy(leaves["ridge/log_scale"].exp() * asked @ weights + leaves["ridge/shift"], query[1])

    expected = mean_gradient(loss_of_task, slow, tasks)
    got = algorithm.meta_grad(task_loss, slow, tasks).grads
    assert relative_error(got, expected) < 1e-10
    assert got["ridge/log_lambda"].count_nonzero() == got["ridge/log_scale"].count_nonzero() == 1


def test_finetune_trains_a_classifier_of_all_training_classes(rng):
    algorithm, task_loss, slow, tasks = trial("finetune", rng, n_classes=40, embedding=6)
    assert slow["classifier/weight"].shape == (40, 6)

    def loss_of_task(leaves, support, query, t):
        x, y = torch.cat([support[0], query[0]]), torch.cat([support[1], query[1]])
        logits = F.linear(
            outputs_of(task_loss.network, leaves, x), leaves["classifier/weight"], leaves["classifier/bias"]
        )
        return F.cross_entropy(logits, tasks.support.classes[t][y])

    expected = mean_gradient(loss_of_task, slow, tasks)
    assert relative_error(algorithm.meta_grad(task_loss, slow, tasks).grads, expected) < 1e-11


def test_finetune_gives_every_task_a_head_that_torch_would_train_alike(rng):
    algorithm, task_loss, slow, tasks = trial("finetune", rng, k_shot=2, embedding=6, inner_lr=0.3)
    *_, predictor = algorithm.predictors(task_loss, slow, tasks.support, 7, {})
    for t in range(3):
        layer = torch.nn.Linear(6, 5).double()
        torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.3)
        known = outputs_of(task_loss.network, slow, tasks.support.x[t])
        for _ in range(7):
            optimizer.zero_grad()
            F.cross_entropy(layer(known.detach()), tasks.support.y[t]).backward()
            optimizer.step()
        expected = layer(outputs_of(task_loss.network, slow, tasks.query.x[t]))
        torch.testing.assert_close(predictor(tasks.query.x)[t], expected)


@pytest.mark.parametrize("name", ["finetune", "protonet"])
def test_what_needs_classes_says_so_where_there_are_none(name):
    with pytest.raises(BenchError, match=f"{name}.*this data set has none"):
        extra_weights(name, create_algorithm(name), {"w": torch.zeros(2)}, 0)


def test_scratch_learns_nothing_in_training_and_adapts_at_test(rng):
    algorithm, task_loss, slow, tasks = trial("scratch", rng, inner_lr=LR)
    result = algorithm.meta_grad(task_loss, slow, tasks)
    assert not any(g.any() for g in result.grads.values())
    expected = torch.stack([loss_of(task_loss.network, slow, (tasks.query.x[t], tasks.query.y[t])) for t in range(3)])
    torch.testing.assert_close(result.query_loss, expected.detach())
    fast = algorithm.adapt(task_loss, slow, tasks.support)
    assert (
        task_loss(fast, tasks.support) < task_loss({n: w.expand(3, *w.shape) for n, w in slow.items()}, tasks.support)
    ).all()
