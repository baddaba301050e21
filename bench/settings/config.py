"""RunConfig: everything that decides the outcome of one run, and the only home of its defaults."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.api import SPACE, BenchError, Episode, Space
from bench.records.columns import shift_words
from bench.registry import DATASETS, create_backbone, create_dataset, hyperparameter_names
from bench.settings.values import check_range
from bench.system.version import RESULTS
from bench.tasks.corruption import STRONGEST, Corrupted
from bench.tasks.data import AUTO
from bench.tasks.images import ROTATIONS

META_OPTIMIZERS = ("sgd", "adam")
PRECISIONS = ("float32", "tf32x3", "tf32", "bf16")
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}
"""The share of meta_lr by the share of the meta-steps that is done."""


def _option(
    default: Any,
    text: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] | None = None,
    none: str = "none",
    space: Space | None = None,
    later: bool = False,
) -> Any:
    """Return a field with a flag; one that came ``later`` is no part of the run_id where it has its default."""
    known = {"help": text, "least": least, "most": most, "choices": choices, "none": none, LATER: later}
    return field(default=default, metadata=known if space is None else {**known, SPACE: space})


CODE = ("code", "data_code", "test_data_code", "results")
"""Fields that nobody sets: which code a run belongs to."""
TUNING = ("tuning_trials", "tuning_trial_steps", "tuning_steps", "tuning_s")
"""Fields that say what search its settings come from; a search sets them, or the protocol that holds what one found.

