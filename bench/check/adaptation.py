"""The checks of the inner loop as evaluation runs it: predictors, and the loss that adaptation lowers."""

from __future__ import annotations

import torch

from bench.api import Predictor, TaskBatch
from bench.check.trial import Algorithm, Trial, copied, copied_tasks, one_task
from bench.check.verdicts import Broken, NotAsked
from bench.system.text import counted


def predicts(subject: Algorithm) -> str:
    """Predictors: how many, of what shape, finite, each task's its own."""
    trial = subject.trial()
    x = trial.tasks.query.x
    batch = _predictors(trial, trial.tasks)
    if not batch or (subject.has_inner_loop and len(batch) != 3):
        raise Broken(
            f"predictors yields {counted(len(batch), 'predictor')} for 2 adaptation steps",
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
    if not subject.has_inner_loop:
        _knows_its_support(trial, batch[-1])
    return f"{counted(len(batch), 'predictor')}, scores [T, n, n_way], tasks apart"


def _knows_its_support(trial: Trial, predictor: Predictor) -> None:
    """Look whether the highest score is that of the right class, on the very images that the predictor was given.

    Raises:
        Broken: it is the lowest.
    """
    scores, y = predictor(trial.tasks.support.x), trial.tasks.support.y
    highest, lowest = (float(s.argmax(dim=2).eq(y).double().mean()) for s in (scores, -scores))
    if lowest > 0.5 and highest < 0.2:
        raise Broken(
            f"the right class has the lowest score on {lowest:.0%} of the support images",
            "give the likeliest class the highest score: minus the distance, in predictors and in the loss alike",
        )


def ways(subject: Algorithm) -> str:
    """Gradients and scores at another number of classes and examples than everywhere else here."""
    trial = subject.trial(n_way=3, k_shot=2)
    losses, (*_, predictor) = trial.estimate().query_loss, _predictors(trial, trial.tasks)
    outputs = predictor(trial.tasks.query.x)
    remedy = "ask the examples for the number of classes, support.n_way, and for no other size"
    if outputs.shape != (3, 6, 3):
        raise Broken(f"3-way 2-shot, a predictor maps 3 tasks of 6 images to {tuple(outputs.shape)}", remedy)
    if not (outputs.isfinite().all() and losses.isfinite().all()):
        raise Broken("3-way 2-shot, losses or scores are not finite", remedy)
    return "3-way 2-shot as well as 5-way 1-shot"


def _predictors(trial: Trial, tasks: TaskBatch) -> list[Predictor]:
    tasks = copied_tasks(tasks)
    return list(trial.algorithm.predictors(trial.task_loss, copied(trial.slow), tasks.support, 2, tasks.carry))


def adapts(subject: Algorithm) -> str:
    """The inner loop must lower the loss that it follows."""
    if not subject.has_inner_loop:
        raise NotAsked("no setting inner_steps: no inner loop")
    trial = subject.trial(inner_lr=0.01, inner_steps=2)  # fewer than are taken here, as at test
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
    return f"four steps take the support loss {before:.6g} to {after:.6g}"
