"""Arms, their cells with a run per seed, and which arms a request may ask for."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.analysis.arms import Arm, Setting
from bench.api import BenchError
from bench.records.run import Run
from bench.registry import unknown
from bench.settings.config import RunConfig
from bench.studies.study import Request, Study, run_of
from bench.system.text import counted, number


@dataclass(frozen=True)
class StudyArm:
    """One of the things that a study compares: an algorithm with the settings that make it this arm."""

    name: str
    """For ``--vary``, files and tables."""
    label: str
    """For figures and headings."""
    algo: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """An arm at one value of one setting (no setting: ``axis`` and ``value`` empty), with a run for every seed."""

    arm: StudyArm
    configs: tuple[RunConfig, ...]
    axis: str = ""
    value: Any = None


class ArmStudy(Study):
    """A study of arms: its runs are those of its cells."""

    @staticmethod
    @abstractmethod
    def cells(request: Request) -> list[Cell]:
        """Return the cells, all arms of a point one after the other.

        Raises:
            BenchError: the request holds something that this study cannot use.
        """

    def configs(self, request: Request) -> list[RunConfig]:
        """Return the runs seed by seed, and in a seed in the order of the cells."""
        by_seed = zip(*(cell.configs for cell in self.cells(request)))
        return list({config.run_id: config for group in by_seed for config in group}.values())

    def line(self, run: Run) -> str:
        """Return one line on a run that has just ended."""
        row = run.row
        what = f"{row.algo} {row.n_way}-way {row.k_shot}-shot seed {row.seed}, {counted(row.inner_steps, 'inner step')}"
        what += f", meta_lr {row.meta_lr}"
        if not run.ok or row.test_acc is None or row.test_acc_transductive is None:
            return f"{what}: {row.status}: {row.error}"
        cost = f"{number(row.train_s)} s training"
        return f"{what}: {row.test_acc:.4f} plain, {row.test_acc_transductive:.4f} transductive, {cost}"


def wanted_arms(
    study: str, request: Request, arms: Mapping[str, StudyArm], default: Iterable[str], decided: Iterable[str],
    varied: Iterable[str] = (),
) -> list[StudyArm]:  # fmt: skip
    """Return the arms of ``--vary arm=A,B``, or those of ``default``, in the study's order.

    Args:
        decided: fields and hyperparameters that make the arms what they are.
        varied: what ``--vary`` takes beside ``arm``.
    Raises:
        BenchError: an arm or setting that is not known, a value for what the study decides by itself, a list where one
            value fits.
    """
    request.check_vary(study, ["arm", *varied])
    if request.algos is not None:
        raise BenchError(f"--algos {','.join(request.algos)}: study {study} has algorithms of its own; leave it out")
    decided = sorted(decided)
    for name, value in {**request.given, **{override.name: override.value for override in request.sets}}.items():
        if name in decided:
            raise BenchError(f"{name} {value!r}: study {study} decides it; it takes no {', '.join(decided)}")
    request.check_single(study)
    asked = request.vary.get("arm", list(default))
    for name in asked:
        if name not in arms:
            raise BenchError(unknown(f"arm in --vary of study {study}", name, arms))
    return [arm for name, arm in arms.items() if name in asked]


def arm_of(cell: Cell, runs: Mapping[str, Run]) -> Arm | None:
    """Return the runs of a cell as an arm of a comparison, None if there are none.

    Its setting is what all arms of a study share: what training tasks hold may differ between them, test tasks do not.
    """
    found = [run for config in cell.configs if (run := run_of(config, runs)) is not None]
    if not found:
        return None
    row = found[0].row
    shared = {name: getattr(row, name) for name in Setting.__dataclass_fields__} | {"k_query": 0}
    setting = Setting(**shared)
    return Arm(cell.arm.algo, cell.arm.label, setting, setting.name, tuple(found))
