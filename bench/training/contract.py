"""What ``meta_grad`` returns, held against the contract: its form at every step that Python takes, its values once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bench.api import BenchError, MetaGrad, Weights


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
    if not isinstance(result, MetaGrad):
        raise BenchError(f"algorithm {algo!r}: meta_grad returned {type(result).__name__}; it must return a MetaGrad")
    for name, held in {"grads": result.grads, "carry": result.carry}.items():
        if not isinstance(held, Mapping):
            raise BenchError(f"algorithm {algo!r}: {name} is {type(held).__name__}; it must map names to tensors")
    values = {"query_loss": result.query_loss, **{f"carry {name}": c for name, c in result.carry.items()}}
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise BenchError(f"algorithm {algo!r}: {name} is {type(value).__name__}; it must be a tensor")
    if result.grads.keys() != slow.keys():
        odd = sorted(set(result.grads) ^ set(slow), key=str)
        raise BenchError(f"algorithm {algo!r}: gradients must be named like the slow weights; these differ: {odd}")
    for name, w in slow.items():
        grad = result.grads[name]
        if not isinstance(grad, Tensor) or grad.shape != w.shape:
            got = tuple(grad.shape) if isinstance(grad, Tensor) else grad
            raise BenchError(f"algorithm {algo!r}: gradient of {name} is {got}; it must have shape {tuple(w.shape)}")
    if result.query_loss.shape != (n_tasks,):
        got = tuple(result.query_loss.shape)
        raise BenchError(
            f"algorithm {algo!r}: query_loss has shape {got}; it must hold one loss per task, ({n_tasks},)"
        )
    if {n: (c.shape, c.dtype) for n, c in result.carry.items()} != {n: (c.shape, c.dtype) for n, c in carry.items()}:
        raise BenchError(
            f"algorithm {algo!r}: carry must keep the names and shapes of initial_carry, and its types: {sorted(carry)}"
        )
    tensors = {"query_loss": result.query_loss, **result.grads, **result.carry}
    if attached := [name for name, tensor in tensors.items() if tensor.requires_grad]:
        raise BenchError(f"algorithm {algo!r}: {attached[0]} still holds its graph; return detached tensors")


def check_values(algo: str, result: MetaGrad) -> None:
    """Look whether every gradient of the first meta-step is finite.

    Raises:
        Diverged: one is not.
    """
    for name, grad in result.grads.items():
        if not torch.isfinite(grad).all():
            raise Diverged(f"algorithm {algo!r}: gradient of {name} is not finite at the first meta-step")