The first is part of a run's name, the others are what the search cost.
"""
LARGEST_SEED = 2**32 - 1
TUNING_SEED = LARGEST_SEED
"""Of the initial weights and tasks of all trials of a search; no result may have it."""
LATER = "later"
OPTIONS = ("hyperparameters", "backbone_options", "dataset_options", "test_dataset_options")
"""Fields that hold the settings of plugins by name."""


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
        None, "support images per class in training alone; validation and test have k_shot", least=1, none="k_shot"
    )
    train_classes: int | None = _option(
        None,
        "classes that training sees, before turning multiplies them; few are among more, by a hash",
        least=1,
        none="all",
        later=True,
    )
    seed: int = _option(0, "decides initial weights and tasks", least=0, most=LARGEST_SEED)
    backbone: str = _option("conv4", "network")
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    dataset_options: Mapping[str, Any] = field(default_factory=dict, metadata={LATER: True})
    test_dataset: str | None = _option(
        None, "data set of meta-test; meta-validation stays with that of training", none="dataset", later=True
    )
    test_dataset_options: Mapping[str, Any] = field(default_factory=dict, metadata={LATER: True})
    test_n_way: int | None = _option(
        None, "classes per task in meta-test; the head is cut, or its outputs repeated", least=2, none="n_way",
        later=True,
    )  # fmt: skip
    test_k_shot: int | None = _option(
        None, "support images per class in meta-test; k_shot counts in training and meta-validation then", least=1,
        none="k_shot", later=True,
    )  # fmt: skip
    test_corruption: str | None = _option(
        None,
        f"what is done to the images of meta-test: KIND:STRENGTH, strengths 1 to {STRONGEST}, or KIND:STRENGTH:query"
        " for query images alone",
        later=True,
    )
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
    meta_lr: float = _option(1e-3, "its learning rate", least=0, space=Space(3e-4, 3e-2, log=True, choices=None))
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
        "of matrix products: float32, tf32 (GPU: inputs rounded to 10 bits), tf32x3 (GPU: those in Triton as"
        " three products of tf32) or bf16 (inputs and results rounded); all else is float32",
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
        "of convolution and normalisation: this project's in triton, or torch's own (eager); auto: triton on a GPU that"
        " has it",
        choices=(AUTO, "triton", "eager"),
    )
    device: str = _option(AUTO, "auto takes the GPU if there is one", choices=(AUTO, "cpu", "cuda"))
    threads: int | None = _option(None, "CPU threads; none: OMP_NUM_THREADS, else one per core", least=1, most=1024)
    code: str | None = None
    """Hash over the files that decide what algorithm and network do: edited code is another run."""
    data_code: str | None = None
    """The same of the data set, and of which classes are in which split."""
    test_data_code: str | None = field(default=None, metadata={LATER: True})
    """The same of what is at test alone, its images included; None where there is nothing of that kind."""
    results: int = RESULTS
    """Version of what the harness's own code makes of all this."""
    tuning_trials: int = 0
    """By how many trials of a search its settings were chosen; 0 where nothing searched."""
    tuning_trial_steps: int = 0
    """Meta-steps of a trial that runs to its end."""
    tuning_steps: int = 0
    """Meta-steps of all these trials."""
    tuning_s: float = 0.0
    """Seconds of training and validation in them: what the search took and not which one it was."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            check_range(f.name, getattr(self, f.name), **{k: f.metadata.get(k) for k in ("least", "most", "choices")})
        if self.tuning_trials and self.seed == TUNING_SEED:
            raise BenchError(f"seed {self.seed} is that of the trials that found these settings; accepted: any other")
        if self.precision in ("tf32", "tf32x3") and self.device == "cpu":
            raise BenchError(
                f"precision {self.precision!r} is something only a GPU has; accepted on a CPU: float32, bf16"
            )
        for name, value in self.hyperparameters.items():
            least = 1 if name.endswith(("_steps", "_batch")) else 0 if name.endswith("_lr") else None
            check_range(f"{self.algo}.{name}", value, least=least)
        for name, value in self.backbone_options.items():
            check_range(f"{self.backbone}.{name}", value)
        for name, value in self.dataset_options.items():
            check_range(f"{self.dataset}.{name}", value)
        for name, value in self.test_dataset_options.items():
            check_range(f"{self.test_dataset}.{name}", value)
        # What says the same as nothing is nothing, so that it is one run.
        same = {"test_n_way": self.n_way, "test_k_shot": self.k_shot}
        for name in (name for name, value in same.items() if getattr(self, name) == value):
            object.__setattr__(self, name, None)
        corrupted = self.corrupted
        object.__setattr__(self, "test_corruption", None if corrupted is None else str(corrupted))

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
    def row_cells(self) -> dict[str, str | None]:
        """Return the columns that tell plugins with their options."""
        return {"backbone": self.network, "data_options": self.data_options, "test_dataset": self.test_data}

    @property
    def data_options(self) -> str | None:
        """Return the options of the data set that are not its defaults: ``split=alphabet``; None for none."""
        return _chosen(self.dataset, self.dataset_options) or None

    @property
    def test_data(self) -> str | None:
        """Return the name of the test data set, followed by such options; None where it is that of training."""
        text = _chosen(self.test_dataset, self.test_dataset_options)
        return f"{self.test_dataset} ({text})" if text else self.test_dataset

    @property
    def corrupted(self) -> Corrupted | None:
        """Return what is done to the images of meta-test."""
        return None if self.test_corruption is None else Corrupted.parse(self.test_corruption)

    @property
    def test_ways(self) -> int:
        """Return how many classes a task of meta-test holds."""
        return self.n_way if self.test_n_way is None else self.test_n_way

    @property
    def test_shots(self) -> int:
        """Return how many support images per class a task of meta-test holds."""
        return self.k_shot if self.test_k_shot is None else self.test_k_shot

    @property
    def setting(self) -> str:
        """Return the episode in words, and what is different at test."""
        tested = shift_words(self.test_data, self.test_n_way, self.test_k_shot, self.test_corruption)
        return f"{self.n_way}-way {self.k_shot}-shot{tested}"

    @property
    def train_shots(self) -> int:
        """Return how many support images per class a training task holds."""
        return self.k_shot if self.train_k_shot is None else self.train_k_shot

    @property
    def episodes(self) -> dict[str, tuple[str, Episode]]:
        """Return, by split, how images are turned into classes and the shape of the tasks."""
        train = Episode(self.n_way, self.train_shots, self.k_query)
        val = (self.test_rotation, Episode(self.n_way, self.k_shot, self.eval_k_query))
        test = (self.test_rotation, Episode(self.test_ways, self.test_shots, self.eval_k_query))
        return {"meta_train": (self.train_rotation, train), "meta_val": val, "meta_test": test}

    @property
    def run_id(self) -> str:
        """Return a name made of what a person looks for and a hash over everything."""
        fields = dataclasses.asdict(self)
        for name, default in later_fields().items():  # so that runs are called as before there were these
            if fields[name] == default:
                del fields[name]
        for name in TUNING[1:] if self.tuning_trials else TUNING:  # so that untuned runs keep their names
            del fields[name]
        content = json.dumps(fields, sort_keys=True, default=str)
        short = hashlib.sha256(content.encode()).hexdigest()[:10]
        return f"{self.algo}-{self.dataset}-{self.n_way}w{self.k_shot}s-{self.protocol}-s{self.seed}-{short}"


def later_fields() -> dict[str, Any]:
    """Return the fields that came later than others, which older records lack, with their defaults."""
    fields = (f for f in dataclasses.fields(RunConfig) if f.metadata.get(LATER))
    return {f.name: f.default if f.default_factory is dataclasses.MISSING else f.default_factory() for f in fields}


def _chosen(dataset: str | None, options: Mapping[str, Any]) -> str:
    """Return the options of a data set that are not its defaults; all, where it is a plugin's that failed to load."""
    known = dataset is not None and dataset in DATASETS.names() and set(options) <= set(data_defaults(dataset))
    defaults = data_defaults(str(dataset)) if known else {}
    return ", ".join(f"{name}={value}" for name, value in options.items() if value != defaults.get(name, _NOTHING))


_NOTHING = object()


def data_defaults(dataset: str) -> dict[str, Any]:
    """Return the options of a data set with their defaults."""
    made = create_dataset(dataset)
    return {name: getattr(made, name) for name in hyperparameter_names(type(made))}
