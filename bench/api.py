"""The contract between the harness and its plugins: tasks in, meta-gradients and predictors out.

More than 300 lines on purpose: who writes a plugin reads all of the contract in one file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

Weights = Mapping[str, Tensor]
"""Tensors by parameter name: ``[...]`` when slow (shared), ``[T, ...]`` when fast (one copy per task)."""

Predictor = Callable[[Tensor], Tensor]
"""Maps inputs ``[T, n, ...]`` to outputs ``[T, n, O]``: what an algorithm made of T support sets.

O is n_way for images, of which these are scores, and 1 for a regression.
"""

Bits = Callable[[int, int], Tensor]
"""Maps (purpose, n) to 32 random bits each, int64 ``[T, n]``, a pure function of the stream and the task's number.

A data set has the purposes 0, 1 and 2 to itself; rows of different purpose are independent.
"""

SPLITS = ("meta_train", "meta_val", "meta_test")


class BenchError(Exception):
    """Something the user can put right; its message is the one line that the user is shown."""


class DataError(BenchError):
    """A data set is there but damaged, truncated or incomplete; the message names the file."""


class DataMissing(DataError):
    """A data set is not there and could not be fetched."""


class TaskLoss(Protocol):
    """The network over stacked weights, with the loss that the data set brings (``Objective``)."""

    def __call__(self, fast: Weights, examples: Examples) -> Tensor:
        """Return one mean loss per task, ``[T]``; keys of ``fast`` that the network lacks are ignored."""

    def of_outputs(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of each task ``[T]`` of outputs ``[T, n, O]`` for ``y [T, n]``, whoever made them."""

    def moving(self, examples: Examples, names: Collection[str]) -> Callable[[Weights], Tensor]:
        """Return the mean loss ``[T]`` of ``examples`` as a function of fast weights of which only ``names`` move.

        What none of these decides is computed once, where the layers of the network are known. A task loss of your own
        can do without it.
        """

    def outputs(self, fast: Weights, x: Tensor) -> Tensor:
        """Map inputs ``[T, n, ...]`` (images: ``[T, n, C, H, W]``) to the network's outputs ``[T, n, output_size]``."""

    def outputs_alone(self, fast: Weights, support: Tensor, queries: Tensor) -> Tensor:
        """Return ``outputs`` of each query input ``[T, q, ...]`` in a batch of its own with the support inputs."""


def _in_given_order(passes: int, n: int) -> Tensor:
    return torch.arange(n).expand(1, passes, n)


