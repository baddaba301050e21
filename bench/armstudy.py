"""What studies share that compare named arms: settings, runs, accuracies, and paired differences between arms."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.api import BenchError
from bench.comparison import Arm, Comparison, Setting, compare
from bench.config import RunConfig
from bench.files import Columns
from bench.protocols import Override, Preset, Protocol, resolve
from bench.records import Run
from bench.registry import create_algorithm, unknown
from bench.stats import holm
from bench.study import Request
from bench.summary import verdict
from bench.text import fraction, markdown_table, plus_minus


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
    value: float | None = None


@dataclass(frozen=True)
class CellRow(Columns):
    """What became of a cell; accuracies are means over seeds, None where no run has finished."""

    arm: str
    axis: str
    value: float | None
    algo: str
    dataset: str
    n_way: int
    k_shot: int
    train_images_per_class: int
    inner_steps: int
    inner_batch: int | None
    inner_lr: float
    meta_lr: float
    meta_steps: int
    meta_batch: int
    seeds: int
    test_tasks: int
    """Over all seeds."""
    test_acc: float | None
    test_acc_ci95: float | None
    test_acc_seed_sd: float | None
    test_acc_transductive: float | None
    test_acc_transductive_ci95: float | None
    test_acc_transductive_seed_sd: float | None
    stream_sha256: str | None
    """Of the first seed."""
    status: str
    run_ids: str


def refuse(study: str, request: Request, decided: Iterable[str]) -> None:
    """Refuse what an arm study decides by itself, and lists where one value fits.

    Args:
        decided: fields and hyperparameters that make the arms what they are.
    Raises:
        BenchError: names the value and what is accepted.
    """
    if request.algos is not None:
        raise BenchError(f"--algos {','.join(request.algos)}: study {study} has algorithms of its own; leave it out")
    decided = set(decided)
    given = {**request.flags, **{name: values[0] for name, values in request.grid.items()}}
    given |= {override.name: override.value for override in request.sets}
    for name, value in given.items():
        if name in decided:
            raise BenchError(f"{name} {value!r}: study {study} decides it; it takes no {', '.join(sorted(decided))}")
    for name, values in request.grid.items():
        if name != "seed" and len(values) > 1:
            raise BenchError(f"{name} {','.join(map(str, values))}; accepted in study {study}: one value")


def chosen_arms(
    study: str, texts: Sequence[str] | None, default: Sequence[str], arms: Mapping[str, StudyArm]
) -> list[StudyArm]:
    """Return the arms of ``--vary arm=A,B``, or those of ``default``, in the study's order.

    Raises:
        BenchError: an arm that is not known.
    """
    for text in texts or ():
        if text not in arms:
            raise BenchError(unknown(f"arm in --vary arm of study {study}", text, arms))
    return [arm for name, arm in arms.items() if name in (default if texts is None else texts)]


def arm_config(
    study: str, request: Request, arm: StudyArm, seed: int, base: Mapping[str, Any], varied: Mapping[str, Any]
) -> RunConfig:
    """Return a run of an arm: ``base``, overridden by flags, by ``--set``, by what is varied and makes the arm."""
    shape = {name: request.grid.get(name, [base[name]])[0] for name in ("n_way", "k_shot")}
    flags = {**request.flags, **{n: v[0] for n, v in request.grid.items() if n not in (*shape, "seed")}}
    own = [Override(None, name, str(value)) for name, value in {**varied, **arm.values}.items()]
    protocol = Protocol(f"study-{study}", "", (Preset({}, {k: v for k, v in base.items() if k not in shape}),))
    machine = {"dataset": request.dataset, "device": request.device, "threads": request.threads}
    return resolve(protocol, {"algo": arm.algo, **shape, "seed": seed, **machine}, flags, [*request.sets, *own])


def run_of(config: RunConfig, runs: Mapping[str, Run]) -> Run | None:
    """Return the run of a configuration, so that ``--report`` still finds it after the code has moved on.

    That is the one of its run_id; without one, a run recorded with the same settings by another version of the
    algorithm's file, or before a setting existed that has its default now.
    """
    if config.run_id in runs:
        return runs[config.run_id]
    return next((run for run in runs.values() if _same(config, run)), None)


def _same(config: RunConfig, run: Run) -> bool:
    recorded = run.details.get("config")
    if not isinstance(recorded, dict):
        return False
    wanted = dataclasses.asdict(config) | {
        "hyperparameters": dict(config.hyperparameters),
        "code": recorded.get("code"),
    }
    defaults = {f.name: f.default for f in dataclasses.fields(RunConfig)}
    defaults |= {f.name: f.default_factory() for f in dataclasses.fields(RunConfig) if callable(f.default_factory)}
    hyper = recorded.get("hyperparameters")
    if not isinstance(hyper, dict) or {**defaults, **recorded, "hyperparameters": 0} != {
        **wanted,
        "hyperparameters": 0,
    }:
        return False
    algorithm = create_algorithm(config.algo)
    return {name: hyper.get(name, getattr(algorithm, name)) for name in wanted["hyperparameters"]} == wanted[
        "hyperparameters"
    ]


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


def cell_rows(cells: Iterable[Cell], runs: Mapping[str, Run]) -> list[CellRow]:
    """Return a row per cell, from the runs that are there."""
    rows = []
    for cell in cells:
        config, arm = cell.configs[0], arm_of(cell, runs)
        here = [run_of(c, runs) for c in cell.configs]
        status = next(("not run" if r is None else r.row.status for r in here if r is None or not r.ok), "ok")
        hyper = config.hyperparameters

        def known(value: float) -> float | None:
            return value if value == value else None

        columns = ("test_acc", "test_acc_transductive")
        scores = [
            known(f(c)) if arm else None
            for c in columns
            for f in ((arm.mean, arm.ci95, arm.sd) if arm else (None,) * 3)
        ]
        rows.append(
            CellRow(
                cell.arm.name, cell.axis, cell.value, cell.arm.algo, config.dataset, config.n_way, config.k_shot,
                config.train_shots + config.k_query, int(hyper["inner_steps"]), hyper["inner_batch"],
                float(hyper["inner_lr"]), config.meta_lr, config.meta_steps, config.meta_batch,
                len(arm.ok) if arm else 0, int(sum(arm.values("test_tasks"))) if arm else 0, *scores,
                next((r.row.stream_sha256 for r in here if r is not None and r.ok), None), status,
                " ".join(r.row.run_id for r in here if r is not None),
            )
        )  # fmt: skip
    return rows


def differences(groups: Iterable[Sequence[Cell]], runs: Mapping[str, Run]) -> list[list[Comparison]]:
    """Compare the arms of every group pairwise on their test tasks; Holm's correction is over all groups together."""
    found = [compare(arm for cell in group if (arm := arm_of(cell, runs)) is not None) for group in groups]
    corrected = iter(holm([c.p_value for group in found for c in group]))
    return [[dataclasses.replace(c, p_value_holm=next(corrected)) for c in group] for group in found]


