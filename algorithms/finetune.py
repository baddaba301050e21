"""Fine-tuning: supervised training of one classifier of all training classes, then a new head for every task."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from algorithms.inner_loop import GradientBased
from bench.api import BenchError, Examples, MetaGrad, Predictor, TaskBatch, TaskLoss, Weights, stack
from bench.registry import register_algorithm

_HEAD, _SHIFT = "head/weight", "head/bias"


@register_algorithm("finetune")
@dataclass(frozen=True)
class FineTune(GradientBased):
    """The "Baseline" of Chen et al.: ordinary pretraining, then a linear head trained on each support set.

    Training: all images of the tasks, with the numbers of their classes among all training classes, pass the network
    and a linear classifier of these; cross-entropy. A task's own labels are not used. Test: the network stays as it is,
    a new linear head begins at zero and follows the inner rule for ``inner_steps`` steps. Cost: one forward and
    one backward pass in training; at test the support set passes the network once.

    Attributes:
        embedding: outputs of the network, inputs of both classifiers. The paper takes the output of the last
            convolution itself; here a linear layer follows.
        inner_steps: at test, where nothing else is said; 100 in the paper, on minibatches of 4.
    """

    inner_steps: int = 100
    embedding: int = 64

    paper = 'Chen et al. 2019, arXiv:1904.04232, "Baseline"'
    by_default = False

    def output_size(self, n_way: int) -> int:
        """Return the size of an embedding, whatever the number of classes."""
        return self.embedding

    def class_weights(self, network: Weights, n_classes: int) -> Weights:
        """Return the classifier of all training classes, zero at the beginning.

        Raises:
            BenchError: there are no classes.
        """
        if not n_classes:
            raise BenchError(
                "finetune needs training classes, and this data set has none; accepted: image data sets, or joint"
            )
        like = next(iter(network.values()))
        return {
            "classifier/weight": like.new_zeros(n_classes, self.embedding),
            "classifier/bias": like.new_zeros(n_classes),
        }

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        """Return the gradient of the cross-entropy over all training classes, with that loss in place of a query's."""
        slow = {name: w.detach().requires_grad_() for name, w in slow.items()}
        both = tasks.together()
        assert both.classes is not None, "class_weights has refused data without classes"
        embedded = task_loss.outputs(stack(slow, both.n_tasks), both.x)  # [T, n, embedding]
        logits = F.linear(embedded, slow["classifier/weight"], slow["classifier/bias"])  # [T, n, n_classes]
        numbers = both.classes.gather(1, both.y)  # [T, n]
        loss = F.cross_entropy(logits.transpose(1, 2), numbers, reduction="none").mean(dim=1)  # [T]
        grads = torch.autograd.grad(loss.mean(), list(slow.values()), materialize_grads=True)
        return MetaGrad(dict(zip(slow, grads)), loss.detach())

    def predictors(
        self, task_loss: TaskLoss, slow: Weights, support: Examples, steps: int | None, carry: Weights
    ) -> Iterator[Predictor]:
        """Yield a predictor before the head has seen anything and after each of its steps."""
        fast = {name: w.detach() for name, w in stack(slow, support.n_tasks).items()}
        with torch.no_grad():
            embedded = task_loss.outputs(fast, support.x)  # [T, N*K, embedding]
        head: dict[str, Tensor] = {
            _HEAD: embedded.new_zeros(support.n_tasks, support.n_way, self.embedding),
            _SHIFT: embedded.new_zeros(support.n_tasks, 1, support.n_way),
        }
        state: Weights = self.state_of(head)
        for step in range(1 + (self.inner_steps if steps is None else steps)):
            if step:
                head = {name: w.detach().requires_grad_() for name, w in head.items()}
                scores = embedded @ head[_HEAD].transpose(1, 2) + head[_SHIFT]  # [T, N*K, N]
                loss = F.cross_entropy(scores.transpose(1, 2), support.y, reduction="none").mean(dim=1)  # [T]
                grads = dict(zip(head, torch.autograd.grad(loss.sum(), list(head.values()))))
                head, state = self.by_rule(head, grads, {}, state, step - 1)
            yield _Headed(task_loss, fast, {name: w.detach() for name, w in head.items()})


@dataclass(frozen=True)
class _Headed:
    """The network as it is, with a linear head for every task, as a predictor."""

    task_loss: TaskLoss
    fast: Weights
    head: Weights

    def __call__(self, x: Tensor) -> Tensor:
        """Map inputs ``[T, n, ...]`` to scores ``[T, n, N]``."""
        return self.task_loss.outputs(self.fast, x) @ self.head[_HEAD].transpose(1, 2) + self.head[_SHIFT]