@dataclass(frozen=True)
class Examples:
    """Examples of T tasks: ``x [T, n, ...]`` and ``y [T, n]``.

    Of images ``x [T, n, C, H, W]`` is in [0, 1] and ``y`` in 0..n_way-1; of a regression ``y`` are the targets and
    ``n_way`` is 1. The harness always says ``n_way``; 0 is what who makes examples by hand did not say.
    ``orders`` maps (passes, n) to that many permutations of the n examples per task, ``[T, passes, n]``. It belongs to
    the task, not to the algorithm, so that everybody who wants minibatches gets the same ones. ``classes [T, n_way]``
    numbers the class behind each label among all classes of the split; None where the data has none.
    """

    x: Tensor
    y: Tensor
    orders: Callable[[int, int], Tensor] = _in_given_order
    n_way: int = 0
    classes: Tensor | None = None

    @property
    def n_tasks(self) -> int:
        """Return T, the number of tasks."""
        return self.x.shape[0]

    def minibatches(self, size: int | None, steps: int, replacement: bool = False) -> Iterator[Examples]:
        """Yield ``steps`` minibatches of ``size`` examples, cycling without replacement, reshuffled at every pass.

        A batch may span two passes, as in the official Reptile code. With ``replacement`` every batch is drawn from
        all examples anew: it takes the beginning of a shuffle of its own, so that no example is in it twice, as in
        that code too. With ``size`` None, or no smaller than the number of examples, every batch holds all of them.
        """
        n = self.y.shape[1]
        if size is None or size >= n or steps == 0:
            for _ in range(steps):
                yield self
            return
        passes = steps if replacement else -(-size * steps // n)
        order = self.orders(passes, n).to(self.x.device)
        order = order[..., :size].flatten(1) if replacement else order.flatten(1)[:, : size * steps]  # [T, steps*size]
        order = order.expand(self.n_tasks, -1)
        task = torch.arange(self.n_tasks, device=self.x.device)[:, None]
        x, y = self.x[task, order], self.y[task, order]
        for step in range(steps):
            part = slice(step * size, (step + 1) * size)
            yield Examples(x[:, part], y[:, part], n_way=self.n_way, classes=self.classes)


_BEGIN = torch.zeros(())


@dataclass(frozen=True)
class TaskBatch:
    """T tasks: ``support`` with N*K examples each, ``query`` with N*Q, in training no example in both.

    ``carry`` is what the algorithm's last ``MetaGrad.carry`` held (empty unless it uses ``initial_carry``).
    ``progress []`` is the share of the run's meta-steps that is done, from 0 to below 1, for what is annealed, and
    ``phase`` what the algorithm's own ``phase`` says of it.
    """

    support: Examples
    query: Examples
    carry: Weights = field(default_factory=dict)
    progress: Tensor = _BEGIN
    phase: int = 0

    def together(self) -> Examples:
        """Return support and query as one set of N*(K+Q) examples, as Reptile trains on them."""
        s, q = self.support, self.query
        return Examples(torch.cat([s.x, q.x], dim=1), torch.cat([s.y, q.y], dim=1), s.orders, s.n_way, s.classes)


@dataclass(frozen=True)
class MetaGrad:
    """What one meta-step returns, every tensor detached.

    ``grads`` is named and shaped like the slow weights and averaged over tasks; ``query_loss [T]`` is each task's loss;
    ``carry`` is handed to the next meta-step and, like the gradients, a mean over tasks.
    """

    grads: Weights
    query_loss: Tensor
    carry: Weights = field(default_factory=dict)


@dataclass(frozen=True)
class InnerState:
    """Where the inner loop stands: stacked weights and carry, each ``[T, ...]``, and the loss ``[T]`` that led here.

    The loss is None before the first step. A gradient leads from ``fast`` to itself, and back to the slow weights
    where these require gradients. On a GPU ``fast`` may be views of one buffer that the next step takes whole, so that
    later weights lead back to the slow ones past it: differentiate by slow weights, not by those on the way.
    """

    fast: Weights
    carry: Weights
    loss: Tensor | None = None


def last(states: Iterator[InnerState]) -> InnerState:
    """Return the last of ``states``, holding one at a time, so that memory does not grow with their number."""
    return deque(states, maxlen=1).pop()


def _moving(task_loss: TaskLoss, examples: Examples, names: Collection[str]) -> Callable[[Weights], Tensor]:
    """Return ``task_loss.moving``, or what serves where a plugin has put a loss of its own around it."""
    if hasattr(task_loss, "moving"):
        return task_loss.moving(examples, names)
    return lambda fast: task_loss(fast, examples)


def stack(slow: Weights, n_tasks: int) -> dict[str, Tensor]:
    """Copy slow weights ``[...]`` to fast weights ``[T, ...]``; gradients flow back if ``slow`` requires them."""
    return {name: w.expand(n_tasks, *w.shape).clone() for name, w in slow.items()}


def _zeros_like(weights: Weights) -> dict[str, Tensor]:
    """Return zeros for each of ``weights``, all made at once."""
    if not weights:
        return {}
    sizes = [w.numel() for w in weights.values()]
    parts = next(iter(weights.values())).new_zeros(sum(sizes)).split(sizes)
    return {name: part.view(w.shape).to(w) for (name, w), part in zip(weights.items(), parts)}


class Recall:
    """What the costly products of one pass through a network give, so that the same pass again need not make them.

    Only layers over stacked weights ask for it (``bench.network.stacked``). Products are told apart by their order and
    the shapes of their factors.
    """

    WORTH: ClassVar[int] = 64
    """How many multiplications a number must take to be kept: a first layer on images is large and quickly made."""
    _active: ClassVar[Recall | None] = None

    def __init__(self) -> None:
        self._slots: list[Slot] = []
        self._next: int | None = None  # while a pass is under way again

    @classmethod
    def slot(cls, length: int, *factors: Tensor) -> Slot | None:
        """Return where the product of these factors lies, or is to; None for nowhere.

        Args:
            length: how many multiplications a number of it takes.
        """
        active = cls._active
        if active is None or length < cls.WORTH:
            return None
        shapes = tuple(factor.shape for factor in factors)
        if active._next is None:
            active._slots.append(Slot(shapes))
            return active._slots[-1]
        active._next += 1
        found = active._slots[active._next - 1] if active._next <= len(active._slots) else None
        if found is None or found.shapes != shapes:
            active._next = len(active._slots) + 1  # another pass: this one is taken for nothing
            return None
        return found

    def note(self, run: Callable[[], Any]) -> Any:
        """Return what ``run`` does, and keep the results of its products."""
        before, Recall._active = Recall._active, self
        try:
            return run()
        finally:
            Recall._active = before

    def follow(self, first: Recall) -> None:
        """Take from ``first`` the results of the layers that came before those of this pass, where these were not run.

        Such layers give the same at every step (``TaskLoss.moving``).
        """
        self._slots[:0] = first._slots[: max(0, len(first._slots) - len(self._slots))]

    def again(self, run: Callable[[], Any]) -> Any:
        """Return what ``run`` does with these results; it runs once more without where it asks for others."""
        if not self._slots:
            return run()
        self._next = 0
        result = self.note(run)
        return result if self._next == len(self._slots) else run()


@dataclass
class Slot:
    """Where a ``Recall`` keeps the product of factors of some shapes once it is made."""

    shapes: tuple[torch.Size, ...]
    result: Tensor | None = None


def in_order_of(w: Tensor, grad: Tensor) -> Tensor:
    """Return ``grad`` in the memory order of ``w``, in which torch's fused kernels take all their tensors to be."""
    return grad if grad.stride() == w.stride() else torch.empty_like(w).copy_(grad)


def shared(w: Tensor) -> bool:
    """Say whether stacked weights begin as one in memory; on a CPU bringing images in order cost what it saved."""
    return w.is_cuda


@dataclass(frozen=True)
class Adapted:
    """A network with fast weights as a predictor; plain evaluation shares what it can of the support set."""

    task_loss: TaskLoss
    fast: Weights

    def __call__(self, x: Tensor) -> Tensor:
        """Map inputs ``[T, n, ...]`` to outputs ``[T, n, n_way]``."""
        return self.task_loss.outputs(self.fast, x)

    def alone(self, support: Tensor, queries: Tensor) -> Tensor:
        """Return the outputs ``[T, q, n_way]`` of each query input in a batch of its own with the support inputs."""
        return self.task_loss.outputs_alone(self.fast, support, queries)


def searched(
    default: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    log: bool = False,
    choices: Sequence[Any] | None = None,
) -> Any:
    """Return the default of a hyperparameter with the range that ``--tune`` searches.

    ``inner_lr: float = searched(0.1, low=0.01, high=1.0, log=True)``; whether whole numbers are wanted follows from the
    type of ``low``. ``choices`` takes the place of a range. A hyperparameter without a range keeps its value.

    Raises:
        ValueError: neither a range nor choices, or both; a range that is empty, or not above 0 for ``log``.
    """
    if (choices is None) == (low is None or high is None):
        raise ValueError("searched takes low and high, or choices")
    space = Space(low, high, log, None if choices is None else tuple(choices))
    return field(default=default, metadata={SPACE: space})


SPACE = "search space"
"""Under which name the metadata of a dataclass's field holds its ``Space``."""


@dataclass(frozen=True)
class Space:
    """What values a hyperparameter may take in a search: from ``low`` to ``high``, or one of ``choices``."""

    low: float | None
    high: float | None
    log: bool
    choices: tuple[Any, ...] | None

    def __post_init__(self) -> None:
        """Refuse a range that holds nothing.

        Raises:
            ValueError: says what is wrong.
        """
        if self.choices is not None:
            if not self.choices:
                raise ValueError("choices () of a search; give at least one")
        elif self.low is None or self.high is None or not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"a search from {self.low} to {self.high}; low must be below high, and above 0 for log")

    def __str__(self) -> str:
        """Return the range in words."""
        if self.choices is not None:
            return " or ".join(map(str, self.choices))
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"


