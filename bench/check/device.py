"""Whether a GPU's host would wait, found on a CPU; and a plugin's meta-step really captured where there is a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from bench.api import SPLITS, Episode, MetaAlgorithm
from bench.check.verdicts import Broken
from bench.network.build import build
from bench.settings.config import RunConfig
from bench.tasks.images import ImageSet
from bench.tasks.stream import TaskStream
from bench.training.capture import CannotCapture, CudaRecorder, capture
from bench.training.metastep import MetaStep

Call = Callable[..., Any]


class HostSync(Exception):
    """An operation that a device cannot do by itself; ``remedy`` says what to write instead."""

    def __init__(self, found: str, remedy: str = "") -> None:
        super().__init__(found)
        self.remedy = remedy or (
            "keep it a tensor (torch.where in place of if, a mask in place of x[mask]; the number of classes is"
            " examples.n_way); as it is, every meta-step on a GPU runs line by line, several times slower"
        )


_METHODS: dict[Call, str] = {
    getattr(Tensor, name): text
    for name, text in {
        "item": ".item()",
        "tolist": ".tolist()",
        "numpy": ".numpy()",
        "cpu": ".cpu()",
        "__array__": "a conversion to numpy",
        "__bool__": "a tensor in if, while, and, or, not",
        "__int__": "int(tensor)",
        "__float__": "float(tensor)",
        "__index__": "a tensor as a Python index or in range()",
        "__format__": "a tensor in a formatted string",
        "__repr__": "a tensor in print() or a string",
    }.items()
}
_MAKERS: tuple[Call, ...] = (torch.arange, torch.empty, torch.eye, torch.full, torch.linspace, torch.ones, torch.zeros)
_OPERATIONS = {
    "_local_scalar_dense": "a tensor's value as a Python number",
    "nonzero": "nonzero(), whose result has a size that depends on values",
    "masked_select": "masked_select(), whose result has a size that depends on values",
    "unique_dim": "unique(), whose result has a size that depends on values",
    "_unique2": "unique(), whose result has a size that depends on values",
    "equal": "torch.equal()",
}


_ONE_HOT = "write one_hot(y, examples.n_way)"
_MADE = "make it where the others are: w.new_zeros(shape), w.new_full(shape, value), torch.arange(n, device=y.device)"


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Raise HostSync in this context where the host would wait for the device."""
    with _Methods(), _Operations():
        yield


class _Methods(TorchFunctionMode):
    """Sees what is written in Python; some of it, ``.tolist()`` say, is no operation of torch's on a CPU."""

    def __torch_function__(
        self, func: Call, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _METHODS:
            raise HostSync(_METHODS[func])
        if func is Tensor.to and "cpu" in (*(a for a in args[1:] if isinstance(a, str)), kwargs.get("device")):
            raise HostSync('.to("cpu")')
        if func is torch.tensor and args and isinstance(args[0], list | tuple):
            raise HostSync("torch.tensor([...]), a copy from the host", _MADE)
        if func is F.one_hot:
            if (args[1:] or (kwargs.get("num_classes", -1),))[0] == -1:
                raise HostSync("one_hot(y) without a number of classes, which it reads from y", _ONE_HOT)
            with _disable_current_modes():  # looks at the values on a CPU only
                return func(*args, **kwargs)
        made = func(*args, **kwargs)
        if func in _MAKERS and kwargs.get("device") is None and made.dim() and made.numel():
            raise HostSync(f"torch.{func.__name__}(...) without a device, which makes a tensor on the CPU", _MADE)
        return made


class _Operations(TorchDispatchMode):
    """Sees every operation, whoever asked for it."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in _OPERATIONS:
            raise HostSync(_OPERATIONS[name])
        if name == "index" and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            raise HostSync("x[mask], whose result has a size that depends on values")
        return func(*args, **(kwargs or {}))


def noise(n_classes: int = 20, per_class: int = 6, size: int = 28) -> ImageSet:
    """Return a data set of random pixels, ``n_classes`` in every split."""
    rng = torch.Generator().manual_seed(0)
    count = len(SPLITS) * n_classes
    images = torch.randint(0, 256, (count, per_class, size, size), generator=rng, dtype=torch.uint8)
    splits = {split: tuple(range(i * n_classes, (i + 1) * n_classes)) for i, split in enumerate(SPLITS)}
    return ImageSet("noise", images, tuple(map(str, range(count))), splits, "random pixels", "none")


def meta_step(name: str, algorithm: MetaAlgorithm, device: torch.device) -> MetaStep:
    """Return a small meta-step of the algorithm called ``name``, as a run would build it on a GPU."""
    config = RunConfig(
        algo=name, dataset="noise", n_way=5, k_shot=1, k_query=2, meta_steps=4, meta_batch=4, device=device.type,
        backbone_options={"filters": 16},
    )  # fmt: skip
    source = noise()
    task_loss, slow = build(config, algorithm, source, device)
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
