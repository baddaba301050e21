"""What a run has reached, and the file that keeps it: torch's format with a seal over everything in it.

Reading it executes nothing of it.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.api import Weights
from bench.records.columns import CurvePoint
from bench.settings.config import RunConfig
from bench.system.files import write_atomic
from bench.system.untrusted import read_regular
from bench.training.outer import MetaOptimizer

CHECKPOINT_FILE = "checkpoint.pt"  # in a run's folder
SEAL = "sha256"

log = logging.getLogger("bench")


@dataclass
class Progress:
    """What a run has reached: all that a checkpoint must hold."""

    slow: dict[str, Tensor]
    carry: Weights
    chunk: int
    oom_retries: int = 0
    meta_step: int = 0
    train_s: float = 0.0
    eval_s: float = 0.0
    setup_s: float = 0.0
    parts: int = 1
    step_ms: list[float] = field(default_factory=list)
    curve: list[CurvePoint] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  # of the meta-steps since the last point of the curve
    beside: int | None = None
    """The most other runs that were seen under way on this machine; None where that cannot be known."""
    others_s: float = 0.0
    """Seconds that cores worked for others while this run was training."""
    watched_s: float = 0.0
    """Seconds of training during which that was known."""
    memory: dict[str, Any] = field(default_factory=dict)
    """The ``state`` of its ``Memory``."""

    @property
    def load(self) -> float | None:
        """Return how many cores others used during training, the mean over all parts; None where nobody knows."""
        return max(0.0, self.others_s / self.watched_s) if self.watched_s else None


def save_progress(
    path: Path, config: RunConfig, data_sha256: str, progress: Progress, optimizer: MetaOptimizer
) -> None:
    """Write in one step all that a run needs to go on."""
    apart = ("slow", "carry", "curve", "memory")
    state = {
        "run_id": config.run_id,
        "data_sha256": data_sha256,
        "slow": progress.slow,
        "carry": dict(progress.carry),
        "optimizer": optimizer.torch.state_dict(),
        "counters": {f.name: getattr(progress, f.name) for f in fields(progress) if f.name not in apart},
        "curve": [asdict(point) for point in progress.curve],
        "memory": progress.memory,
    }
    write_checkpoint(path, state)


def restore_progress(
    path: Path, config: RunConfig, data_sha256: str, start: Progress, optimizer: MetaOptimizer
) -> Progress | None:
    """Return what the run had reached; None if there is nothing to continue from.

    Weights and carry of ``start``, and the optimizer, are changed in place; for None they stay as they are.
    """
    try:
        state = read_checkpoint(path)
        if state["run_id"] != config.run_id:
            return None
        if state.get("data_sha256", data_sha256) != data_sha256:  # a checkpoint of an earlier version does not say
            raise ValueError("it was trained on other data of that name")
        tensors = _saved_tensors(state, start)
        progress = _saved_progress(state, start, config)
        optimizer.load(state["optimizer"])
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        log.warning("%s: ignored, the run starts anew (%s)", path, error)
        return None
    with torch.no_grad():
        for tensor, saved in tensors:
            tensor.copy_(saved)
    progress.parts += 1
    return progress


def _saved_tensors(state: Mapping[str, Any], start: Progress) -> list[tuple[Tensor, Tensor]]:
    """Return each weight and carried tensor with what was saved of it."""
    pairs = []
    for part, tensors in (("slow", start.slow), ("carry", start.carry)):
        if odd := [name for name in tensors if not isinstance(state[part][name], Tensor)]:
            raise ValueError(f"{odd[0]} is no tensor")
        pairs += [(tensor, state[part][name].reshape(tensor.shape)) for name, tensor in tensors.items()]
    return pairs


def _saved_progress(state: Mapping[str, Any], start: Progress, config: RunConfig) -> Progress:
    """Return the saved counters and curve, if this run can have written them."""
    curve = [CurvePoint.parse(point) for point in state["curve"]]
    p = Progress(start.slow, start.carry, curve=curve, memory=dict(state["memory"]), **state["counters"])
    if not 0 <= p.meta_step <= config.meta_steps or len(p.step_ms) != p.meta_step:
        raise ValueError(f"{len(p.step_ms)} times of {p.meta_step} meta-steps")
    if not 1 <= p.chunk <= config.meta_batch:
        raise ValueError(f"chunk is {p.chunk}")
    numbers = (p.train_s, p.eval_s, p.setup_s, p.others_s, p.watched_s, p.parts, *p.step_ms, *p.losses)
    if not all(isinstance(number, int | float) for number in numbers):
        raise ValueError("a counter is no number")
    return p


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
        why = (str(error) or repr(error)).splitlines()[0].split(". ")[0]
        raise ValueError(f"not a whole checkpoint: {why}") from None
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
