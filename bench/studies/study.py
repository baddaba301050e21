"""The contract of a study: a question that takes many runs, answered by tables and plots of its own."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from bench.api import BenchError
from bench.records.run import Run
from bench.registry import DATASETS, Registry, create_algorithm, create_backbone, load_package, unknown
from bench.runs.runner import FollowUp
from bench.settings.config import CODE, TUNING, RunConfig, data_defaults
from bench.settings.protocols import Override, Preset, Protocol, resolve
from bench.system.console import one_line
from bench.system.files import plain
from bench.system.text import counted, number


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line asks for, each value checked by itself, before it is made into runs."""

    algos: tuple[str, ...] | None
    """As given by ``--algos``; None where the user leaves the choice."""
    dataset: str
    device: str
    threads: int
    flags: Mapping[str, Any] = field(default_factory=dict)
    """Fields of RunConfig that take one value, those given."""
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Fields of RunConfig that take comma lists, those given."""
    sets: Sequence[Override] = ()
    vary: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """As given by ``--vary``: what a study varies, and over which values."""
    data_sha256: str = ""
    """Of the data set that was loaded for a comparison; empty where none was."""
    data_codes: Mapping[str, str | None] = field(default_factory=dict)
    """Hash over code and splits of every data set that was loaded, by its name."""
    classes: Mapping[str, int] = field(default_factory=dict)
    """How many classes meta-train has in every data set that was loaded, by its name; turned ones are not counted."""
    measured: tuple[str, str] = ("", "")
    """What its objective measures, and the kind of that; empty where no data was loaded."""

    @property
    def given(self) -> dict[str, Any]:
        """The fields of RunConfig that were given, each with its value, of a comma list the first."""
        return {**self.flags, **{name: values[0] for name, values in self.grid.items()}}

    @property
    def seeds(self) -> Sequence[int]:
        """The seeds that were given, else 0 alone."""
        return self.grid.get("seed", [0])

    def check_vary(self, study: str, names: Collection[str]) -> None:
        """Raise BenchError for a ``--vary`` of something else than ``names``."""
        for name in self.vary:
            if name not in names:
                raise BenchError(unknown(f"setting in --vary of study {study}", name, names))

    def check_single(self, study: str, instead: str = "") -> None:
        """Raise BenchError for a comma list that is not of seeds; ``instead`` ends the message."""
        for name, values in self.grid.items():
            if name != "seed" and len(values) > 1:
                listed = ",".join(map(str, values))
                raise BenchError(f"{name} {listed}; accepted in study {study}: one value{instead}")

    def config(
        self, study: str, algo: str, seed: int, base: Mapping[str, Any],
        varied: Mapping[str, Any] = {}, presets: Sequence[Preset] = (), dataset: str | None = None,
    ) -> RunConfig:  # fmt: skip
        """Return one run; later settings win, in the order ``base``, ``presets``, flags, ``--set``, ``varied``.

        Args:
            base: fields of RunConfig, hyperparameters and options of backbones, n_way and k_shot among them.
            dataset: where it is not the one of the request.
        Raises:
            BenchError: an unknown name or a value out of range.
        """
        shape = {name: {**base, **self.given, **varied}[name] for name in ("n_way", "k_shot")}
        dataset = dataset or self.dataset
        machine: dict[str, Any] = {"dataset": dataset, "data_code": self.data_codes.get(dataset)}
        machine |= {"device": self.device, "threads": self.threads}
        fixed = Preset({}, {name: value for name, value in base.items() if name not in shape})
        flags = {name: value for name, value in self.given.items() if name not in (*shape, "seed")}
        own = [Override(None, name, str(value)) for name, value in varied.items() if name not in shape]
        protocol = Protocol(f"study-{study}", "", (fixed, *presets))
        return resolve(protocol, {"algo": algo, **shape, "seed": seed, **machine}, flags, [*self.sets, *own])


class Study(ABC):
    """Which runs answer a question, and what is made of them; a file or folder in ``bench/studies/`` registers one.

    The runs are ordinary ones, each in a process of its own, under ``OUT/study-NAME/runs``; finished ones are kept.
    """

    summary: ClassVar[str] = ""
    """One line for ``--list``."""
    dataset: ClassVar[str | None] = None
    """The one data set that the study is about; None where ``--dataset`` chooses."""
    measures_time: ClassVar[bool] = False
    """Whether its runs must be made one at a time."""
    leaves_out: ClassVar[bool] = False
    """Whether an algorithm that cannot do one of the data sets is left out there, or ends the command."""

    def datasets(self, request: Request) -> tuple[str, ...]:
        """Return the data sets that the runs are made on, ``request.dataset`` unless the study chooses."""
        return (self.dataset or request.dataset,)

    @abstractmethod
    def configs(self, request: Request) -> list[RunConfig]:
        """Return the runs in the order in which they are to be made.

        Raises:
            BenchError: the request holds something that this study cannot use.
        """

    def further(self, request: Request, runs: Mapping[str, Run]) -> list[RunConfig]:
        """Return runs that follow from what those of ``configs`` have measured, to be made after them.

        Args:
            runs: the finished runs by run_id; some of those wanted may be missing.
        """
        return []

    def follow_up(self, request: Request) -> FollowUp | None:
        """Return on what every finished run is tested besides, None for nothing.

        Raises:
            BenchError: the request holds something that this study cannot use.
        """
        return None

    @abstractmethod
    def report(self, request: Request, runs: Mapping[str, Run], out: Path) -> str:
        """Write tables and plots under ``out`` and return what to print.

        ``NAME.md``, if there is one, and the pictures in ``plots/`` that it shows become the study's report.html.

        Args:
            runs: the finished runs under ``out`` by run_id; some or all of those wanted may be missing.
        """

    def line(self, run: Run) -> str:
        """Return one line on a run that has just ended."""
        row = run.row
        what = f"{row.algo} {row.n_way}-way {row.k_shot}-shot, {counted(row.inner_steps, 'inner step')}, {row.backbone}"
        if not run.ok:
            return f"{what}, meta-batch {row.meta_batch}: {row.status}: {one_line(str(row.error))}"
        chunk = "" if row.task_chunk == row.meta_batch else f" in chunks of {row.task_chunk}"
        cost = f"{number(row.step_ms_median)} ms a step, {number(row.peak_mem_mib)} MiB"
        return f"{what}, meta-batch {row.meta_batch}{chunk}: {cost}"


MACHINE = ("device", "threads", "kernels", "precision", "task_chunk", "cuda_graph")


def run_of(config: RunConfig, runs: Mapping[str, Run], apart: Collection[str] = MACHINE) -> Run | None:
    """Return the run of a configuration, so that ``--report`` still finds it after the code has moved on.

    That is the one of its run_id; without one the latest with the same settings. Those in ``apart`` may differ, like
    the version of the algorithm's file and how much of a test was followed; a setting that did not exist when the run
    was made must have its default.
    """
    if config.run_id in runs:
        return runs[config.run_id]
    settings = _settings(config, apart)
    return next((run for run in reversed(list(runs.values())) if _has(run, settings)), None)


Settings = dict[str, tuple[Any, Any]]


def _settings(config: RunConfig, apart: Collection[str]) -> Settings:
    """Return by name what a run must have, and what one has that was made before there was such a setting."""
    defaults = plain({f.name: f.default for f in fields(RunConfig)})
    defaults |= {
        "hyperparameters": vars(create_algorithm(config.algo)),
        "backbone_options": vars(create_backbone(config.backbone)),
        "dataset_options": data_defaults(config.dataset) if config.dataset in DATASETS.names() else {},
        "test_dataset_options": {} if config.test_dataset is None else data_defaults(config.test_dataset),
    }
    wanted = plain(asdict(config))
    left_out = {*apart, *CODE, *TUNING, "adaptation_tasks"}
    return {name: (value, defaults[name]) for name, value in wanted.items() if name not in left_out}


def _has(run: Run, settings: Settings) -> bool:
    then = run.details.get("config")
    return isinstance(then, dict) and all(
        plain({**default, **then.get(name, {})}) == wanted
        if isinstance(default, dict)
        else then.get(name, default) == wanted
        for name, (wanted, default) in settings.items()
    )


# Loaded when asked for and not with the other plugins: studies draw, and a worker need not import matplotlib.
STUDIES: Registry[Study] = Registry("study", Study, lambda: load_package("bench.studies"))  # type: ignore[type-abstract]  # the base is abstract
register_study = STUDIES.register
