"""Trained weights for use elsewhere: a plain ``state_dict`` of the backbone's module, and what else adapting needs."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.api import MetaAlgorithm, Weights
from bench.network.build import plain_network
from bench.settings.config import RunConfig
from bench.system.files import write_atomic
from bench.system.untrusted import read_regular

WEIGHTS_FILE, STATE_FILE = "weights.pt", "inner_state.pt"


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
    _save(path, network.state_dict())


def write_inner_state(path: Path, network: Weights, slow: Weights, carry: Weights) -> None:
    """Write what an algorithm has learnt beside the network's weights, and what it carries; nothing where it has none.

    Without the second moment that Reptile's inner Adam carries, say, its weights adapt otherwise than they were tested.

    Raises:
        OSError: the file cannot be written.
    """
    extra = {name: w.detach().cpu() for name, w in slow.items() if name not in network}
    if extra or carry:
        _save(path, {"extra": extra, "carry": {name: c.detach().cpu() for name, c in carry.items()}})


def _save(path: Path, content: object) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of each of these files that a run's folder holds, by name."""
    here = [name for name in (WEIGHTS_FILE, STATE_FILE) if (folder / name).is_file()]
    return {name: hashlib.sha256(read_regular(folder / name, None)).hexdigest() for name in here}


def read_trained(
    folder: Path, algorithm: MetaAlgorithm, initial: Weights
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the slow weights and the carry that a run has left in its folder, each where ``initial`` has its like.

    Args:
        initial: the slow weights of such a run before training, the algorithm's own among them.
    Raises:
        ValueError: the files cannot be read, or do not fit.
    """
    try:
        state = read_state(folder / WEIGHTS_FILE)
        more = read_state(folder / STATE_FILE) if (folder / STATE_FILE).exists() else {"extra": {}, "carry": {}}
        slow = {name: {**state, **more["extra"]}[name].to(w) for name, w in initial.items()}
        carry = {name: more["carry"][name].to(c) for name, c in algorithm.initial_carry(slow).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the weights do not fit the run: {' '.join(str(error).split())[:160]}") from error
    return slow, carry


def read_state(path: Path) -> Any:
    """Return what one of these files holds, tensors on the CPU; nothing in it is executed.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else.
    """
    data = io.BytesIO(read_regular(path, None))
    try:
        return torch.load(data, weights_only=True, map_location="cpu")
    except Exception as error:  # foreign bytes make torch raise anything
        raise ValueError(" ".join((str(error) or repr(error)).split())[:200]) from error
