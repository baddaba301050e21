"""R2-D2: a ridge regression on embeddings of the support set, solved in closed form and differentiated through."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.api import Examples, MetaAlgorithm, MetaGrad, Predictor, TaskBatch, TaskLoss, Weights, searched, stack
from bench.registry import register_algorithm


@register_algorithm("r2d2")
@dataclass(frozen=True)
class R2D2(MetaAlgorithm):
    """The head of every task is W = X' (X X' + lambda I)^-1 Y of its support embeddings X ``[N*K, embedding]``.

    Y are labels in one-hot form, or the targets of a regression. Scores of queries are ``scale * x W + shift``; lambda,
    scale and shift are meta-learned, the first two as logarithms. The exact gradient through the solution. By the
    Woodbury identity the system is one of N*K equations, not of ``embedding``. Cost: one forward and one backward pass
    and a small linear system per task, no inner loop.

    Attributes:
        embedding: outputs of the network. The paper takes the outputs of the last two convolutions themselves; here a
            linear layer follows.
        ridge: lambda at the beginning, as a share of ``embedding``, so that it means the same for every size.
        scale: at the beginning, of the scores of classes; a regression begins with 1.
    """

    embedding: int = 64
    ridge: float = searched(0.1, low=1e-3, high=10.0, log=True)
    scale: float = searched(10.0, low=1.0, high=50.0, log=True)

    paper = "Bertinetto et al. 2019, arXiv:1805.08136"
    order = "second"
    by_default = False

    def __post_init__(self) -> None:
        """Refuse a regression that is not regular, or scores that are all alike.

        Raises:
            ValueError: ridge or scale is not above 0.
        """
        for name in ("ridge", "scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)}; accepted: above 0")

    def output_size(self, n_way: int) -> int:
        """Return the size of an embedding, whatever the number of classes."""
        return self.embedding

    def class_weights(self, network: Weights, n_classes: int) -> Weights:
        """Return the logarithms of lambda and of the scale, and the shift, each of one number."""
        like = next(iter(network.values()))
        scale = self.scale if n_classes else 1.0
        ridge = torch.tensor(self.ridge * self.embedding, dtype=like.dtype, device=like.device)
        return {
            "ridge/log_lambda": ridge.log(),
            "ridge/log_scale": like.new_tensor(scale).log(),
            "ridge/shift": like.new_zeros(()),
        }

    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        """Return the gradient of the mean query loss with respect to the network and the regression's own numbers."""
        slow = {name: w.detach().requires_grad_() for name, w in slow.items()}
        scores = self.scores(task_loss, slow, tasks.support, tasks.query.x)  # [T, n, n_way]
        query_loss = task_loss.of_outputs(scores, tasks.query.y)  # [T]
        grads = torch.autograd.grad(query_loss.mean(), list(slow.values()), materialize_grads=True)
        return MetaGrad(dict(zip(slow, grads)), query_loss.detach())

    def predictors(
        self, task_loss: TaskLoss, slow: Weights, support: Examples, steps: int | None, carry: Weights
    ) -> Iterator[Predictor]:
        """Yield the one predictor that there is."""
        yield lambda x: self.scores(task_loss, slow, support, x)

    def scores(self, task_loss: TaskLoss, slow: Weights, support: Examples, x: Tensor) -> Tensor:
        """Return the scores ``[T, n, n_way]`` of inputs, which normalisation sees in one batch with the support's."""
        outputs = task_loss.outputs(stack(slow, support.n_tasks), torch.cat([support.x, x], dim=1))
        shots = support.y.shape[1]
        known, asked = outputs[:, :shots], outputs[:, shots:]  # [T, N*K, embedding], [T, n, embedding]
        if support.y.is_floating_point():
            wanted = support.y[..., None]  # [T, N*K, 1]
        else:
            wanted = F.one_hot(support.y, support.n_way).to(outputs.dtype)  # [T, N*K, N]
        gram = known @ known.transpose(1, 2)  # [T, N*K, N*K]
        gram = gram + slow["ridge/log_lambda"].exp() * torch.eye(shots, dtype=gram.dtype, device=gram.device)
        factor, _ = torch.linalg.cholesky_ex(gram)  # which does not ask the device whether it went well
        weights = known.transpose(1, 2) @ torch.cholesky_solve(wanted, factor)  # [T, embedding, N]
        return slow["ridge/log_scale"].exp() * (asked @ weights) + slow["ridge/shift"]