class MetaAlgorithm(ABC):
    """A frozen set of hyperparameters that estimates meta-gradients; subclasses are frozen dataclasses.

    Only ``meta_grad`` must be written. Algorithms that adapt by gradient steps declare the fields ``inner_lr`` and
    ``inner_steps`` and inherit ``adapt``; the remaining methods are for algorithms that depart from that.
    """

    inner_lr: float
    inner_steps: int
    inner_batch: int | None = None
    replacement: bool = False
    inner_optimizer: str = "sgd"

    paper: ClassVar[str] = ""
    """Where the algorithm comes from, shown by ``--list``."""
    by_default: ClassVar[bool] = True
    """Whether it takes part where ``--algos`` is left out; not what only a study is about."""
    learns: ClassVar[bool] = True
    """Whether meta-training changes anything; not of a baseline that begins anew in every task."""
    order: ClassVar[Literal["first", "second"] | None] = None
    """What it claims of ``MetaGrad.grads``, which ``python -m bench.check`` then holds it to.

    ``second``: the exact gradient of the mean ``query_loss`` with respect to the slow weights, through the inner loop;
    ``first``: something cheaper that leaves derivatives of the inner loop out; None: no claim.
    """
    run_defaults: ClassVar[Mapping[str, object]] = {}
    """RunConfig fields that this algorithm wants otherwise; protocols and flags override them."""

    @abstractmethod
    def meta_grad(self, task_loss: TaskLoss, slow: Weights, tasks: TaskBatch) -> MetaGrad:
        """Estimate the gradient of the mean query loss with respect to the slow weights.

        Args:
            task_loss: maps fast weights ``[T, ...]`` and examples to one mean loss per task, ``[T]``.
            slow: weights by name, each ``[...]``; never modified.
            tasks: support ``x [T, N*K, ...]``, ``y [T, N*K]``; query alike with N*Q.
        Returns:
            Gradients named and shaped like ``slow``, averaged over T so that meta_lr does not depend on meta_batch,
            and the detached query losses ``[T]``.
        """

    def phase(self, progress: float) -> int:
        """Return which form of meta-step is due when that share of the meta-steps is done, told as ``TaskBatch.phase``.

        For what is on in a part of the run alone: a step that is captured is captured anew where this changes.
        """
        return 0

    # The inner loop, shared by training and evaluation.

    def adapt(self, task_loss: TaskLoss, slow: Weights, support: Examples, carry: Weights | None = None) -> Weights:
        """Return fast weights ``[T, ...]`` after ``inner_steps`` steps on the support set of every task."""
        return last(self.adaptation(task_loss, slow, support, self.inner_steps, carry)).fast

    def adaptation(
        self, task_loss: TaskLoss, slow: Weights, support: Examples, steps: int, carry: Weights | None = None
    ) -> Iterator[InnerState]:
        """Yield where the inner loop stands before its first step and after each of ``steps``."""
        batches = support.minibatches(self.inner_batch, steps, self.replacement)
        return self.descent(task_loss, slow, batches, support.n_tasks, carry)

    def descent(
        self, task_loss: TaskLoss, slow: Weights, batches: Iterable[Examples], n_tasks: int, carry: Weights | None
    ) -> Iterator[InnerState]:
        """Yield where the inner loop stands before its first step and after one on each of ``batches``.

        What no weight of ``adapted`` decides is computed once where a batch comes again.
        """
        begun = {**self.initial_state(slow), **(carry or self.initial_carry(slow))}
        state = InnerState(self.start(slow, n_tasks), stack(begun, n_tasks))
        tracked = any(not w.is_leaf for w in state.fast.values())
        yield state
        names, known = self.adapted(state.fast), None
        for step, batch in enumerate(batches):
            if batch is not known:
                known, loss_of = batch, _moving(task_loss, batch, names)
            loss = loss_of(state.fast)
            fast, carried = self.inner_step(loss, state.fast, state.carry, step)
            if not tracked:  # whatever graph a rule leaves, or memory would grow with every step
                fast = {name: w.detach().requires_grad_() for name, w in fast.items()}
                carried = {name: c.detach() for name, c in carried.items()}
            if not fast.keys() <= set(names):  # a rule that moves more than it said
                names, known = [*names, *fast], None
            state = InnerState({**state.fast, **fast}, carried, loss.detach())
            yield state

    def start(self, slow: Weights, n_tasks: int) -> Weights:
        """Return the stacked weights ``[T, ...]`` that the inner loop begins with.

        A graph leads back to ``slow`` where it requires gradients; otherwise these are leaves, and so they are after
        every step. They are not to be written to: on a GPU all tasks begin with the very same ones in memory, so that
        a layer can tell that it may take one product for all of them.
        """
        fast = {name: w.expand(n_tasks, *w.shape) if shared(w) else w for name, w in slow.items()}
        fast |= stack({name: w for name, w in slow.items() if not shared(w)}, n_tasks)
        tracked = any(w.requires_grad for w in slow.values())
        return fast if tracked else {name: w.detach().requires_grad_() for name, w in fast.items()}

    def adapted(self, slow: Weights) -> list[str]:
        """Name the weights that the inner loop changes; unless overridden, all but those with a slash in their names.

        These are an algorithm's extra weights and what a network learns in the outer loop alone.
        """
        return [name for name in slow if "/" not in name]

    def inner_step(self, loss: Tensor, fast: Weights, carry: Weights, step: int) -> tuple[Weights, Weights]:
        """Return the adapted weights one step after ``loss [T]``, and the carry; this rule is gradient descent.

        ``step`` counts from 0. At test it passes ``inner_steps`` where more steps are asked for (up to 50).
        """
        return {n: fast[n] - self.inner_lr * g for n, g in self.inner_grads(loss, fast).items()}, carry

    def initial_state(self, slow: Weights) -> Weights:
        """Return what ``inner_step`` carries from step to step (a momentum, say), each ``[...]``, at the first one.

        Every task begins with it anew; what passes from task to task is ``initial_carry``.
        """
        return {}

    def inner_grads(self, loss: Tensor, fast: Weights) -> dict[str, Tensor]:
        """Return each task's gradient of its ``loss [T]``, ``[T, ...]``, by the names of the weights that adapt.

        It can be differentiated again where ``fast`` leads back to slow weights.
        """
        names = self.adapted(fast)
        weights = [fast[name] for name in names]
        tracked = not all(w.is_leaf for w in weights)
        each = torch.ones_like(loss)
        found = torch.autograd.grad(loss, weights, each, create_graph=tracked, allow_unused=True)
        grads = dict(zip(names, found))
        idle = {name: fast[name] for name, g in grads.items() if g is None}  # biases in front of a normalisation, say
        return {**grads, **_zeros_like(idle)}

    # What evaluation asks for.

    def predictors(
        self, task_loss: TaskLoss, slow: Weights, support: Examples, steps: int | None, carry: Weights
    ) -> Iterator[Predictor]:
        """Yield a predictor for T support sets before adaptation and after each of ``steps`` (None: inner_steps).

        An algorithm that does not adapt by gradient overrides this and yields its one predictor.
        """
        steps = self.inner_steps if steps is None else steps
        for state in self.adaptation(task_loss, slow, support, steps, carry):
            yield Adapted(task_loss, state.fast)

    # State beyond the network's weights.

    def output_size(self, n_way: int) -> int:
        """Return how many outputs the network must have; an embedding size for metric methods."""
        return n_way

    def extra_weights(self, network: Weights) -> Weights:
        """Return further meta-learned tensors (learned inner rates, say), which join ``slow``.

        Their names hold a slash, as in ``"rate/conv1.weight"``.
        """
        return {}

    def class_weights(self, network: Weights, n_classes: int) -> Weights:
        """Return such tensors where their sizes follow from the number of classes in meta-train: a classifier of all.

        ``n_classes`` is 0 where the data has no classes.

        Raises:
            BenchError: the algorithm needs classes.
        """
        return {}

    def initial_carry(self, slow: Weights) -> Weights:
        """Return what passes from one meta-step to the next without being learned by gradient."""
        return {}


