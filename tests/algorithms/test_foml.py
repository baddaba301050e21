"""First-order MAML over minibatches: against a per-task loop, what its last minibatch holds, and the paper's theory."""

import copy
import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import image_tasks, relative_error

from algorithms.maml import MAML
from bench.api import Examples, TaskBatch
from bench.network.build import build_network
from bench.network.model import Classifier
from bench.registry import BACKBONES, BenchError, create_algorithm
from bench.tasks.drawing import ImagePool
from bench.tasks.stream import Episode, TaskStream, TaskWindow


@pytest.fixture(scope="module")
def conv4():
    return Classifier(build_network(BACKBONES.get("conv4")(), (1, 28, 28), 5, seed=0).double())


def official_batches(samples, orders, size, steps, replacement):
    """Indices as supervised-reptile's _mini_batches yields them, its shuffles (a row each) taken from ``orders``."""
    shuffles, batch, found = iter(orders), [], []
    if replacement:
        return [[samples[i] for i in next(shuffles)[:size]] for _ in range(steps)]
    while len(found) < steps:
        for i in next(shuffles):
            batch.append(samples[i])
            if len(batch) == size:
                found.append(batch)
                batch = []
    return found[:steps]


def official_step(network, x, y, batches, lr):
    """The change that the last of ``batches`` makes to a copy of the network, with torch's own SGD."""
    fast = copy.deepcopy(network)
    optimizer = torch.optim.SGD(fast.parameters(), lr=lr)
    for batch in batches:
        before = [p.detach().clone() for p in fast.parameters()]
        optimizer.zero_grad()
        F.cross_entropy(fast(x[batch]), y[batch]).backward()
        optimizer.step()
    names = [name for name, _ in fast.named_parameters()]
    return {n: b - p.detach() for n, b, p in zip(names, before, fast.parameters())}


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("tail", ["separate", "shared"])
@pytest.mark.parametrize("replacement", [False, True])
def test_foml_equals_a_per_task_loop_on_conv4(steps, tail, replacement, conv4, rng):
    """Batches of 6 out of 20 images, or of the 10 that a separate tail leaves, which two batches are more than."""
    tasks = image_tasks(rng, n_tasks=3, k_shot=2, k_query=2)
    foml = create_algorithm("foml", inner_lr=0.1, inner_steps=steps, inner_batch=6, tail=tail, replacement=replacement)
    got = foml.meta_grad(conv4, conv4.weights, tasks)
    x, y = torch.cat([tasks.support.x, tasks.query.x], 1), torch.cat([tasks.support.y, tasks.query.y], 1)
    earlier, n = (steps - 1, 10) if tail == "separate" else (steps, 20)
    orders = tasks.support.orders(8, n)
    per_task = []
    for t in range(3):
        batches = official_batches(range(n), orders[t].tolist(), 6, earlier, replacement)
        batches += [list(range(10, 20))] if tail == "separate" else []
        per_task.append(official_step(conv4.network, x[t], y[t], batches, 0.1))
    expected = {n: torch.stack([g[n] for g in per_task]).mean(dim=0) for n in got.grads}
    assert relative_error(got.grads, expected) < 1e-12
    assert got.query_loss.shape == (3,)


def test_foml_on_a_whole_separate_tail_is_fomaml_times_the_inner_rate(conv4, rng):
    """K - 1 steps on the whole support set, then one on the query set: FOMAML's gradient with one step fewer."""
    tasks = image_tasks(rng, n_tasks=2)
    foml = create_algorithm("foml", inner_lr=0.1, inner_steps=4, inner_batch=None)
    fomaml = create_algorithm("fomaml", inner_lr=0.1, inner_steps=3)
    got, expected = (a.meta_grad(conv4, conv4.weights, tasks) for a in (foml, fomaml))
    assert relative_error(got.grads, {n: 0.1 * g for n, g in expected.grads.items()}) < 1e-12
    torch.testing.assert_close(got.query_loss, expected.query_loss)


