"""Reptile: the way from the slow weights to the adapted ones, used as a descent direction."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from algorithms.flat import Layout, at_once, means
from algorithms.inner_loop import ALL, GradientBased, clipped
from bench.api import Examples, InnerState, MetaGrad, Predictor, TaskBatch, TaskLoss, Weights, in_order_of, last
from bench.registry import register_algorithm

_STEP, _MOMENT = "step", "second_moment/"
BETA2, EPS = 0.999, 1e-8  # torch's and TensorFlow's defaults, which the official code leaves as they are


@register_algorithm("reptile")
@dataclass(frozen=True)
class Reptile(GradientBased):
    """Trains w_t on all images of task t and returns the mean over t of w_0 - w_t; no query gradient is needed.

    Minibatches cycle without replacement, or each is drawn from all images (``replacement``). Inner Adam has beta1 = 0;
    its second moment is carried from one meta-step to the next and into evaluation, where it is copied and restored, as
    in the official code, or reset (``inner_state``). The official code runs the tasks of a meta-batch one after the
    other, each with the second moment that the last one left; here all start from the same one and leave the mean of
    theirs.

    ``query_loss`` is the loss of every task's last minibatch before its step: Reptile never evaluates on a query set.
    """

    inner_batch: int | None = 10
    inner_state: Literal["carry", "reset"] = "carry"
    eval_inner_batch: int | None = None
    replacement: bool = False

    paper = "Nichol et al. 2018, arXiv:1803.02999"
    order = "first"
    run_defaults: ClassVar = {"meta_optimizer": "sgd", "meta_lr": 1.0, "meta_lr_schedule": "linear"}

    def __post_init__(self) -> None:
        """Refuse settings that would silently mean something else.

        Raises:
            ValueError: an unknown inner_optimizer or inner_state, or a number out of range.
        """
        super().__post_init__()
        if self.inner_state not in ("carry", "reset"):
            raise ValueError(f"inner_state {self.inner_state!r}; accepted: carry, reset")

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        """Return the mean over tasks of slow minus adapted weights; the official step size is then a meta_lr of 1."""
        end = last(self.adaptation(task_loss, slow, tasks.together(), self.inner_steps, tasks.carry))
        ends = means({name: end.fast[name].detach() for name in slow})
        way = torch._foreach_sub([w.detach() for w in slow.values()], list(ends.values()))
        assert end.loss is not None, "inner_steps is at least 1"
        carry = {name: end.carry[name].mean(dim=0) for name in end.carry.keys() & {_STEP}}
        further = [name for name in tasks.carry or self.initial_carry(slow) if name != _STEP]
        return MetaGrad(dict(zip(slow, way)), end.loss, {**carry, **means({n: end.carry[n] for n in further})})

    def adaptation(
        self, task_loss: TaskLoss, slow: Weights, support: Examples, steps: int, carry: Weights | None = None
    ) -> Iterator[InnerState]:
        """Yield where the inner loop stands, starting from the carried second moment or from none."""
        return super().adaptation(task_loss, slow, support, steps, carry if self.inner_state == "carry" else None)

    def initial_carry(self, slow: Weights) -> Weights:
        """Return Adam's second moment of each weight, zero, and its count of steps."""
        if self.inner_optimizer != "adam":
            return {}
        moments = {f"{_MOMENT}{name}": torch.zeros_like(slow[name]) for name in self.adapted(slow)}
        # float64, because 1 - beta2**step loses four digits in float32
        step = torch.zeros((), dtype=torch.float64, device=next(iter(slow.values())).device)
        return {_STEP: step, **moments}

    def initial_state(self, slow: Weights) -> Weights:
        """Return the zeros with which momentum begins; the moments of Adam are carried."""
        return {} if self.inner_optimizer == "adam" else super().initial_state(slow)

    def inner_step(self, loss: Tensor, fast: Weights, carry: Weights, step: int) -> tuple[Weights, Weights]:
        """Return the weights and second moments a step later; Adam (Kingma and Ba 2015) has beta1 = 0 here."""
        if self.inner_optimizer != "adam":
            return super().inner_step(loss, fast, carry, step)
        grads = clipped(self.inner_grads(loss, fast), self.inner_clip)
        if self.inner_decay:
            grads = {name: g + self.inner_decay * fast[name] for name, g in grads.items()}
        weights = {name: fast[name] for name in grads}
        moments = {name: carry[f"{_MOMENT}{name}"] for name in grads}
        count = carry[_STEP] + 1  # [T], all alike
        moved, moments = self._by_adam(weights, grads, moments, count[0])
        return moved, {_STEP: count, **{f"{_MOMENT}{name}": m for name, m in moments.items()}}

    def _by_adam(
        self, weights: Weights, grads: Weights, moments: Weights, count: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return weights and second moments after Adam's step number ``count``, by torch's kernel, which is in place.

        With beta1 = 0 the first moment is the gradient, for which its own memory serves.

        Raises:
            ValueError: a gradient is to pass through the step, which torch's kernel does not let through.
        """
        if not all(w.is_leaf for w in weights.values()):
            raise ValueError("reptile's inner Adam has no derivative; accepted: slow weights that require no gradient")
        layout, names = Layout(weights), list(weights)
        together = at_once(weights)
        if together:
            weights, grads, moments = ({ALL: layout.gather(of)} for of in (weights, grads, moments))
        moved = [w.detach().clone() for w in weights.values()]
        squares = [torch.empty_like(w).copy_(m) for m, w in zip(moments.values(), moved)]
        slopes = [in_order_of(w, g.detach()) for g, w in zip(grads.values(), moved)]
        for dtype in dict.fromkeys(w.dtype for w in moved):  # of which the kernel takes one at a time
            w, g, v = ([t for t in of if t.dtype == dtype] for of in (moved, slopes, squares))
            torch._fused_adam_(
                w, g, g, v, [], [count.float()] * len(w), lr=self.inner_lr, beta1=0.0, beta2=BETA2, weight_decay=0.0,
                eps=EPS, amsgrad=False, maximize=False,
            )  # fmt: skip
        if together:
            return layout.split(moved[0]), layout.split(squares[0])
        return dict(zip(names, moved)), dict(zip(names, squares))

    def predictors(
        self, task_loss: TaskLoss, slow: Weights, support: Examples, steps: int | None, carry: Weights
    ) -> Iterator[Predictor]:
        """Yield predictors adapted with ``eval_inner_batch`` in place of ``inner_batch``."""
        at_test = replace(self, inner_batch=self.eval_inner_batch)
        return super(Reptile, at_test).predictors(task_loss, slow, support, steps, carry)