def difference_table(comparisons: Iterable[Comparison], mode: str) -> str:
    """Return the comparisons in one test mode as a Markdown table."""
    rows = [
        [
            *(f"{c.algo_a} - {c.algo_b}", f"{c.diff:+.4f}", f"{c.ci95_low:+.4f} to {c.ci95_high:+.4f}"),
            *(f"{c.p_value_holm:.2g}", f"{c.test_tasks:,}", verdict(c)),
        ]
        for c in comparisons
        if c.mode == mode
    ]
    return markdown_table(["A - B", "difference", "95% interval", "p (Holm)", "pairs", "verdict"], rows)


def accuracies(row: CellRow) -> list[str]:
    """Return plain and transductive accuracy, each with its interval and the spread over seeds, as table cells."""
    if row.test_acc is None or row.test_acc_transductive is None:
        return [row.status, "-", row.status, "-"]
    nan = float("nan")
    return [
        plus_minus(row.test_acc, nan if row.test_acc_ci95 is None else row.test_acc_ci95),
        fraction(row.test_acc_seed_sd),
        plus_minus(
            row.test_acc_transductive, nan if row.test_acc_transductive_ci95 is None else row.test_acc_transductive_ci95
        ),
        fraction(row.test_acc_transductive_seed_sd),
    ]


def run_line(run: Run) -> str:
    """Return one line on a run of such a study that has just ended."""
    row = run.row
    what = f"{row.algo} {row.n_way}-way {row.k_shot}-shot seed {row.seed}, {row.inner_steps} inner steps"
    what += f", meta_lr {row.meta_lr}"
    if not run.ok or row.test_acc is None or row.test_acc_transductive is None:
        return f"{what}: {row.status}: {row.error}"
    return (
        f"{what}: {row.test_acc:.4f} plain, {row.test_acc_transductive:.4f} transductive, {row.train_s:.1f} s training"
    )