@dataclass(frozen=True)
class Episode:
    """The shape of a task: n_way classes with k_shot support and k_query query examples each."""

    n_way: int
    k_shot: int
    k_query: int


class Objective(ABC):
    """What a data set asks of a network's outputs: the loss to train on and the measure of a test task."""

    measure: ClassVar[str]
    """What ``score`` is called in tables: ``accuracy``, ``mse``."""
    kind: ClassVar[Literal["acc", "error"]]
    """Which columns hold it: ``acc`` for a share that is right, ``error`` for a distance, of which less is better."""

    @abstractmethod
    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the loss of every example, ``[T, n]``, from outputs ``[T, n, O]`` and ``y [T, n]``."""

    @abstractmethod
    def score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the measure of every example, float64 ``[T, n]``; that of a task is their mean."""


@dataclass(frozen=True)
class Drawn:
    """T tasks as drawn: ``rows [T, m]``, integers that tell which tasks these are, are what a stream's hash is over.

    ``parts``, each ``[T, ...]``, is what ``TaskPool.examples`` makes their examples of. They are drawn for many tasks
    at once; what is costly belongs into ``TaskPool.draw`` and what is large into ``TaskPool.examples``.
    """

    rows: Tensor
    parts: tuple[Tensor, ...]


class TaskSource(ABC):
    """What a data set has loaded, and the tasks that can be drawn from it.

    ``pipeline`` names how the data was made and ``sha256`` is a hash over it; ``shape`` is that of one input ``x``.
    """

    name: str
    pipeline: str
    sha256: str
    objective: ClassVar[Objective]

    @property
    def split_sha256(self) -> str:
        """Return a hash over which classes are in which split; empty where there are no classes."""
        return ""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one input: (channels, height, width) of an image."""

    @abstractmethod
    def check(self, split: str, rotation: str, episode: Episode) -> None:
        """Refuse an episode that cannot be drawn.

        Raises:
            BenchError: names the value and what is accepted.
        """

    def n_classes(self, split: str, rotation: str) -> int:
        """Return how many classes a split has, images that are turned counted apart; 0 where it has none."""
        return 0

    def trained_on(self, classes: int | None) -> TaskSource:
        """Return the same data with so many of the classes of meta-train, or this where that is None.

        Which ones is a matter of their names alone, and fewer are always among more.

        Raises:
            BenchError: there are no classes, or not so many.
        """
        if classes is None:
            return self
        raise BenchError(f"train_classes {classes}: {self.name} has no classes to leave out; accepted: all")

    notes: tuple[str, ...] = ()
    """Lines on the data that the user should read before anything is trained."""

    def remarks(self, split: str, episode: Episode) -> list[str]:
        """Return such lines on an episode that ``check`` accepts."""
        return []

    @abstractmethod
    def pool(self, split: str, rotation: str, device: torch.device) -> TaskPool:
        """Return the tasks of one of SPLITS, all that they are made of on the device.

        ``rotation`` is how images become classes when turned; other data ignores it.
        """


class TaskPool(ABC):
    """Draws the tasks of one split, in integers as far as possible, so that all devices agree bit for bit.

    A task is a function of its random bits and the episode; ``name`` is part of what these bits depend on.
    """

    def __init__(self, source: TaskSource, split: str, rotation: str, device: torch.device) -> None:
        self.source, self.split, self.rotation, self.device = source, split, rotation, device
        self.name = f"{source.name}/{split}/{rotation}"

    @abstractmethod
    def draw(self, bits: Bits, episode: Episode) -> Drawn:
        """Return the T tasks of the random bits, of an episode that ``TaskSource.check`` accepts."""

    @abstractmethod
    def examples(
        self, parts: tuple[Tensor, ...], episode: Episode, dtype: torch.dtype
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return (x, y) of support ``[T, N*K, ...]`` and of query ``[T, N*Q, ...]``, floating ones in ``dtype``.

        It runs in every meta-step and may be captured in a CUDA graph, so it must not wait for the device.
        """

    def classes_of(self, parts: tuple[Tensor, ...]) -> Tensor | None:
        """Return the number of the class behind each label of T tasks, ``[T, N]``; None where there are no classes.

        It runs in every meta-step, like ``examples``; numbers are below ``TaskSource.n_classes``.
        """
        return None


