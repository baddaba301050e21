"""From the name of a backbone to a network with its initial weights, and from a run's settings to its task loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.api import Backbone, BenchError, MetaAlgorithm, Objective
from bench.network.kernels import UNCOMPILED, Kernels
from bench.network.model import Classifier
from bench.registry import create_backbone
from bench.settings.config import RunConfig


def build_network(backbone: Backbone, input_shape: tuple[int, ...], output_size: int, seed: int) -> nn.Module:
    """Build a network whose initial weights depend on ``seed`` alone, leaving torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = backbone.build(input_shape, output_size)
    if not isinstance(network, nn.Module):
        raise TypeError(f"build returned {type(network).__name__}; it must return a torch.nn.Module")
    return network


def plain_network(config: RunConfig, algorithm: MetaAlgorithm, input_shape: tuple[int, ...]) -> nn.Module:
    """Return a run's network as its backbone builds it, an ordinary module with its initial weights."""
    backbone = create_backbone(config.backbone, **config.backbone_options)
    return build_network(backbone, input_shape, algorithm.output_size(config.n_way), config.seed)


def build(
    config: RunConfig,
    algorithm: MetaAlgorithm,
    input_shape: tuple[int, ...],
    device: torch.device,
    kernels: Kernels = UNCOMPILED,
    objective: Objective | None = None,
) -> tuple[Classifier, dict[str, Tensor]]:
    """Return the task loss and the initial slow weights, the algorithm's own among them, on the device.

    Raises:
        BenchError: the algorithm's extra weights are misnamed.
    """
    network = plain_network(config, algorithm, input_shape).to(device)
    product = torch.bfloat16 if config.precision == "bf16" else None
    task_loss = Classifier(network, kernels, product=product, objective=objective)
    weights = task_loss.weights
    extra = dict(algorithm.extra_weights(weights))
    if misnamed := [name for name in extra if "/" not in name]:
        raise BenchError(
            f"algorithm {config.algo!r}: extra weights need a slash in their names; these have none: {misnamed}"
        )
    return task_loss, {name: w.detach().clone().to(device) for name, w in {**weights, **extra}.items()}
