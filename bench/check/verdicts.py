"""A check, what it found, and how many of them are asked in order."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Generic, Protocol, TypeVar


class Status(StrEnum):
    """How a check came out; only FAILED counts as a failure."""

    OK = "ok"
    WARNING = "warning"
    SKIPPED = "skipped"
    FAILED = "FAILED"


class Broken(Exception):
    """A plugin breaks its contract; ``remedy`` says what to do."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.remedy = remedy


class Caution(Broken):
    """Nothing is wrong, but something is worth a look."""


class NotAsked(Exception):
    """The check does not apply here; the message says why."""


class Subject(Protocol):
    """A plugin under the checks."""

    @property
    def name(self) -> str:
        """Return what it is registered as."""

    @property
    def cls(self) -> type:
        """Return its class."""


S = TypeVar("S", bound=Subject)


@dataclass(frozen=True)
class Check(Generic[S]):
    """One question; ``run`` returns what it found in a few words, or raises one of the above.

    ``needs`` names checks without whose success the answer would mean nothing.
    """

    name: str
    asks: str
    run: Callable[[S], str]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """How one check came out, in words."""

    check: str
    status: Status
    found: str
    remedy: str = ""


_TYPE = (
    "make tensors in the type of others, which is not always float32: .to(x.dtype) in place of .float(),"
    " w.new_zeros(...) in place of torch.zeros(...)"
)
_REMEDIES = {
    "appears to not have been used in the graph": "add materialize_grads=True to that torch.autograd.grad: it gives"
    " zeros for weights without influence on the loss, such as a bias in front of BatchNorm",
    "does not require grad and does not have a grad_fn": "differentiate what leads back to weights that require a"
    " gradient: begin with w.detach().requires_grad_(), and detach nothing on the way to the loss",
    "One of the differentiated Tensors does not require grad": "differentiate with respect to weights that require a"
    " gradient: begin with slow = {name: w.detach().requires_grad_() for name, w in slow.items()}, and pass it on",
    "backward through the graph a second time": "take all gradients of one loss in one torch.autograd.grad, or give the"
    " first retain_graph=True; in an inner step that the meta-gradient leads through, create_graph=True",
    "must match the size of tensor": "keep the task axis in front: everything in fast is [T, ...], extra weights too; a"
    " rate [T] fits a gradient g [T, ...] as rate.view(-1, *[1] * (g.dim() - 1))",
    "expected scalar type": _TYPE,
    "have the same dtype": _TYPE,
    "tuple index out of range": "give task_loss weights with the task axis in front, [T, ...]: those of the inner loop,"
    " or bench.api.stack(slow, examples.n_tasks)",
    "can be implicitly created only for scalar": "differentiate loss.sum(): a task's loss depends on its own weights"
    " only, so this is each task's own gradient",
    "Expected target size": "F.cross_entropy wants the classes second: F.cross_entropy(scores.transpose(1, 2), y,"
    ' reduction="none").mean(dim=1) is one loss per task',
    "'function' object is not iterable": "let predictors yield: yield predictor in place of return predictor",
    "has no attribute 'minibatches'": "pass on the examples, tasks.support, and not their x",
    "is out of bounds for dimension": "look which index is too large; where step is an index, expect more steps at test"
    " than inner_steps: min(step, self.inner_steps - 1) lets the last one go on",
    "modified by an inplace operation": "write new values out of place, w = w - step for w -= step",
}
"""What to do about errors of torch that plugins meet most, by words of theirs."""


def ask(check: Check[S], subject: S) -> Verdict:
    """Return the verdict of one check, whatever the plugin raises."""
    try:
        return Verdict(check.name, Status.OK, check.run(subject))
    except NotAsked as reason:
        return Verdict(check.name, Status.SKIPPED, str(reason))
    except Broken as problem:
        status = Status.WARNING if isinstance(problem, Caution) else Status.FAILED
        return Verdict(check.name, status, str(problem), problem.remedy)
    except Exception as error:  # a plugin may raise anything
        text = " ".join(f"{type(error).__name__}: {error}".split())
        known = (remedy for words, remedy in _REMEDIES.items() if words in text)
        remedy = next(known, "mend that line; docs/guides/algorithm.md has the arguments and shapes of every method")
        return Verdict(check.name, Status.FAILED, f"raised {text[:300]} ({where(error, subject.cls)})", remedy)


def ask_all(checks: Sequence[Check[S]], subject: S) -> Iterator[Verdict]:
    """Yield the verdict of each check, those left out whose ground another has taken away."""
    passed: set[str] = set()
    told: dict[str, str] = {}
    for check in checks:
        if missing := [name for name in check.needs if name not in passed]:
            yield Verdict(check.name, Status.SKIPPED, f"means nothing until {missing[0]!r} is ok")
            continue
        verdict = ask(check, subject)
        if verdict.status in (Status.OK, Status.WARNING):
            passed.add(check.name)
        elif verdict.status == Status.FAILED and (first := told.setdefault(verdict.found, check.name)) != check.name:
            verdict = replace(verdict, found=f"the same as {first!r}", remedy="see there")
        yield verdict


def where(error: BaseException, cls: type) -> str:
    """Return the line of the plugin's own file that led to ``error``, of any other file if it has no part in it."""
    frames = traceback.extract_tb(error.__traceback__)
    files = {getattr(sys.modules.get(c.__module__), "__file__", None) for c in cls.__mro__}
    own = [frame for frame in frames if frame.filename in files] or list(frames)
    frame = own[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}: {frame.line}"
