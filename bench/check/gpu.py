"""A plugin's meta-step, really captured in a CUDA graph."""

from __future__ import annotations

import torch

from bench.api import Episode, MetaAlgorithm
from bench.check.verdicts import Broken
from bench.network.build import build
from bench.settings.config import RunConfig
from bench.tasks.images import ImageSet
from bench.tasks.stream import TaskStream
from bench.training.capture import CannotCapture, CudaRecorder, capture
from bench.training.metastep import MetaStep


def noise(n_classes: int = 20, per_class: int = 6, size: int = 28) -> ImageSet:
    """Return a data set of random pixels, all of it in every split."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n_classes, per_class, size, size), generator=rng, dtype=torch.uint8)
    splits = dict.fromkeys(("meta_train", "meta_val", "meta_test"), tuple(range(n_classes)))
    return ImageSet("noise", images, tuple(map(str, range(n_classes))), splits, "random pixels", "none")


def meta_step(name: str, algorithm: MetaAlgorithm, device: torch.device) -> MetaStep:
    """Return a small meta-step of the algorithm called ``name``, as a run would build it on a GPU."""
    config = RunConfig(
        algo=name, dataset="noise", n_way=5, k_shot=1, k_query=2, meta_steps=4, meta_batch=4, device=device.type,
        backbone_options={"filters": 16},
    )  # fmt: skip
    source = noise()
    task_loss, slow = build(config, algorithm, source.shape, device, objective=source.objective)
    pool = source.pool("meta_train", config.train_rotation, device)
    stream = TaskStream(pool, Episode(config.n_way, config.k_shot, config.k_query), config.seed)
    return MetaStep(config, algorithm, task_loss, slow, algorithm.initial_carry(slow), stream, 4, device.type == "cuda")


def capture_on_gpu(name: str, algorithm: MetaAlgorithm) -> None:
    """Capture a meta-step of the algorithm called ``name``.

    Raises:
        Broken: it cannot be captured; with torch's reason.
    """
    device = torch.device("cuda")
    try:
        capture(meta_step(name, algorithm, device), CudaRecorder(device))
    except CannotCapture as reason:
        raise Broken(
            f"the meta-step cannot be captured: {reason}",
            "read no value back to the host (.item(), if tensor, x[mask]), draw no random numbers and copy nothing"
            " from the host in meta_grad; as it is, every meta-step runs line by line, several times slower",
        ) from reason
