"""Trained weights for use elsewhere: a plain ``state_dict`` of the backbone's own module."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from bench.api import MetaAlgorithm, Weights
from bench.network.build import plain_network
from bench.settings.config import RunConfig
from bench.system.files import write_atomic

WEIGHTS_FILE = "weights.pt"


def write_weights(
    path: Path, config: RunConfig, algorithm: MetaAlgorithm, input_shape: tuple[int, ...], slow: Weights
) -> None:
    """Write the network's part of ``slow`` in one step, so that ``load_state_dict`` of ``plain_network`` takes it.

    Batch normalisation has no running statistics here, neither in training nor at test: those in the file are the
    module's initial ones, and the module must be left in training mode.

    Raises:
        OSError: the file cannot be written.
    """
    network = plain_network(config, algorithm, input_shape)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in slow:  # one that is frozen is not
                parameter.copy_(slow[name])
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    write_atomic(path, buffer.getvalue())
