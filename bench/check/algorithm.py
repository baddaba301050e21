"""The checks of an algorithm, in the order in which they are asked."""

from __future__ import annotations

import inspect

from bench.check.adaptation import adapts, predicts, ways
from bench.check.gradient import apart, averaged, descends, learns, order
from bench.check.pace import captures, outpaces
from bench.check.results import is_finite, repeatable, returns, unchanged
from bench.check.settings import settings
from bench.check.trial import Algorithm
from bench.check.verdicts import Broken, Check


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
    Check("order", "first or second order, as the attribute `order` claims", order, (*_SOUND, "averaged", "descends")),
    Check("learns", "extra weights get gradients, too (a warning only)", learns, _SOUND),
    Check("predicts", "scores of every query image before and after each inner step", predicts, ("declared",)),
    Check("ways", "another number of classes and examples", ways, (*_BASIS, "predicts")),
    Check("adapts", "inner steps lower the support loss", adapts, ("declared",)),
    Check("captures", "a meta-step can be captured in a CUDA graph", captures, _BASIS),
    Check("outpaces", "faster than a Python loop over tasks (a warning only)", outpaces, _BASIS),
)
