"""By which way a network is run: the fastest that gives what its own forward gives, two derivatives deep."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import replace_all_batch_norm_modules_

from bench.network.forward import twice_differentiable
from bench.network.model import LOOP, OWN, STACKED, Classifier, Way
from bench.network.stacked import Form, TasksInside
from bench.registry import said
from bench.system.console import one_line
from bench.system.waiting import one_thread

TASKS, EXAMPLES = 2, 4
ROUNDING, ROUNDING_32 = 1e-9, 1e-3  # of float64 and of float32, relative


@dataclass(frozen=True)
class Answer:
    """What a network gives under T sets of weights: outputs, and two derivatives of a number made of them.

    The second is that of the first's product with a direction; ``once`` says why there is none.
    """

    outputs: Tensor
    first: dict[str, Tensor]
    second: dict[str, Tensor]
    once: str = ""


def choose_way(make: Callable[[], nn.Module], shape: tuple[int, ...], form: type[Form] = TasksInside) -> Way:
    """Return by which way to run the networks that ``make`` returns, all of the same initial weights.

    Each way is held against the module itself: with the weights of two tasks loaded into it, one after the other, and
    differentiated by torch, in float64; in float32 if forward() takes nothing else.

    Args:
        shape: of one input.
        form: how the stacked way is to hold images.
    Raises:
        NoWay: the module is no function of its weights and inputs, or no way gives what it gives.
    """
    with torch.random.fork_rng(devices=[]), one_thread():  # whatever forward() draws
        try:
            with _numbers_in(torch.float64):
                return _choose(make, shape, form, ROUNDING)
        except (RuntimeError, TypeError):  # a forward() that knows float32 alone
            return _choose(make, shape, form, ROUNDING_32)


@contextlib.contextmanager
def _numbers_in(dtype: torch.dtype) -> Iterator[None]:
    """Have tensors that forward() makes in this type, as it would in its own."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _choose(make: Callable[[], nn.Module], shape: tuple[int, ...], form: type[Form], rounding: float) -> Way:
    module = _ready(make())
    inputs = _inputs(module, shape)
    truth = _of_the_module(module, make, *inputs)
    reason = ""
    for way in (Way(STACKED), Way(OWN), Way(OWN, strays=True), Way(LOOP), Way(LOOP, strays=True)):
        try:
            network = Classifier(make().to(torch.get_default_dtype()), form=form, way=way)
            if way.name == STACKED and network.stages is None:
                continue
            answer = _of_the_way(network, *inputs)
        except Exception as error:  # somebody's forward() may raise anything
            reason = reason or _short(error)
            continue
        if not (difference := _difference(answer, truth, rounding)):
            return Way(way.name, way.strays, reason if way.name == LOOP else "", truth.once)
        reason = reason or difference
    raise NoWay(f"no way to run it under several sets of weights gives what its own forward gives: {reason}")


class NoWay(Exception):
    """A network that cannot be run under several sets of weights."""


def _ready(module: nn.Module) -> nn.Module:
    """Return it as the harness runs it, in the type of the moment."""
    replace_all_batch_norm_modules_(module)
    return module.to(torch.get_default_dtype()).eval()


