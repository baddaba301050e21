"""The checks of what ``meta_grad`` returns and of what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bench.api import MetaAlgorithm, MetaGrad, TaskBatch, stack
from bench.check.trial import Algorithm, Trial, copied, copied_tasks, told
from bench.check.verdicts import Broken
from bench.training.contract import check_contract

MANY = 7  # tasks, where a number must not be that of inner steps or of anything else by chance


def returns(subject: Algorithm) -> str:
    """Names, shapes and types, whatever the values."""
    trial = subject.trial()
    names = trial.algorithm.adapted(copied(trial.slow))
    if isinstance(names, str) or any(name not in trial.slow for name in names):
        raise Broken(
            f"adapted() returns {names!r}", "return a list of names of slow weights, [names[-1]] for the last one alone"
        )
    many = subject.trial(MANY)
    if subject.has_inner_loop and subject.cls.descent is MetaAlgorithm.descent:
        _a_step(many)
    for asked, n_tasks in ((trial, 3), (many, MANY)):
        result = asked.estimate()
        if isinstance(result, MetaGrad):
            result = MetaGrad(*(_without_nan(part) for part in (result.grads, result.query_loss, result.carry)))
        with told():
            check_contract(subject.name, asked.slow, asked.tasks.carry, n_tasks, result)
    return f"{len(result.grads)} gradients shaped like the slow weights"


def _a_step(trial: Trial) -> None:
    """Take one inner step.

    Raises:
        Broken: it does not return weights of the shapes that it was given, and the carry.
    """
    algorithm, examples = trial.algorithm, trial.tasks.support
    fast = algorithm.start(copied(trial.slow), MANY)
    carry = stack({**algorithm.initial_state(copied(trial.slow)), **copied(trial.tasks.carry)}, MANY)
    result: Any = algorithm.inner_step(trial.task_loss(fast, examples), fast, carry, 0)
    if not (isinstance(result, tuple) and len(result) == 2 and all(isinstance(part, Mapping) for part in result)):
        raise Broken(
            f"inner_step returns {type(result).__name__}",
            "return two dicts of tensors, the changed weights and the carry: return new, carry",
        )
    for name, w in result[0].items():
        wanted = tuple(fast[name].shape) if name in fast else "no weight at all"
        if not isinstance(w, Tensor) or tuple(w.shape) != wanted:
            got = tuple(w.shape) if isinstance(w, Tensor) else type(w).__name__
            raise Broken(
                f"inner_step returns {name} as {got} for {MANY} tasks, which was {wanted}",
                "return weights by their names in the shapes that they had, [T, ...]; a rate [T] fits a gradient g"
                " [T, ...] as rate.view(-1, *[1] * (g.dim() - 1))",
            )


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
    support, query = (replace(e, x=make(e.x)) for e in (tasks.support, tasks.query))
    return replace(tasks, support=support, query=query)


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
