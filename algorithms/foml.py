"""First-order MAML over minibatches, as ``--foml`` of supervised-reptile: the last inner step alone."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import ClassVar, Literal

from algorithms.inner_loop import GradientBased
from bench.api import Examples, MetaGrad, Predictor, TaskBatch, TaskLoss, Weights
from bench.registry import register_algorithm


@register_algorithm("foml")
@dataclass(frozen=True)
class FirstOrderMAMLOnMinibatches(GradientBased):
    """Takes ``inner_steps`` steps on minibatches of task t and returns the mean over t of the last, w_{k-1} - w_k.

    That is ``inner_lr`` times the gradient of the last minibatch, which an outer SGD adds times its ``meta_lr``, as the
    official code adds "meta step" times the last change. What the last minibatch is made of is ``tail``:

    - ``separate``: the query images, which no earlier minibatch holds (``--foml-tail``, k_query being its number).
    - ``shared``: drawn like the others from all images of the task, so that it repeats earlier ones as soon as the
      minibatches together are more than the task holds, or at any time with ``replacement``.

    The official code's Adam, whose state is carried, is not here. ``query_loss`` is that of the last minibatch before
    its step. Cost: ``inner_steps`` backward passes.
    """

    inner_batch: int | None = 10
    tail: Literal["separate", "shared"] = "separate"
    replacement: bool = False
    eval_inner_batch: int | None = None

    paper = "Nichol et al. 2018, arXiv:1803.02999, section 6.3"
    order = "first"
    by_default = False
    run_defaults: ClassVar = {"meta_optimizer": "sgd", "meta_lr": 1.0, "meta_lr_schedule": "linear"}

    def __post_init__(self) -> None:
        """Refuse a tail that is not known.

        Raises:
            ValueError: the tail is neither separate nor shared.
        """
        super().__post_init__()
        if self.tail not in ("separate", "shared"):
            raise ValueError(f"tail {self.tail!r}; accepted: separate, shared")

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        """Return the mean over tasks of the weights before the last inner step minus those after it."""
        states = self.descent(task_loss, slow, self.batches(tasks), tasks.support.n_tasks, tasks.carry)
        before, after = deque(states, maxlen=2)
        grads = {name: (before.fast[name].detach() - after.fast[name].detach()).mean(dim=0) for name in slow}
        assert after.loss is not None, "a step has been taken"
        return MetaGrad(grads, after.loss)

    def batches(self, tasks: TaskBatch) -> Iterator[Examples]:
        """Yield the minibatches of the inner steps, the last of which is the one that counts."""
        if self.tail == "shared":
            return tasks.together().minibatches(self.inner_batch, self.inner_steps, self.replacement)
        earlier = tasks.support.minibatches(self.inner_batch, self.inner_steps - 1, self.replacement)
        return chain(earlier, [tasks.query])

    def predictors(
        self, task_loss: TaskLoss, slow: Weights, support: Examples, steps: int | None, carry: Weights
    ) -> Iterator[Predictor]:
        """Yield predictors adapted with ``eval_inner_batch`` in place of ``inner_batch``."""
        at_test = replace(self, inner_batch=self.eval_inner_batch)
        return super(FirstOrderMAMLOnMinibatches, at_test).predictors(task_loss, slow, support, steps, carry)
