"""RunConfig: everything that decides the outcome of one run, and the only home of its defaults."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.api import SPACE, BenchError, Episode, Space
from bench.registry import create_backbone
from bench.system.version import RESULTS
from bench.tasks.data import AUTO
from bench.tasks.images import ROTATIONS

META_OPTIMIZERS = ("sgd", "adam")
PRECISIONS = ("float32", "tf32", "bf16")
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}
"""The share of meta_lr by the share of the meta-steps that is done."""
LARGEST_INT = 2**31 - 1
"""Of any whole number but a seed: beyond it tables and file formats would have to give up digits or fail."""


def _option(
    default: Any,
    text: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] | None = None,
    none: str = "none",
    space: Space | None = None,
) -> Any:
    known = {"help": text, "least": least, "most": most, "choices": choices, "none": none}
    return field(default=default, metadata=known if space is None else {**known, SPACE: space})


LATER = ("dataset_options", "train_classes", "tuning_trials")
"""Fields that runs of earlier days do not have; without a value they are no part of a run's name."""
CODE = ("code", "data_code", "results")
"""Fields that nobody sets: which code a run belongs to."""
TUNING = ("tuning_trials", "tuning_steps", "tuning_s")
"""Fields that say what search its settings come from; a search sets them, or the protocol that holds what one found.

The first is part of a run's name, the others are what the search cost.
"""
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run: an algorithm on one setting with one seed. Every field but those of TUNING decides its outcome.

    Raises:
        BenchError: a value out of range, in one line that names it and what is accepted.
    """

    algo: str
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    dataset: str = _option(AUTO, "data set; auto takes Omniglot, or glyphs with a warning where it cannot be had")
    protocol: str = _option("quick", "budget and settings")
    n_way: int = _option(5, "classes per task; 1 for a regression", least=1)
    k_shot: int = _option(1, "support images per class", least=1)
    k_query: int = _option(9, "query images per class in training", least=1)
    train_k_shot: int | None = _option(
        None, "support images per class in training; k_shot counts at test alone then", least=1, none="k_shot"
    )
    train_classes: int | None = _option(
        None, "classes that training sees, drawn by a hash so that few are among more", least=1, none="all"
    )
    seed: int = _option(0, "decides initial weights and tasks", least=0, most=LARGEST_SEED)
    backbone: str = _option("conv4", "network")
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    dataset_options: Mapping[str, Any] = field(default_factory=dict)
    meta_steps: int = _option(1000, "meta-steps", least=1)
    meta_batch: int = _option(16, "tasks per meta-step", least=1)
    test_tasks: int = _option(1000, "meta-test tasks", least=2)
    val_tasks: int = _option(200, "meta-validation tasks, the same at every point of the curve", least=2)
    val_points: int = _option(10, "meta-validations along a run, besides the one before it", least=1)
    eval_k_query: int = _option(1, "query images per class in meta-validation and meta-test", least=1)
    eval_inner_steps: int | None = _option(None, "adaptation steps at test; none: as in training", least=0)
    adaptation_tasks: int = _option(
        200, "meta-test tasks on which accuracy is followed up to 50 steps; 0: none", least=0
    )
    meta_optimizer: str = _option("adam", "rule of the meta-step", choices=META_OPTIMIZERS)
    meta_lr: float = _option(1e-3, "its learning rate", least=0, space=Space(1e-4, 1e-1, log=True, choices=None))
    meta_lr_schedule: str = _option("constant", "its course over the run, down to 0", choices=tuple(SCHEDULES))
    train_rotation: str = _option(
        "pooled",
        "rotations as classes in meta-train: all in one pool (twins of a"
        " character may meet in a task), one per class and task, or none",
        choices=ROTATIONS,
    )
    test_rotation: str = _option("none", "the same for meta-validation and meta-test", choices=ROTATIONS)
    precision: str = _option(
        "float32",
        "of matrix products: float32, tf32 (GPU: inputs rounded to 10 bits) or bf16 (inputs and"
        " results); all else is float32",
        choices=PRECISIONS,
    )
    task_chunk: int | None = _option(
        None,
        "tasks in memory at once; auto: on a CPU some 2,000 images, on a GPU what its free memory holds",
        least=1,
        none=AUTO,
    )
    cuda_graph: str = _option(
        AUTO, "auto: on a GPU capture the meta-step once and replay it, where that can be done", choices=(AUTO, "off")
    )
    kernels: str = _option(
        AUTO,
        "normalisation: compiled by torch.compile, or eager; auto compiles on a GPU with Triton",
        choices=(AUTO, "compiled", "eager"),
    )
    device: str = _option(AUTO, "auto takes the GPU if there is one", choices=(AUTO, "cpu", "cuda"))
    threads: int | None = _option(None, "CPU threads; none: OMP_NUM_THREADS, else one per core", least=1, most=1024)
    code: str | None = None
    """Hash over the files that decide what algorithm and network do: edited code is another run."""
    data_code: str | None = None
    """The same of the data set, and of which classes are in which split."""
    results: int = RESULTS
    """Version of what the harness's own code makes of all this."""
    tuning_trials: int = 0
    """By how many trials of a search its settings were chosen; 0 where nothing searched."""
    tuning_steps: int = 0
    """Meta-steps of all these trials."""
    tuning_s: float = 0.0
    """Seconds of training and validation in them: what the search took and not which one it was."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            check_range(f.name, getattr(self, f.name), **{k: f.metadata.get(k) for k in ("least", "most", "choices")})
        if self.precision == "tf32" and self.device == "cpu":
            raise BenchError("precision 'tf32' is something only a GPU has; accepted on a CPU: float32, bf16")
        for name, value in self.hyperparameters.items():
            least = 1 if name.endswith(("_steps", "_batch")) else 0 if name.endswith("_lr") else None
            check_range(f"{self.algo}.{name}", value, least=least)
        for name, value in self.backbone_options.items():
            check_range(f"{self.backbone}.{name}", value)
        for name, value in self.dataset_options.items():
            check_range(f"{self.dataset}.{name}", value)

    @property
    def network(self) -> str:
        """Return the backbone's name, followed by the options that are not its defaults: ``conv4 (filters=32)``."""
        try:
            defaults = create_backbone(self.backbone)
        except BenchError:  # a plugin's, which failed to load: the row that says so needs no more
            return self.backbone
        chosen = {n: v for n, v in self.backbone_options.items() if v != getattr(defaults, n)}
        text = ", ".join(f"{name}={value}" for name, value in chosen.items())
        return f"{self.backbone} ({text})" if text else self.backbone

    @property
    def train_shots(self) -> int:
        """Return how many support images per class a training task holds."""
        return self.k_shot if self.train_k_shot is None else self.train_k_shot

    @property
    def episodes(self) -> dict[str, tuple[str, Episode]]:
        """Return, by split, how images are turned into classes and the shape of the tasks."""
        train = Episode(self.n_way, self.train_shots, self.k_query)
        test = (self.test_rotation, Episode(self.n_way, self.k_shot, self.eval_k_query))
        return {"meta_train": (self.train_rotation, train), "meta_val": test, "meta_test": test}

    @property
    def run_id(self) -> str:
        """Return a name made of what a person looks for and a hash over everything."""
        fields = dataclasses.asdict(self)
        named = {n: v for n, v in fields.items() if (v or n not in LATER) and n not in TUNING[1:]}
        content = json.dumps(named, sort_keys=True, default=str)
        short = hashlib.sha256(content.encode()).hexdigest()[:10]
        return f"{self.algo}-{self.dataset}-{self.n_way}w{self.k_shot}s-{self.protocol}-s{self.seed}-{short}"


