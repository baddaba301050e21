"""The checks of an algorithm: what ``meta_grad`` returns, what it leaves alone, which gradient it is."""

from __future__ import annotations

import inspect
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.api import BenchError, Examples, MetaAlgorithm, MetaGrad, TaskBatch, TaskLoss, Weights
from bench.checks.gpu import capture_on_gpu
from bench.checks.problem import flat, image_tasks, one_task, small_classifier
from bench.checks.settings import settings
from bench.checks.sync import HostSync, refused
from bench.checks.verdicts import Broken, Caution, Check, NotAsked, where
from bench.registry import hyperparameter_names
from bench.train import check_contract

ROUNDING = 1e-9  # relative, in float64: what is left of a sum taken in another order
NUMERICAL = 1e-4  # relative: what central differences with a step of 1e-6 may be off by
LOOP_TASKS, LOOP_ROUNDS = 16, 5
LOOP_RATIO = 0.9  # of a loop's time; a batch that takes more gains nothing


@dataclass(frozen=True)
class Trial:
    """One algorithm on one small problem; whatever it is given is a copy, so that no check disturbs another."""

    algorithm: MetaAlgorithm
    task_loss: TaskLoss
    slow: Weights
    tasks: TaskBatch

    def estimate(self, tasks: TaskBatch | None = None, slow: Weights | None = None) -> MetaGrad:
        """Return what ``meta_grad`` makes of copies of the tasks and the slow weights."""
        given = self.slow if slow is None else slow
        return self.algorithm.meta_grad(self.task_loss, copied(given), copied_tasks(tasks or self.tasks))

    def alone(self) -> list[MetaGrad]:
        """Return the estimates of the tasks, each in a batch of its own."""
        return [self.estimate(one_task(self.tasks, t)) for t in range(self.tasks.support.n_tasks)]


@dataclass(frozen=True)
class Algorithm:
    """An algorithm under the checks."""

    name: str
    cls: type[MetaAlgorithm]

    def trial(self, n_tasks: int = 3, size: int = 8, dtype: torch.dtype = torch.float64, **changed: object) -> Trial:
        """Return it on random images and a small network, the same ones every time, some hyperparameters changed."""
        rng = torch.Generator().manual_seed(0)
        known = hyperparameter_names(self.cls)
        algorithm = self.cls(**{n: v for n, v in changed.items() if n in known})
        task_loss = small_classifier(rng, n_way=algorithm.output_size(5), size=size, dtype=dtype)
        weights = task_loss.weights
        extra = algorithm.extra_weights(weights)
        if misnamed := [name for name in extra if "/" not in name]:
            raise Broken(
                f"extra weights {misnamed} have no slash in their names",
                'name them like "rate/conv1.weight": the slash keeps the inner loop from adapting them',
            )
        slow = {**weights, **extra}
        tasks = image_tasks(rng, n_tasks, size=size, dtype=dtype)
        return Trial(algorithm, task_loss, slow, TaskBatch(tasks.support, tasks.query, algorithm.initial_carry(slow)))

    @property
    def has_inner_loop(self) -> bool:
        """Whether it declares the fields of one that adapts by gradient steps."""
        return {"inner_lr", "inner_steps"} <= set(hyperparameter_names(self.cls))


def copied(weights: Weights) -> dict[str, Tensor]:
    """Return copies of tensors by name."""
    return {name: w.clone() for name, w in weights.items()}


def copied_tasks(tasks: TaskBatch) -> TaskBatch:
    """Return tasks whose tensors may be written to without harm to anybody."""

    def part(e: Examples) -> Examples:
        return Examples(e.x.clone(), e.y.clone(), lambda passes, n: e.orders(passes, n).clone())

    return TaskBatch(part(tasks.support), part(tasks.query), copied(tasks.carry))


def returns(subject: Algorithm) -> str:
    """Names, shapes and types, whatever the values."""
    trial = subject.trial()
    result = trial.estimate()
    if isinstance(result, MetaGrad):
        result = MetaGrad(*(_without_nan(part) for part in (result.grads, result.query_loss, result.carry)))
    try:
        check_contract(subject.name, trial.slow, trial.tasks.carry, 3, result)
    except BenchError as error:
        raise Broken(
            str(error).partition(": ")[2],
            "return MetaGrad(grads, query_loss.detach()): grads has one tensor per name in slow, each of the shape of"
            " slow[name] without the task axis (.mean(dim=0)), and query_loss is [T]; what is not adapted gets a"
            " gradient too, of zeros if it has none (materialize_grads=True)",
        ) from error
    return f"{len(result.grads)} gradients shaped like the slow weights"