def held(n_tasks, n_support, n_query, orders):
    """Tasks whose images are their own numbers, so that a minibatch says what it holds."""

    def part(start, n):
        x = torch.arange(start, start + n, dtype=torch.float64).expand(n_tasks, n)[..., None]
        return Examples(x, torch.zeros(n_tasks, n, dtype=torch.long), orders)

    return TaskBatch(part(0, n_support), part(n_support, n_query))


def numbers(batches):
    return [batch.x[..., 0].long() for batch in batches]


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("size", [3, 10, None])
def test_a_separate_tail_never_overlaps_and_a_shared_one_does_once_images_repeat(size, replacement, toy_images):
    stream = TaskStream(ImagePool(toy_images, "meta_train", "pooled", torch.device("cpu")), Episode(5, 2, 2), 0)
    tasks = held(64, 10, 10, stream.batch(0, 64).support.orders)

    def foml(tail):
        chosen = create_algorithm("foml", inner_steps=9, inner_batch=size, tail=tail, replacement=replacement)
        *earlier, last = numbers(chosen.batches(tasks))
        return torch.cat(earlier, dim=1), last

    earlier, last = foml("separate")
    assert earlier.max() < 10 <= last.min()
    assert last.sort(dim=1).values.tolist() == [list(range(10, 20))] * 64
    earlier, last = foml("shared")
    seen = (earlier[:, None] == last[..., None]).any(dim=2)  # [T, size]
    assert seen.any()


def test_draws_with_replacement_are_uniform_and_independent_from_step_to_step(toy_images):
    """Every image equally often in a batch of 4 of 10, none twice, and in the next batch whether or not in this one."""
    stream = TaskStream(ImagePool(toy_images, "meta_train", "pooled", torch.device("cpu")), Episode(5, 1, 1), 0)
    tasks = held(4000, 10, 0, stream.batch(0, 4000).support.orders)
    batches = torch.stack(numbers(tasks.support.minibatches(4, 5, replacement=True)), dim=1)  # [T, 5, 4]
    inside = (batches[..., None] == torch.arange(10)).sum(dim=2)  # [T, 5, 10]
    assert inside.max() == 1
    share = inside.double().mean(dim=0)
    assert (share - 0.4).abs().max() < 4.5 * (0.24 / 4000) ** 0.5
    both = (inside[:, :-1] * inside[:, 1:]).double().mean(dim=0)  # in a batch and in the next
    assert (both - 0.16).abs().max() < 4.5 * (0.16 * 0.84 / 4000) ** 0.5


def test_draws_with_replacement_are_the_tasks_own_in_batches_and_windows_of_any_size(toy_images):
    stream = TaskStream(ImagePool(toy_images, "meta_train", "pooled", torch.device("cpu")), Episode(5, 1, 3), 0)
    whole = stream.batch(0, 12)

    def drawn(batch):
        return torch.stack([b.x for b in batch.together().minibatches(7, 4, replacement=True)])

    for start, count in ((0, 1), (3, 5), (11, 1)):
        assert torch.equal(drawn(stream.batch(start, count)), drawn(whole)[:, start : start + count])
    window = TaskWindow(stream, 16)
    window.hold(2, 16)
    assert torch.equal(drawn(window.batch(torch.arange(3, 12))), drawn(whole)[:, 3:])
    orders = stream.orders(torch.arange(12), 4, 20)[..., :7]
    x = whole.together().x
    for t, step in itertools.product(range(12), range(4)):
        assert torch.equal(drawn(whole)[step, t], x[t, orders[t, step]])


def test_no_steps_are_no_minibatches(toy_images):
    stream = TaskStream(ImagePool(toy_images, "meta_train", "pooled", torch.device("cpu")), Episode(5, 1, 3), 0)
    assert list(stream.batch(0, 2).support.minibatches(2, 0)) == []


def test_an_unknown_tail_is_refused_in_one_line():
    with pytest.raises(BenchError, match="tail 'half'; accepted: separate, shared"):
        create_algorithm("foml", tail="half")


