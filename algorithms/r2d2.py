"""R2-D2: a ridge regression on embeddings of the support set, solved in closed form and differentiated through."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from algorithms.embedding import Embedding
from bench.api import Examples, Weights, searched
from bench.registry import register_algorithm


@register_algorithm("r2d2")
@dataclass(frozen=True)
class R2D2(Embedding):
    """The head of every task is W = X' (X X' + lambda I)^-1 Y of its support embeddings X ``[N*K, embedding]``.

    Y are labels in one-hot form, or the targets of a regression. Scores of queries are ``scale * x W + shift``; lambda,
    scale and shift are meta-learned, the first two as logarithms. The exact gradient through the solution. By the
    Woodbury identity the system is one of N*K equations, not of ``embedding``. Cost: one forward and one backward pass
    and a small linear system per task, no inner loop. The paper takes the outputs of the last two
    convolutions as features; here a linear layer follows.

    Attributes:
        ridge: lambda at the beginning, as a share of ``embedding``, so that it means the same for every size.
        scale: at the beginning, of the scores of classes; a regression begins with 1.
    """

    ridge: float = searched(0.1, low=1e-3, high=10.0, log=True)
    scale: float = searched(10.0, low=1.0, high=50.0, log=True)

    paper = "Bertinetto et al. 2019, arXiv:1805.08136"

    def __post_init__(self) -> None:
        """Refuse a regression that is not regular, scores that are all alike, or an embedding that is itself an output.

        Raises:
            ValueError: ridge or scale is not above 0, or embedding is below 2.
        """
        if self.embedding < 2:
            raise ValueError(f"embedding {self.embedding}; accepted: 2 or more")
        for name in ("ridge", "scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)}; accepted: above 0")

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

    def scored(self, slow: Weights, support: Examples, known: Tensor, asked: Tensor) -> Tensor:
        """Return the scores ``[T, n, n_way]`` of queries by the regression on the support set."""
        if support.y.is_floating_point():
            wanted = support.y[..., None]  # [T, N*K, 1]
        else:
            wanted = F.one_hot(support.y, support.n_way).to(known.dtype)  # [T, N*K, N]
        gram = known @ known.transpose(1, 2)  # [T, N*K, N*K]
        gram = gram + slow["ridge/log_lambda"].exp() * torch.eye(len(gram[0]), dtype=gram.dtype, device=gram.device)
        factor, _ = torch.linalg.cholesky_ex(gram)  # which does not ask the device whether it went well
        weights = known.transpose(1, 2) @ torch.cholesky_solve(wanted, factor)  # [T, embedding, N]
        return slow["ridge/log_scale"].exp() * (asked @ weights) + slow["ridge/shift"]