class Dataset(ABC):
    """Where tasks come from.

    A subclass that is a frozen dataclass has its fields as options, which ``--set`` overrides.
    """

    paper: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    """Under which its data may be used, shown by ``--list``."""
    auto_rank: ClassVar[int | None] = None
    """Place in the queue of ``--dataset auto``, lowest first; None never takes part."""

    def around(self, backbone: Backbone) -> Backbone:
        """Return what builds the networks for this data: ``backbone`` itself, unless they act in a world of its own.

        Control puts the dynamics around the policy here (``datasets/navigation.py``), which any network can then be.
        """
        return backbone

    @abstractmethod
    def load(self, root: Path, cache: Path) -> TaskSource:
        """Find, verify and prepare the data; images come back as a ``bench.tasks.ImageSet``.

        Args:
            root: the user's data root; may not exist, may be read-only.
            cache: a folder that may be written when ``root`` may not.
        Raises:
            DataMissing: nothing is there and nothing could be downloaded.
            DataError: what is there is damaged; the message names the file and what would be right.
        """


class Backbone(ABC):
    """How to build a network: any ``nn.Module`` that maps ``[n, *shape]`` to ``[n, output_size]``.

    A subclass that is a frozen dataclass has its fields as options, which protocols and ``--set`` override. The inner
    loop leaves parameters alone whose names hold a slash (``bench.network.layers.BatchNormShift2d``).
    """

    paper: ClassVar[str] = ""

    @abstractmethod
    def build(self, input_shape: tuple[int, ...], output_size: int) -> nn.Module:
        """Return a freshly initialised network for inputs of that shape, (channels, height, width) of an image.

        The harness has seeded torch's generator for it.
        """
