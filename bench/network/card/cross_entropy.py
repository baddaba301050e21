"""Mean cross-entropy of every task by the kernels of ``losses``, closed under differentiation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.network.card import losses
from bench.network.card.launches import launch

MOST = 1024  # classes; a program holds all of an example's


def cross_entropy(scores: Tensor, right: Tensor) -> Tensor:
    """Return the mean cross-entropy of every task, ``[T]`` in nats, of ``scores [T, n, O]`` for ``right [T, n]``."""
    if scores.shape[2] > MOST:
        return F.cross_entropy(scores.flatten(0, 1), right.flatten(), reduction="none").view(right.shape).mean(1)
    return _CrossEntropy.apply(scores, right if right.stride(1) == 1 else right.contiguous())


class _CrossEntropy(torch.autograd.Function):
    """The mean cross-entropy of every task; its derivative is the class below."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(scores, right)
        loss = scores.new_empty(len(scores))
        _run(losses.forward, (scores.contiguous(), right, loss), right)
        return loss

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        return _CrossEntropyBackward.apply(grad[0], *ctx.saved_tensors), None


class _CrossEntropyBackward(torch.autograd.Function):
    """The derivative of ``_CrossEntropy`` with respect to the scores, itself differentiable."""

    @staticmethod
    def forward(ctx: Any, dy: Tensor, scores: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(dy, scores, right)
        dx = torch.empty_like(scores, memory_format=torch.contiguous_format)
        _run(losses.backward, (dy, scores.contiguous(), right, dx), right, dy.stride(0))
        return dx

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> tuple[Tensor, Tensor, None]:
        dy, scores, right = ctx.saved_tensors
        if torch.is_grad_enabled():  # third order and above: by autograd
            shares, each = scores.softmax(-1), (dy / scores.shape[1])[:, None, None]
            along = (shares * v[0]).sum(-1, keepdim=True)
            own = F.one_hot(right, scores.shape[2]).to(v[0].dtype) * v[0]
            return (along.squeeze(-1) - own.sum(-1)).mean(1), each * shares * (v[0] - along), None
        d_dy, dx = dy.new_empty(dy.shape), torch.empty_like(scores, memory_format=torch.contiguous_format)
        tensors = (v[0].contiguous(), dy, scores.contiguous(), right, d_dy, dx)
        _run(losses.double_backward, tensors, right, dy.stride(0))
        return d_dy, dx, None


def _run(kernel: Any, tensors: tuple[Tensor, ...], right: Tensor, *steps: int) -> None:
    (n_tasks, n), classes = right.shape, max(t.shape[-1] for t in tensors if t.dim() == 3)
    across = 1 << (classes - 1).bit_length()
    constants = {"O": classes, "BM": max(1, min(64, 4096 // across)), "BO": across}
    launch(kernel, (n_tasks,), tensors, n, right.stride(0), *steps, **constants)