def _without_nan(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.nan_to_num()
    return {n: _without_nan(v) for n, v in value.items()} if isinstance(value, dict) else value


def is_finite(subject: Algorithm) -> str:
    """Values, on random images and on blank ones, whose gradients are zero in places."""
    trial = subject.trial()
    blank = _with_images(trial.tasks, torch.zeros_like)
    for what, tasks in (("random images", trial.tasks), ("blank images", blank)):
        result = trial.estimate(tasks)
        held = {**{f"gradient of {n}": g for n, g in result.grads.items()}, "query_loss": result.query_loss}
        for name, value in {**held, **{f"carry {n}": c for n, c in result.carry.items()}}.items():
            if not value.isfinite().all():
                raise Broken(
                    f"{name} is not finite on {what}",
                    "look for a division by, or a root or logarithm of, something that can be zero: the derivative of"
                    " sqrt(x) at 0 is infinite (add a small number below the root), and so is that of a norm",
                )
    return "gradients and losses, on blank images too"


def _with_images(tasks: TaskBatch, make: Callable[[Tensor], Tensor]) -> TaskBatch:
    support, query = (Examples(make(e.x), e.y, e.orders) for e in (tasks.support, tasks.query))
    return TaskBatch(support, query, tasks.carry)


def unchanged(subject: Algorithm) -> str:
    """Slow weights, tasks, carry and the algorithm itself, after a meta-step and after a test."""
    trial = subject.trial()
    remedy = "work on copies (bench.api.stack makes them) and write new values out of place, w = w - step for w -= step"
    for method in ("meta_grad", "predictors"):
        slow, tasks = copied(trial.slow), copied_tasks(trial.tasks)
        fields = repr(vars(trial.algorithm))
        if method == "meta_grad":
            trial.algorithm.meta_grad(trial.task_loss, slow, tasks)
        else:
            for predictor in trial.algorithm.predictors(trial.task_loss, slow, tasks.support, 2, tasks.carry):
                predictor(tasks.query.x)
        for name, w in slow.items():
            if not torch.equal(w.detach(), trial.slow[name]):
                raise Broken(f"{method} changes slow weight {name}", remedy)
            if w.requires_grad or w.grad is not None:
                raise Broken(
                    f"{method} makes slow weight {name} require a gradient, which it leaves behind",
                    "begin with slow = {name: w.detach().requires_grad_() for name, w in slow.items()}",
                )
        for name, c in tasks.carry.items():
            if not torch.equal(c, trial.tasks.carry[name]):
                raise Broken(f"{method} changes carry {name} in place", f"return the new one; {remedy}")
        for name, given, before in (("support", tasks.support, trial.tasks.support),
                                    ("query", tasks.query, trial.tasks.query)):  # fmt: skip
            if not (torch.equal(given.x, before.x) and torch.equal(given.y, before.y)):
                raise Broken(f"{method} changes the {name} set, which other algorithms share", remedy)
        if repr(vars(trial.algorithm)) != fields:
            raise Broken(
                f"{method} changes the algorithm, which is a frozen set of hyperparameters",
                "what passes from one meta-step to the next belongs into initial_carry and MetaGrad.carry",
            )
    return "slow weights, tasks and carry are as they were"


def repeatable(subject: Algorithm) -> str:
    """The same question twice."""
    trial = subject.trial()
    first, again = trial.estimate(), trial.estimate()
    if not all(torch.equal(first.grads[name], again.grads[name]) for name in first.grads):
        raise Broken(
            "the same weights and tasks give another gradient the second time",
            "draw no random numbers and keep nothing between calls: minibatches come from examples.minibatches(...),"
            " state from tasks.carry",
        )
    return "the same question gives the same gradient again"


def averaged(subject: Algorithm) -> str:
    """Three copies of one task must give what one gives."""
    trial = subject.trial()
    one, three = (trial.estimate(one_task(trial.tasks, 0, copies)) for copies in (1, 3))
    for what, single, several in (("gradient", one.grads, three.grads), ("carry", one.carry, three.carry)):
        a, b = flat(single), flat(several)
        if not a.numel() or (b - a).norm() <= ROUNDING * a.norm():
            continue
        factor = float(a @ b / (a @ a))
        if (b - factor * a).norm() <= ROUNDING * b.norm():
            text = f"the {what} of three copies of a task is {factor:.4g} times that of one"
            text += ": it is summed over tasks, not averaged" if abs(factor - 3) < 1e-6 else ""
        else:
            text = f"the {what} of three copies of a task is not that of one"
        raise Broken(
            text,
            "differentiate query_loss.mean(), or query_loss.sum() with .mean(dim=0) over the task axis of each"
            " gradient, so that meta_lr does not depend on meta_batch",
        )
    return "three copies of a task give the gradient of one"


def apart(subject: Algorithm) -> str:
    """A batch of different tasks against each of them alone; a common factor is the business of ``averaged``."""
    trial = subject.trial()
    whole, alone = trial.estimate(), trial.alone()
    remedy = (
        "keep the task axis in front, [T, ...], through every operation, and reduce over it only at the end; look for"
        " a mean, a norm, an index, a reshape or a roll that reaches across it"
    )
    losses = torch.cat([a.query_loss for a in alone])
    if not torch.allclose(whole.query_loss, losses, rtol=ROUNDING, atol=0):
        if torch.allclose(whole.query_loss.sort().values, losses.sort().values, rtol=ROUNDING, atol=0):
            raise Broken("query_loss holds the right losses in another order than that of the tasks", remedy)
        t = int((whole.query_loss - losses).abs().argmax())
        raise Broken(
            f"the loss of task {t} is {float(whole.query_loss[t]):.6g} beside other tasks and {float(losses[t]):.6g}"
            " alone", remedy,
        )  # fmt: skip
    for what, got, each in (
        ("gradient", whole.grads, [a.grads for a in alone]),
        ("carry", whole.carry, [a.carry for a in alone]),
    ):
        if not got:
            continue
        a, b = torch.stack([flat(e) for e in each]).mean(dim=0), flat(got)
        factor = a @ b / (a @ a) if a.any() else 1.0
        if not (b - factor * a).norm() <= ROUNDING * b.norm():
            raise Broken(f"the {what} of three tasks is not made of those of each task alone", remedy)
    return "a batch gives what its tasks give one by one"


def slope(trial: Trial, direction: Weights, h: float = 1e-6) -> float:
    """Return by central differences how the mean ``query_loss`` changes along a direction."""
    ahead, behind = (
        float(trial.estimate(slow={n: w + s * h * direction[n] for n, w in trial.slow.items()}).query_loss.mean())
        for s in (1, -1)
    )
    return (ahead - behind) / (2 * h)


def descends(subject: Algorithm) -> str:
    """A step against the gradient must lower the loss, if only the inner steps are small."""
    trial = subject.trial(inner_lr=1e-3)
    grads = trial.estimate().grads
    length = flat(grads).norm()
    if not length:
        raise Broken("the gradient is zero", "check that query_loss depends on the weights that are differentiated")
    if slope(trial, {n: g / length for n, g in grads.items()}) <= 0:
        raise Broken(
            "a small step against the gradient raises query_loss",
            "return what a descent subtracts: the gradient of the loss, or slow minus adapted weights; its sign is"
            " turned",
        )
    return "a small step against the gradient lowers the loss"


def order(subject: Algorithm) -> str:
    """The gradient along a random direction, against central differences of the loss after adaptation."""
    trial = subject.trial(inner_lr=0.05, inner_steps=3)
    grads = trial.estimate().grads
    rng = torch.Generator().manual_seed(1)
    errors = []
    for _ in range(3):
        direction = {n: torch.randn(w.shape, generator=rng, dtype=w.dtype) for n, w in trial.slow.items()}
        got = float(flat(grads) @ flat(direction))
        slopes = [slope(trial, direction, h) for h in (1e-6, 1e-7)]  # the longer way may cross a kink of a ReLU
        errors.append(min(abs(got - s) / max(abs(s), 1e-3 * float(flat(grads).norm())) for s in slopes))
    exact, off = max(errors) < NUMERICAL, f"{100 * max(errors):.3g}%"
    claimed = subject.cls.order
    if claimed is None:
        is_what = "that is" if exact else "that is not"
        raise NotAsked(f"claims no order (a gradient {is_what} exact)")
    if claimed == "second" and not exact:
        first = _first_order(trial)
        same = first is not None and set(first) == set(grads) and (flat(first) - flat(grads)).norm() <= (
            ROUNDING * flat(grads).norm()
        )  # fmt: skip
        text = f"claims second order, but is {off} off the finite differences of query_loss"
        if same:
            text += "; it is the first-order gradient, of the query loss at the adapted weights"
        raise Broken(
            text,
            "let the graph lead from the adapted weights back to slow: start() must not detach, inner_step"
            ' needs create_graph=True and no detach(), and the gradient is that of slow; or declare order = "first"',
        )
    if claimed == "first" and exact:
        raise Broken(
            "claims first order, but returns the exact gradient of query_loss through the inner loop",
            'declare order = "second", or take the gradient at the adapted weights, cut off from slow',
        )
    if claimed == "second":
        return f"second, as claimed (finite differences: to {max(errors):.0e})"
    return f"first, as claimed (finite differences: {off} off)"


def _first_order(trial: Trial) -> dict[str, Tensor] | None:
    """Return the mean over tasks of the query gradient at the adapted weights, if there is such a thing."""
    try:
        fast = trial.algorithm.adapt(trial.task_loss, trial.slow, trial.tasks.support)
        fast = {name: w.detach().requires_grad_() for name, w in fast.items()}
        loss = trial.task_loss(fast, trial.tasks.query).sum()
        grads = torch.autograd.grad(loss, list(fast.values()), materialize_grads=True)
    except Exception:  # only asked for a better explanation; a plugin may raise anything
        return None
    return {name: g.mean(dim=0) for name, g in zip(fast, grads)}


def predicts(subject: Algorithm) -> str:
    """Predictors: how many, of what shape, finite, each task's its own."""
    trial = subject.trial()
    x = trial.tasks.query.x
    batch = _predictors(trial, trial.tasks)
    if not batch or (subject.has_inner_loop and len(batch) != 3):
        raise Broken(
            f"predictors yields {len(batch)} predictors for 2 adaptation steps",
            "yield one before adaptation and one after each step; one alone if there is no inner loop",
        )
    for predictor in batch:
        outputs = predictor(x)
        if outputs.shape != (3, 10, 5):
            raise Broken(
                f"a predictor maps 3 tasks of 10 images, 5-way, to {tuple(outputs.shape)}",
                "return scores [T, n, n_way], here (3, 10, 5)",
            )
        if not outputs.isfinite().all():
            raise Broken("a predictor's scores are not finite", "look for a division by, or a logarithm of, zero")
    last = batch[-1](x)
    for t in range(3):
        mine = _predictors(trial, one_task(trial.tasks, t))[-1](x[t : t + 1])
        if not torch.allclose(last[t : t + 1], mine, rtol=1e-7, atol=1e-9):
            raise Broken(
                f"the scores of task {t} depend on the tasks beside it",
                "keep the task axis apart in adaptation and predictors, as in meta_grad",
            )
    return f"{len(batch)} predictors, scores [T, n, n_way], tasks apart"


def _predictors(trial: Trial, tasks: TaskBatch) -> list[Any]:
    tasks = copied_tasks(tasks)
    return list(trial.algorithm.predictors(trial.task_loss, copied(trial.slow), tasks.support, 2, tasks.carry))


def adapts(subject: Algorithm) -> str:
    """The inner loop must lower the loss that it follows."""
    if not subject.has_inner_loop:
        raise NotAsked("no inner_lr and inner_steps: no inner loop")
    trial = subject.trial(inner_lr=0.01)
    path = list(trial.algorithm.adaptation(trial.task_loss, copied(trial.slow), trial.tasks.support, 4))
    if len(path) != 5:
        raise Broken(f"adaptation yields {len(path)} states for 4 steps", "yield one before the first step, too")
    if path[0].loss is not None or any(state.loss is None for state in path[1:]):
        raise Broken("InnerState.loss is not that which led to it", "None before the first step, [T] after each")
    before, after = (trial.task_loss(path[i].fast, trial.tasks.support).mean().item() for i in (0, -1))
    if not after < before:
        raise Broken(
            f"four small inner steps take the support loss from {before:.4f} to {after:.4f}",
            "subtract inner_lr times the gradient, of the weights that adapted() names",
        )
    return f"four steps take the support loss {before:.3f} to {after:.3f}"


def captures(subject: Algorithm) -> str:
    """A meta-step as a CUDA graph: really captured on a GPU, else watched for what the host would wait for."""
    if torch.cuda.is_available():
        capture_on_gpu(subject.name, subject.cls())
        return "captured in a CUDA graph and replayed"
    trial = subject.trial()
    trial.estimate()
    tasks, slow = copied_tasks(trial.tasks), copied(trial.slow)
    for examples in (tasks.support, tasks.query, tasks.together()):
        for passes in range(1, 9):  # minibatch orders are drawn before a step is captured
            examples.orders(passes, examples.y.shape[1])
    try:
        with refused():
            trial.algorithm.meta_grad(trial.task_loss, slow, tasks)
    except HostSync as wait:
        raise Broken(
            f"meta_grad reads a value back to the host: {wait} ({where(wait, subject.cls)})",
            "keep it a tensor (torch.where in place of if, a mask in place of x[mask]); as it is, every meta-step on a"
            " GPU runs line by line, several times slower",
        ) from wait
    return "reads nothing back to the host (not captured: no GPU)"


def outpaces(subject: Algorithm) -> str:
    """The time of a batch over that of its tasks one after the other, in turn, so that other work hits both."""
    trial = subject.trial(LOOP_TASKS, size=28, dtype=torch.float32)
    singles = [one_task(trial.tasks, t) for t in range(LOOP_TASKS)]

    def batch() -> object:
        return trial.algorithm.meta_grad(trial.task_loss, trial.slow, trial.tasks)

    def loop() -> object:
        return [trial.algorithm.meta_grad(trial.task_loss, trial.slow, task) for task in singles]

    batch(), loop()
    ratio = statistics.median(_seconds(batch) / _seconds(loop) for _ in range(LOOP_ROUNDS))
    return pace(ratio)


def pace(ratio: float) -> str:
    """Put into words what part of a loop's time a batch takes.

    Raises:
        Caution: it gains nothing.
    """
    text = f"{LOOP_TASKS} tasks at once: {ratio:.2f} of a Python loop's time"
    if ratio > LOOP_RATIO:
        raise Caution(text, "look for a Python loop over tasks; what is written with the task axis needs none")
    return text


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def declared(subject: Algorithm) -> str:
    """Settings, and the order that is claimed."""
    text = settings(subject.name, subject.cls)
    if subject.cls.order not in (None, "first", "second"):
        raise Broken(f"order is {subject.cls.order!r}", 'accepted: "first", "second", or None for no claim')
    if inspect.isabstract(subject.cls):
        raise Broken("meta_grad is not written", "write it: the one method that an algorithm must have")
    return text


_BASIS = ("declared", "returns")
_SOUND = (*_BASIS, "finite", "repeatable")
CHECKS: tuple[Check[Algorithm], ...] = (
    Check("declared", "a frozen dataclass with a paper and a name that fits --algos", declared),
    Check("returns", "gradients like the slow weights, one loss per task", returns, ("declared",)),
    Check("finite", "no NaN or infinity, on blank images either", is_finite, _BASIS),
    Check("unchanged", "slow weights, tasks, carry and hyperparameters stay as they are", unchanged, _BASIS),
    Check("repeatable", "the same weights and tasks give the same gradient", repeatable, (*_BASIS, "finite")),
    Check("averaged", "a mean over tasks, not a sum", averaged, _SOUND),
    Check("apart", "no task sees another: a batch equals its tasks run alone", apart, _SOUND),
    Check("descends", "the gradient's sign: a step against it lowers the loss", descends, _SOUND),
    Check("order", "first or second order, as the attribute `order` claims", order, (*_SOUND, "descends")),
    Check("predicts", "scores of every query image before and after each inner step", predicts, ("declared",)),
    Check("adapts", "inner steps lower the support loss", adapts, ("declared",)),
    Check("captures", "a meta-step can be captured in a CUDA graph", captures, _BASIS),
    Check("outpaces", "faster than a Python loop over tasks (a warning only)", outpaces, _BASIS),
)
