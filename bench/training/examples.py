"""A few test tasks of a run with its answers, kept small beside its tables, so that a reader sees what was asked."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.api import MetaAlgorithm, TaskLoss, Weights
from bench.tasks.stream import TaskStream
from bench.training.evaluate import answers_alone, answers_together

TASKS = 3
_LARGEST = 2**28  # bytes; 3 tasks of 5,000 classes each have half of it
MAX_IMAGES = 64 * 64  # pixels; larger pictures would make a run's folder large for little


@dataclass(frozen=True)
class ExampleTasks:
    """The first test tasks of a stream: one support and one query image per class, and what was answered.

    ``support`` and ``query`` are uint8 ``[tasks, n_way, H, W]`` with ink 255 on 0, class n at place n; ``plain`` and
    ``transductive`` are the classes ``[tasks, n_way]`` that the adapted model takes the query images for.
    """

    support: np.ndarray
    query: np.ndarray
    plain: np.ndarray
    transductive: np.ndarray

    def to_bytes(self) -> bytes:
        """Return them as a compressed npz file; the same examples give the same bytes."""
        file = io.BytesIO()
        np.savez_compressed(file, **{f.name: getattr(self, f.name) for f in fields(self)})
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> ExampleTasks:
        """Return what ``to_bytes`` wrote.

        Raises:
            ValueError: it did not write this.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                if (size := sum(member.file_size for member in archive.infolist())) > _LARGEST:
                    raise ValueError(f"{size:,} bytes unpacked")
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                found = cls(**{f.name: file[f.name] for f in fields(cls)})
        except Exception as error:  # foreign bytes make numpy, zipfile and zlib raise anything
            raise ValueError(f"no example tasks: {' '.join(str(error).split())[:200]}") from error
        shape = found.support.shape
        if not (
            len(shape) == 4
            and found.support.size > 0
            and found.query.shape == shape
            and found.support.dtype == found.query.dtype == np.uint8
            and found.plain.shape == found.transductive.shape == shape[:2]
            and found.plain.dtype.kind == found.transductive.dtype.kind == "u"
        ):
            raise ValueError("no example tasks: arrays do not fit each other")
        return found


def _first_of_class(examples: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Return the place of the first example of each class, ``[n_way]``; labels are alike in all tasks."""
    return torch.stack([(labels[0] == n).nonzero()[0, 0] for n in range(n_way)])


def example_tasks(
    algorithm: MetaAlgorithm,
    task_loss: TaskLoss,
    slow: Weights,
    carry: Weights,
    stream: TaskStream,
    steps: int | None,
) -> ExampleTasks | None:
    """Return the first tasks of the test stream with the answers of the trained model after all its steps.

    None for data that is not small grey images with a class each. Nothing that is measured depends on this.
    """
    n_way = stream.episode.n_way
    tasks = stream.batch(0, TASKS)
    support, query = tasks.support, tasks.query
    grey = support.x.dim() == 5 and support.x.shape[2] == 1 and support.x[0, 0].numel() <= MAX_IMAGES
    if not grey or stream.objective.kind != "acc":
        return None
    *_, adapted = algorithm.predictors(task_loss, slow, support, steps, carry)
    shown = _first_of_class(query.x, query.y, n_way)
    given = _first_of_class(support.x, support.y, n_way)

    def pictures(x: Tensor, places: Tensor) -> Any:
        return (x[:, places, 0] * 255).round().to(torch.uint8).cpu().numpy()

    def answers(outputs: Tensor) -> Any:
        return outputs.argmax(dim=-1)[:, shown].cpu().numpy().astype(np.uint16)

    return ExampleTasks(
        support=pictures(support.x, given),
        query=pictures(query.x, shown),
        plain=answers(answers_alone(adapted, tasks)),
        transductive=answers(answers_together(adapted, tasks)),
    )