def check_range(
    name: str, value: Any, *, least: float | None = None, most: float | None = None, choices: Any = None
) -> None:
    """Refuse a value out of its range; that of a whole number ends at ``LARGEST_INT`` unless ``most`` says otherwise.

    Raises:
        BenchError: names the value and what is accepted.
    """
    if choices and value not in choices:
        raise BenchError(f"{name} {value!r}; accepted: {', '.join(choices)}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if most is None and isinstance(value, int):
        most = LARGEST_INT
    if isinstance(value, float) and not math.isfinite(value):
        raise BenchError(f"{name} {value!r}; accepted: finite numbers")
    if least is not None and value < least:
        raise BenchError(f"{name} {value!r}; accepted: {least} or more")
    if most is not None and value > most:
        raise BenchError(f"{name} {value!r}; accepted: {most} or less")


def coerce(name: str, value: Any, annotation: Any, none: str = "none") -> Any:
    """Turn text (or a TOML value) into the type that ``annotation`` asks for; ``none`` is what None is called.

    Raises:
        BenchError: it is not of that type; the message names the value and what is accepted.
    """
    if typing.get_origin(annotation) is typing.Literal:
        accepted = typing.get_args(annotation)
        if value not in accepted:
            raise BenchError(f"{name} {value!r}; accepted: {', '.join(map(str, accepted))}")
        return value
    kinds = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    if type(None) in kinds and (value is None or str(value).lower() in ("none", "auto")):
        return None
    for kind in (bool, int, float, str):
        if kind in kinds:
            try:
                return _to(kind, value)
            except ValueError:
                continue
    if not any(kind in (bool, int, float, str) for kind in kinds):
        return value
    words = {**_WORDS, type(None): none}
    raise BenchError(f"{name} {value!r}; accepted: {' or '.join(words.get(kind, str(kind)) for kind in kinds)}")


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _to(kind: type, value: Any) -> Any:
    if kind is bool:
        words = {"true": True, "false": False}
        if str(value).lower() not in words:
            raise ValueError
        return words[str(value).lower()]
    if isinstance(value, bool) or (kind is int and isinstance(value, float)):
        raise ValueError
    if kind is str and not isinstance(value, str):
        raise ValueError
    return kind(value)
