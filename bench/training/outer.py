"""The meta-optimizer: torch's SGD or Adam, with the learning rate of every meta-step from a table."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bench.api import Weights, in_order_of
from bench.settings.config import SCHEDULES, RunConfig


class MetaOptimizer:
    """Moves the slow weights in place.

    Args:
        slow: the weights, which stay where they are.
        captured: whether a step may ask nothing of the host, so that it can be captured: the rate is then a tensor on
            the device. Otherwise it is a Python number, which is what torch computes with most exactly.
    """

    def __init__(self, config: RunConfig, slow: Weights, captured: bool) -> None:
        self.slow, self.captured = slow, captured
        schedule, n = SCHEDULES[config.meta_lr_schedule], config.meta_steps
        self.rates = [config.meta_lr * schedule(step / n) for step in range(n)]
        weights = list(slow.values())
        self._sgd = config.meta_optimizer == "sgd"
        if captured:
            # torch warns of every step of such an optimizer that is not captured, as those of the warm-up are.
            warnings.filterwarnings("ignore", message=".*capturable=True.*", category=UserWarning)
            self._rates = torch.tensor(self.rates, dtype=torch.float32, device=weights[0].device)
            self._rate = self._rates[0].clone()
        self.torch: torch.optim.Optimizer
        if self._sgd:  # which reads a rate that is a tensor back to the host: it gets gradients times the rate instead
            self.torch = torch.optim.SGD(weights, lr=1.0 if captured else config.meta_lr)
        elif captured:
            self.torch = torch.optim.Adam(weights, lr=self._rate, capturable=True, fused=True)
        else:
            self.torch = torch.optim.Adam(weights, lr=config.meta_lr)

    def step(self, grads: Weights, done: Tensor) -> None:
        """Move the weights along ``grads`` at the rate of the meta-step that comes after ``done [1]`` of them."""
        if not self.captured:
            self.torch.param_groups[0]["lr"] = self.rates[int(done)]
        else:
            self._rate.copy_(self._rates.index_select(0, done)[0])  # indexing with [done] would ask the host
            if self._sgd:
                grads = dict(zip(grads, torch._foreach_mul(list(grads.values()), self._rate)))
        for name, w in self.slow.items():
            w.grad = in_order_of(w, grads[name]) if self.captured else grads[name]
        self.torch.step()
        for w in self.slow.values():
            w.grad = None

    def tensors(self) -> Iterator[Tensor]:
        """Yield the tensors of the optimizer's state, all of which begin at zero."""
        for state in self.torch.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))

    def load(self, state: dict[str, Any]) -> None:
        """Take over what ``torch.state_dict()`` returned, on whatever device it is."""
        self.torch.load_state_dict(state)
        if self.captured and not self._sgd:  # the saved rate came with it, and is not the tensor that we write to
            self.torch.param_groups[0]["lr"] = self._rate
