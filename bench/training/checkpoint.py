"""Checkpoint files: torch's format with a seal over everything in it, loaded without executing anything of it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.system.files import write_atomic
from bench.system.untrusted import read_regular

SEAL = "sha256"


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write ``state`` in one step: nested dictionaries, lists and tuples of tensors, numbers, text, None.

    Raises:
        OSError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({**state, SEAL: seal(state)}, buffer)
    write_atomic(path, buffer.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what ``write_checkpoint`` wrote, tensors on the CPU.

    The archive's own check sums are not looked at by torch, so that a flipped bit of a weight would pass; the seal
    covers every value.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is cut, altered, or not a checkpoint.
    """
    data = read_regular(path, None)
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # foreign bytes make torch, zip and pickle raise anything
        raise ValueError(
            f"not a whole checkpoint: {(str(error) or repr(error)).splitlines()[0].split('. ')[0]}"
        ) from None
    if not isinstance(state, dict) or state.pop(SEAL, None) != seal(state):
        raise ValueError("altered after it was written, or of another version")
    return state


def seal(value: Any) -> str:
    """Return a hash over ``value``, types, names and order included.

    Raises:
        TypeError: it holds something that a checkpoint does not.
    """
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: hashlib._Hash, value: Any) -> None:
    if isinstance(value, Tensor):
        bits = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(f"tensor {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(bits.numpy().tobytes())
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)} ".encode())
        for key, item in value.items():
            _feed(digest, key)
            _feed(digest, item)
    elif isinstance(value, list | tuple):
        digest.update(f"{type(value).__name__} {len(value)} ".encode())
        if all(type(item) is float for item in value):  # a number per meta-step: too many to feed one by one
            digest.update(np.asarray(value, dtype=np.float64).tobytes())
        else:
            for item in value:
                _feed(digest, item)
    elif value is None or isinstance(value, bool | int | float | str):
        text = repr(value)
        digest.update(f"{type(value).__name__} {len(text)} {text} ".encode())
    else:
        raise TypeError(f"a checkpoint cannot hold {type(value).__name__}")