def _inputs(module: nn.Module, shape: tuple[int, ...]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Return weights ``[T, ...]`` near the initial ones, inputs, and numbers to make directions of."""
    rng = torch.Generator().manual_seed(0)

    def noise(*size: int) -> Tensor:
        return torch.randn(*size, generator=rng)

    weights = {
        name: p.detach() + 0.01 * (1 + p.detach().abs()) * noise(TASKS, *p.shape)
        for name, p in module.named_parameters()
        if p.requires_grad
    }
    if not any("/" not in name for name in weights):
        raise NoWay("it has no parameter that learns: all are frozen, or none is registered")
    return weights, torch.rand(TASKS, EXAMPLES, *shape, generator=rng), noise(997)


def _of_the_module(
    module: nn.Module, make: Callable[[], nn.Module], weights: dict[str, Tensor], x: Tensor, numbers: Tensor
) -> Answer:
    """Return what the module itself gives, one task after the other."""
    own = {name: p for name, p in module.named_parameters() if name in weights}
    buffers = {name: b.clone() for name, b in module.named_buffers()}
    answers = []
    for task in range(TASKS):
        fresh = _ready(make())  # has seen no other task
        with torch.no_grad():
            for network in (module, fresh):
                for name, p in network.named_parameters():
                    if name in weights:
                        p.copy_(weights[name][task])
            for name, b in module.named_buffers():
                b.copy_(buffers[name])
            state = torch.get_rng_state()
            first, again, anew = module(x[task]), module(x[task]), fresh(x[task])
            if not isinstance(first, Tensor):
                raise NoWay(f"forward() returns a {type(first).__name__}; it must return a tensor")
            if not (torch.equal(first, again) and torch.equal(first, anew)) or not state.equal(torch.get_rng_state()):
                raise NoWay(
                    "the same inputs give other outputs when it is called again: forward() draws random numbers"
                    " (F.dropout without training=self.training does) or keeps something from call to call"
                )
        with twice_differentiable(module):
            outputs = module(x[task])
        answers.append(_answer(outputs, own, numbers))
    first, second = ({n: torch.stack([getattr(a, of)[n] for a in answers]) for n in own} for of in ("first", "second"))
    return Answer(torch.stack([a.outputs for a in answers]), first, second, answers[0].once)


def _of_the_way(network: Classifier, weights: dict[str, Tensor], x: Tensor, numbers: Tensor) -> Answer:
    fast = {name: w.clone().requires_grad_() for name, w in weights.items()}
    return _answer(network.outputs(fast, x), fast, numbers, tasks=TASKS)


def _answer(outputs: Tensor, leaves: Mapping[str, Tensor], numbers: Tensor, tasks: int = 1) -> Answer:
    """Differentiate a curved number made of outputs, each task's of the same numbers, twice."""
    shape = outputs.shape if tasks == 1 else outputs.shape[1:]
    number = (outputs.tanh() * _cycled(numbers, shape)).sum()
    try:
        first = torch.autograd.grad(number, list(leaves.values()), create_graph=True, materialize_grads=True)
    except RuntimeError as error:
        raise NoWay(f"torch cannot differentiate it: {_short(error)}") from error
    second, once = [torch.zeros_like(w) for w in leaves.values()], ""
    along = sum((g * _cycled(numbers, g.shape if tasks == 1 else g.shape[1:])).sum() for g in first if g.requires_grad)
    if isinstance(along, Tensor):
        try:
            second = list(torch.autograd.grad(along, list(leaves.values()), materialize_grads=True))
        except RuntimeError as error:
            once = _short(error)
    firsts, seconds = ({n: g.detach() for n, g in zip(leaves, found)} for found in (first, second))
    return Answer(outputs.detach(), firsts, seconds, once)


def _cycled(numbers: Tensor, shape: torch.Size) -> Tensor:
    return numbers[torch.arange(shape.numel()) % len(numbers)].view(shape)


def _difference(answer: Answer, truth: Answer, rounding: float) -> str:
    """Say where an answer is not the truth, nothing where it is."""
    if answer.outputs.shape != truth.outputs.shape or not _near(answer.outputs, truth.outputs, rounding):
        return "all tasks at once give other outputs than its own forward"
    if answer.once and not truth.once:
        return answer.once
    for which, found, true in (("first", answer.first, truth.first), ("second", answer.second, truth.second)):
        if which == "second" and truth.once:
            break
        total = torch.cat([g.flatten() for g in true.values()]).norm()
        if off := [n for n, g in true.items() if not _near(found[n], g, rounding, 1e-3 * total)]:
            return f"all tasks at once give another {which} derivative than its own forward, of {off[0]}"
    return ""


def _short(error: Exception) -> str:
    return one_line(said(error))[:200]


def _near(got: Tensor, true: Tensor, rounding: float, beside: Tensor | float = 0.0) -> bool:
    """Compare two tensors, the rounding that is let through being that of ``true`` or of what stands beside it."""
    if not true.isfinite().all():
        return bool((got.isfinite() == true.isfinite()).all())
    return bool((got - true).norm() <= rounding * (true.norm() + beside))
