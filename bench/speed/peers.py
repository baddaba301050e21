"""The variants that ``bench.speed`` compares: what people run today, this project, and a supervised yardstick.

A variant is a function from a ``Problem`` to a ``Runner``; adding one is writing it and naming it in ``VARIANTS``. All
start from the same weights of the same registered network, with batch statistics in BatchNorm, and take the mean over
tasks. The tasks of all but the project's, which draws its own anew at every step, lie ready in memory.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import higher
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from bench.network.card.launches import Launches
from bench.network.kernels import available, choose
from bench.network.model import Classifier
from bench.registry import create_algorithm
from bench.settings.config import RunConfig
from bench.speed.work import BACKBONE, BETA2, EPS, Problem, hyperparameters
from bench.training.metastep import MetaStep
from bench.training.train import Training

YARDSTICK_BATCH = 100


class NotAvailable(Exception):
    """A variant cannot do this work here; the message says why in a few words."""


@dataclass(frozen=True)
class Runner:
    """A variant ready to run: ``step`` does a whole meta-iteration and changes ``weights`` in place."""

    step: Callable[[], object]
    weights: Mapping[str, Tensor]
    how: str = ""
    """What the variant chose at run time, for the table."""
    launches: int | None = None
    """Kernels that a meta-iteration starts on a card; known of the project alone."""


def plain_loop(problem: Problem) -> Runner:
    """One task after the other, through ``higher`` as its examples write it; Reptile with ``torch.optim.Adam``."""
    return (_reptile_loop if problem.work.inner_batch else _higher_loop)(problem)


def _higher_loop(problem: Problem) -> Runner:
    network, tasks = problem.network(), problem.tasks()
    weights = dict(network.named_parameters())
    meta_optimizer = problem.optimizer(weights)
    second_order, n_tasks = problem.second_order, problem.work.meta_batch
    support = problem.minibatches(tasks)

    def step() -> None:
        inner = torch.optim.SGD(network.parameters(), lr=problem.work.inner_lr)
        meta_optimizer.zero_grad()
        for t in range(n_tasks):
            with higher.innerloop_ctx(
                network, inner, copy_initial_weights=not second_order, track_higher_grads=second_order
            ) as (fast, optimizer):
                for batch in support:
                    optimizer.step(F.cross_entropy(fast(batch.x[t]), batch.y[t]))
                loss = F.cross_entropy(fast(tasks.query.x[t]), tasks.query.y[t]) / n_tasks
                if second_order:
                    loss.backward()
                else:  # the adapted weights are cut off from the network's, which must be given their gradients by hand
                    for w, g in zip(weights.values(), torch.autograd.grad(loss, list(fast.parameters()))):
                        w.grad = g if w.grad is None else w.grad.add_(g)
        meta_optimizer.step()

    return Runner(step, weights)


def _reptile_loop(problem: Problem) -> Runner:
    network, learner = problem.network(), problem.network()
    weights = dict(network.named_parameters())
    meta_optimizer = problem.optimizer(weights)
    batches, n_tasks = problem.minibatches(problem.tasks()), problem.work.meta_batch

    def step() -> None:
        meta_optimizer.zero_grad()
        for t in range(n_tasks):
            learner.load_state_dict(network.state_dict())
            optimizer = torch.optim.Adam(learner.parameters(), lr=problem.work.inner_lr, betas=(0.0, BETA2), eps=EPS)
            for batch in batches:
                optimizer.zero_grad()
                F.cross_entropy(learner(batch.x[t]), batch.y[t]).backward()
                optimizer.step()
            with torch.no_grad():
                for w, end in zip(weights.values(), learner.parameters()):
                    change = (w - end) / n_tasks
                    w.grad = change if w.grad is None else w.grad.add_(change)
        meta_optimizer.step()

    return Runner(step, weights)


def learn2learn_loop(problem: Problem) -> Runner:
    """One task after the other through ``learn2learn.algorithms.MAML``, as its Omniglot example writes it."""
    if problem.work.inner_batch:
        raise NotAvailable("as loop")  # its Reptile example is the same plain loop
    if importlib.util.find_spec("learn2learn") is None:
        raise NotAvailable("not installed")
    network, tasks = problem.network(), problem.tasks()
    weights = dict(network.named_parameters())
    meta_optimizer = problem.optimizer(weights)
    library = importlib.import_module("learn2learn")
    maml = library.algorithms.MAML(network, lr=problem.work.inner_lr, first_order=not problem.second_order)
    n_tasks, support = problem.work.meta_batch, problem.minibatches(tasks)

    def step() -> None:
        meta_optimizer.zero_grad()
        for t in range(n_tasks):
            learner = maml.clone()
            for batch in support:
                learner.adapt(F.cross_entropy(learner(batch.x[t]), batch.y[t]))
            F.cross_entropy(learner(tasks.query.x[t]), tasks.query.y[t]).backward()
        for w in weights.values():
            assert w.grad is not None
            w.grad.mul_(1.0 / n_tasks)
        meta_optimizer.step()

    return Runner(step, weights)


class _WrittenOutNorm(nn.Module):
    """BatchNorm from elementary operations: vmap of a gradient through ``F.batch_norm`` is wrong in second order.

    In first order it is right and faster than this.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x [n, C, H, W]`` normalised over all but the channels, scaled and shifted."""
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0, keepdim=True)
        y = (x - mean) * torch.rsqrt(variance + self.eps)
        return y * self.weight[:, None, None] + self.bias[:, None, None]


def vmap_of_grad(problem: Problem) -> Runner:
    """All tasks at once by ``vmap`` over a task's inner loop with ``torch.func.grad`` in it, as functorch's example."""
    network, tasks, work = problem.network(), problem.tasks(), problem.work
    for name, layer in list(network.named_children()):
        if isinstance(layer, nn.BatchNorm2d) and problem.second_order:
            setattr(network, name, _WrittenOutNorm(layer))
    weights: dict[str, Tensor] = dict(network.named_parameters())
    meta_optimizer = problem.optimizer(weights)
    batches = problem.minibatches(tasks)
    x, y = torch.stack([b.x for b in batches], dim=1), torch.stack([b.y for b in batches], dim=1)  # [T, steps, n, ...]
    tensors = (x, y, tasks.query.x, tasks.query.y)

    def loss(w: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(network, w, (x,)), y)

    def adapted(w: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        moment = {name: torch.zeros_like(p) for name, p in w.items()} if work.inner_batch else {}
        for i in range(work.inner_steps):
            grads = grad(loss)(w, x[i], y[i])
            if not work.inner_batch:
                w = {name: p - work.inner_lr * grads[name] for name, p in w.items()}
                continue
            moment = {name: BETA2 * m + (1 - BETA2) * grads[name].square() for name, m in moment.items()}
            root = (1 - BETA2 ** (i + 1)) ** 0.5
            change = {name: grads[name] / (m.sqrt() / root + EPS) for name, m in moment.items()}
            w = {name: p - work.inner_lr * change[name] for name, p in w.items()}
        return w

    def query_loss(w: dict[str, Tensor], x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        return loss(adapted(w, x, y), query_x, query_y)

    def first_order(w: dict[str, Tensor], x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> dict[str, Tensor]:
        end = adapted(w, x, y)
        if work.inner_batch:
            return {name: p - end[name] for name, p in w.items()}
        return grad(loss)(end, query_x, query_y)

    tasks_axis = (None, 0, 0, 0, 0)

    def step() -> None:
        meta_optimizer.zero_grad()
        if problem.second_order:
            vmap(query_loss, tasks_axis)(weights, *tensors).mean().backward()
        else:
            with torch.no_grad():
                grads = vmap(first_order, tasks_axis)(weights, *tensors)
            for name, w in weights.items():
                w.grad = grads[name].mean(dim=0)
        meta_optimizer.step()

    return Runner(step, weights)


def project(problem: Problem) -> Runner:
    """The registered algorithm under the harness's own training step, with fresh tasks at every step.

    The one place here that reaches into ``Training``.
    """
    work, stream = problem.work, problem.stream()
    config = RunConfig(
        algo=problem.algo, hyperparameters=hyperparameters(work), dataset="made-up", n_way=work.n_way,
        k_shot=work.k_shot, k_query=work.k_query, meta_batch=work.meta_batch, backbone=BACKBONE,
        meta_optimizer=problem.meta_optimizer, meta_lr=problem.meta_lr, meta_lr_schedule="constant", meta_steps=100_000,
        device=problem.device.type,
    )  # fmt: skip
    kernels, chosen = choose(available(problem.device.type), problem.device)
    task_loss = Classifier(problem.network(), kernels)
    weights = task_loss.weights
    algorithm = create_algorithm(problem.algo, **hyperparameters(work))
    training = Training(
        config, algorithm, task_loss, weights, stream, problem.stream("meta_val"), Path("no-checkpoint-here.pt")
    )
    training.warm_up()
    how = f"{training.mode} ({training.reason or 'captured'}), {chosen} kernels"
    launches = launches_of(training.step).total if problem.device.type == "cuda" else None
    return Runner(training._meta_step, weights, how, launches)


def launches_of(step: MetaStep, running: bool = True) -> Launches:
    """Return what a run's first meta-step launches, line by line; it is undone.

    Args:
        running: whether our own kernels run; otherwise they are counted alone.
    """
    before = step.snapshot()
    step.go_to(0)
    with Launches(running) as launches:
        step()
    step.restore(before)
    return launches


def supervised(problem: Problem) -> Runner:
    """Return the yardstick: forward and backward of as many images through one network, channels last, no optimizer.

    As many as a meta-iteration passes forward: every support image once for each inner step, every query image once.
    """
    network, tasks = problem.network(), problem.tasks()
    network = network.to(memory_format=torch.channels_last)
    sets = problem.minibatches(tasks) + ([] if problem.work.inner_batch else [tasks.query])
    x = torch.cat([e.x.flatten(0, 1) for e in sets]).contiguous(memory_format=torch.channels_last)
    y = torch.cat([e.y.flatten() for e in sets])
    batches = list(zip(x.split(YARDSTICK_BATCH), y.split(YARDSTICK_BATCH)))

    def step() -> None:
        network.zero_grad()
        for images, labels in batches:
            F.cross_entropy(network(images), labels).backward()

    return Runner(step, {})


PROJECT, YARDSTICK = "project", "supervised"

VARIANTS: dict[str, Callable[[Problem], Runner]] = {
    "loop": plain_loop,
    "learn2learn": learn2learn_loop,
    "vmap": vmap_of_grad,
    PROJECT: project,
    YARDSTICK: supervised,
}
"""Every variant by name."""
