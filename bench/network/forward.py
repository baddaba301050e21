"""A network's own forward under weights that are not its own: for all tasks at once by vmap, or task by task."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from bench.api import Weights


class OwnForward:
    """Maps stacked weights and inputs to the outputs of ``network``'s own forward.

    Weights that are not given stay as they are, and what forward does to buffers is forgotten: each call begins with
    the network's. Kernels that torch cannot differentiate twice are switched off inside, those of attention and of
    recurrent layers.

    Args:
        together: for all tasks at once, by ``torch.func.vmap``; else one after the other.
        strays: parameters by name that layers may also keep in lists of their own; None if they do not.
    """

    def __init__(self, network: nn.Module, together: bool, strays: Mapping[str, nn.Parameter] | None = None) -> None:
        self.network, self.together = network, together
        self._kept: Mapping[str, Any] | None = strays  # alive, or another tensor might get the place of one in memory
        self._names = {id(p): name for name, p in (*(strays or {}).items(), *network.named_parameters())}

    def __call__(self, weights: Weights, x: Tensor) -> Tensor:
        """Return outputs ``[T, n, O]`` of inputs ``[T, n, ...]`` under ``weights``, each ``[T, ...]``."""
        buffers = {name: b.expand(len(x), *b.shape).clone() for name, b in self.network.named_buffers()}
        with twice_differentiable(self.network):
            if self.together:
                y: Tensor = vmap(self._one)(dict(weights), buffers, x)
                return y
            own = [{name: w[task] for name, w in (*weights.items(), *buffers.items())} for task in range(len(x))]
            return torch.stack([self._one(w, {}, x_of) for w, x_of in zip(own, x)])

    def _one(self, weights: Weights, buffers: Weights, x: Tensor) -> Tensor:
        given = {**weights, **buffers}
        if self._kept is None:
            return functional_call(self.network, given, (x,))
        with _Replacing({place: given[name] for place, name in self._names.items() if name in given}):
            return functional_call(self.network, given, (x,))


class _Replacing(TorchFunctionMode):
    """Hands other tensors to every operation that is given one of some parameters, by their places in memory."""

    def __init__(self, others: Mapping[int, Tensor]) -> None:
        super().__init__()
        self._others = others

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return func(*self._replaced(args), **self._replaced(dict(kwargs or {})))

    def _replaced(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._others.get(id(value), value)
        if type(value) in (tuple, list):
            return type(value)(self._replaced(item) for item in value)
        if type(value) is dict:
            return {name: self._replaced(item) for name, item in value.items()}
        return value


@contextlib.contextmanager
def twice_differentiable(network: nn.Module) -> Iterator[None]:
    """Keep torch to kernels that have a second derivative, and that vmap knows, while ``network`` runs."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in network.modules())
    backends: list[Any] = [torch.backends.mkldnn, torch.backends.cudnn] if recurrent else []
    before = [backend.enabled for backend in backends]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        for backend in backends:
            backend.enabled = False
        with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # vmap's, which loops over tasks there
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for backend, was in zip(backends, before):
            backend.enabled = was