# The theory of Nichol et al. 2018, section 5: k distinct minibatches in random order.


@dataclass(frozen=True)
class MAMLOnMinibatches(MAML):
    """MAML that takes a new minibatch at every inner step."""

    inner_batch: int | None = 1


def every_order(k):
    """K! tasks, one for every order of k examples, the last of which is the query."""
    orders = torch.tensor(list(itertools.permutations(range(k))))

    def part(which):
        x = which.to(torch.float64)[..., None]
        return Examples(
            x, torch.zeros(which.shape, dtype=torch.long), lambda passes, n: torch.arange(n).expand(1, 1, n)
        )

    return TaskBatch(part(orders[:, :-1]), part(orders[:, -1:]))


@pytest.mark.parametrize("k", [2, 3, 4])
def test_meta_gradients_expand_into_avggrad_and_avggradinner_as_the_paper_says(k):
    """E g(a) = c0 AvgGrad - c1 a AvgGradInner + O(a^2) on random quadratics.

    There E g is a polynomial in a of degree 2 (k - 1) at most, so that its values at seven rates give both terms.

    AvgGrad is the mean gradient and AvgGradInner the mean of H_j g_i over i != j. (c0, c1): MAML 1, 2(k-1); FOMAML 1,
    k-1; Reptile k, k(k-1)/2. So the weight of AvgGradInner beside AvgGrad falls from MAML to FOMAML to Reptile.
    """
    rng = np.random.default_rng(k)
    root = rng.normal(size=(k, 4, 4))
    hessian, optimum, w0 = root @ root.transpose(0, 2, 1), rng.normal(size=(k, 4)), rng.normal(size=4)
    a, c = torch.tensor(hessian), torch.tensor(optimum)

    def task_loss(fast, examples):
        which = examples.x[..., 0].long()  # [T, n]
        d = fast["w"][:, None] - c[which]
        return 0.5 * torch.einsum("tni,tnij,tnj->tn", d, a[which], d).mean(dim=1)

    def expected_gradient(algorithm, rate):
        got = algorithm(rate).meta_grad(task_loss, {"w": torch.tensor(w0)}, every_order(k))
        return got.grads["w"].numpy()

    gradients = np.einsum("kij,kj->ki", hessian, w0 - optimum)
    avg_grad = gradients.mean(axis=0)
    pairs = [hessian[j] @ gradients[i] for i in range(k) for j in range(k) if i != j]
    avg_grad_inner = np.mean(pairs, axis=0)
    minibatches = {"inner_steps": k, "inner_batch": 1}
    arms = {  # as gradients: what Reptile and FOML return holds the inner rate once
        "maml": (lambda lr: MAMLOnMinibatches(inner_lr=lr, inner_steps=k - 1), False, 1, 2 * (k - 1)),
        "foml": (lambda lr: create_algorithm("foml", inner_lr=lr, tail="shared", **minibatches), True, 1, k - 1),
        "reptile": (lambda lr: create_algorithm("reptile", inner_lr=lr, **minibatches), True, k, k * (k - 1) / 2),
    }
    h, nodes = 0.1 / np.linalg.norm(hessian, 2, axis=(1, 2)).max(), np.arange(1.0, 8.0)
    ratios = {}
    for name, (make, with_rate, c0, c1) in arms.items():
        gradients = [expected_gradient(make, h * x) / (h * x if with_rate else 1) for x in nodes]
        level, slope = np.linalg.solve(np.vander(nodes, increasing=True), gradients)[:2]
        np.testing.assert_allclose(level, c0 * avg_grad, atol=1e-7 * np.abs(avg_grad).max())
        measured = slope / h
        np.testing.assert_allclose(measured, -c1 * avg_grad_inner, atol=1e-6 * np.abs(avg_grad_inner).max())
        ratios[name] = -(measured @ avg_grad_inner) / (avg_grad_inner @ avg_grad_inner) / c0
    assert ratios["maml"] > ratios["foml"] > ratios["reptile"] > 0
