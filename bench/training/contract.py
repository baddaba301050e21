"""What ``meta_grad`` returns, held against the contract: its form at every step that Python takes, its values once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from bench.api import BenchError, MetaGrad, Predictor, Weights


class Diverged(Exception):
    """A loss or gradient is not finite."""


def check_contract(algo: str, slow: Weights, carry: Weights, n_tasks: int, result: MetaGrad) -> None:
    """Hold one result of ``meta_grad`` against the contract, its values included.

    Raises:
        BenchError: names the algorithm, the tensor and what would be right.
        Diverged: a value is not finite.
    """
    check_form(algo, slow, carry, n_tasks, result)
    check_values(algo, result)


def check_form(algo: str, slow: Weights, carry: Weights, n_tasks: int, result: MetaGrad) -> None:
    """Hold names, types and shapes against the contract, which asks nothing of the device.

    Raises:
        BenchError: names the algorithm, the tensor and what would be right.
    """
    whom = f"algorithm {algo!r}"
    if not isinstance(result, MetaGrad):
        got = type(result).__name__
        raise BenchError(f"{whom}: meta_grad returned {got}; it must return a MetaGrad; {_RETURN}")
    for name, held in {"grads": result.grads, "carry": result.carry}.items():
        if not isinstance(held, Mapping):
            raise BenchError(f"{whom}: {name} is {type(held).__name__}; it must map names to tensors; {_RETURN}")
    values = {"query_loss": result.query_loss, **{f"carry {name}": c for name, c in result.carry.items()}}
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise BenchError(f"{whom}: {name} is {type(value).__name__}; it must be a tensor; {_RETURN}")
    if result.grads.keys() != slow.keys():
        odd = sorted(set(result.grads) ^ set(slow), key=str)
        raise BenchError(
            f"{whom}: gradients must be named like the slow weights; these differ: {odd}; all of slow needs one and"
            " nothing else has one, so that extra weights and what does not adapt have theirs: return dict(zip(slow,"
            " grads)) with grads = torch.autograd.grad(loss, list(slow.values()), materialize_grads=True)"
        )
    for name, w in slow.items():
        _check_gradient(f"{whom}: gradient of {name}", w, result.grads[name])
    if result.query_loss.shape != (n_tasks,):
        got = tuple(result.query_loss.shape)
        raise BenchError(
            f"{whom}: query_loss has shape {got}; it must hold one loss per task, ({n_tasks},); return what task_loss"
            " gives, and take its mean only for the gradient"
        )
    given, back = ({n: (tuple(c.shape), c.dtype) for n, c in part.items()} for part in (carry, result.carry))
    if given != back:
        odd = sorted(n for n in given.keys() | back.keys() if given.get(n) != back.get(n))
        was, became = (" ".join(map(str, part.get(odd[0], ("missing",)))) for part in (given, back))
        raise BenchError(
            f"{whom}: carry must keep the names and shapes of initial_carry, and its types; {odd[0]!r} was {was} and"
            f" became {became}; return all of initial_carry, averaged over tasks (.mean(dim=0)), and make it there from"
            " the slow weights (torch.zeros_like(w)), which gives it their type"
        )
    tensors = {"query_loss": result.query_loss, **result.grads, **result.carry}
    if attached := [name for name, tensor in tensors.items() if tensor.requires_grad]:
        raise BenchError(f"{whom}: {attached[0]} still holds its graph; return {attached[0]} with .detach()")


_RETURN = "return MetaGrad(dict(zip(slow, grads)), query_loss.detach())"


def _check_gradient(what: str, w: Tensor, grad: object) -> None:
    """Hold one gradient against its weight.

    Raises:
        BenchError: it is no tensor of that shape.
    """
    wanted = tuple(w.shape)
    if not isinstance(grad, Tensor):
        raise BenchError(
            f"{what} is {grad}; it must have shape {wanted}; where a weight has no influence on the loss,"
            " torch.autograd.grad(..., materialize_grads=True) makes zeros"
        )
    got = tuple(grad.shape)
    if got != wanted:
        axis = "the task axis is in front: take the mean over it, .mean(dim=0)"
        other = "gradients have the shapes of the slow weights, without a task axis"
        raise BenchError(f"{what} is {got}; it must have shape {wanted}; {axis if got[1:] == wanted else other}")


def check_predictors(algo: str, predictors: Iterable[Predictor], x: Tensor, n_way: int) -> None:
    """Hold what ``predictors`` yields against the contract, by the outputs of the last on inputs ``x [T, n, ...]``.

    Raises:
        BenchError: names the algorithm and what would be right.
    """
    whom = f"algorithm {algo!r}"
    if not isinstance(predictors, Iterable):
        raise BenchError(f"{whom}: predictors returned {type(predictors).__name__}; yield it in place of return")
    last = deque(predictors, maxlen=1)
    if not last:
        raise BenchError(f"{whom}: predictors yields nothing; yield a predictor, or one per step and one before them")
    outputs, wanted = last.pop()(x), (*x.shape[:2], n_way)
    if not isinstance(outputs, Tensor) or tuple(outputs.shape) != wanted:
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise BenchError(f"{whom}: a predictor maps inputs of {tuple(x.shape)} to {got}; it must be {wanted}")


def check_values(algo: str, result: MetaGrad) -> None:
    """Look whether every gradient of the first meta-step is finite.

    Raises:
        Diverged: one is not.
    """
    for name, grad in result.grads.items():
        if not torch.isfinite(grad).all():
            raise Diverged(f"algorithm {algo!r}: gradient of {name} is not finite at the first meta-step")
