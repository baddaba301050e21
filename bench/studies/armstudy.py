"""What studies share that compare named arms: settings, runs, accuracies, and paired differences between arms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.analysis.comparison import Arm, Comparison, Setting, compare, corrected
from bench.api import BenchError
from bench.records.run import Run
from bench.registry import unknown
from bench.settings.config import RunConfig
from bench.settings.protocols import Override, Preset, Protocol, resolve
from bench.studies.study import Request, run_of
from bench.system.files import Columns
from bench.system.text import counted, fraction, markdown_table, number, plus_minus


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
    study: str, texts: Sequence[str] | None, default: Iterable[str], arms: Mapping[str, StudyArm]
) -> list[StudyArm]:
    """Return the arms of ``--vary arm=A,B``, or those of ``default``, in the study's order.

    Raises:
        BenchError: an arm that is not known.
    """
    for text in texts or ():
        if text not in arms:
            raise BenchError(unknown(f"arm in --vary of study {study}", text, arms))
    wanted = set(default if texts is None else texts)
    return [arm for name, arm in arms.items() if name in wanted]


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
        hyper, alone, batch = config.hyperparameters, _score(arm, "test_acc"), _score(arm, "test_acc_transductive")
        row = CellRow(
            cell.arm.name, cell.axis, cell.value, cell.arm.algo, config.dataset, config.n_way, config.k_shot,
            config.train_shots + config.k_query, int(hyper["inner_steps"]), hyper["inner_batch"],
            float(hyper["inner_lr"]), config.meta_lr, config.meta_steps, config.meta_batch,
            len(arm.ok) if arm else 0, int(sum(arm.values("test_tasks"))) if arm else 0, *alone, *batch,
            next((r.row.stream_sha256 for r in here if r is not None and r.ok), None), status,
            " ".join(r.row.run_id for r in here if r is not None),
        )  # fmt: skip
        rows.append(row)
    return rows


def _score(arm: Arm | None, column: str) -> tuple[float | None, float | None, float | None]:
    """Return mean, half-width over tasks and standard deviation over seeds, None where they are not known."""
    if arm is None:
        return None, None, None
    mean, half, sd = (None if math.isnan(v) else v for v in (arm.mean(column), arm.ci95(column), arm.sd(column)))
    return mean, half, sd


def differences(groups: Iterable[Sequence[Cell]], runs: Mapping[str, Run]) -> list[list[Comparison]]:
    """Compare the arms of every group pairwise on their test tasks.

    Holm's correction is over all groups together, in which the same runs side by side in two groups count once.
    """
    family: dict[tuple[Any, ...], Comparison] = {}
    keys: list[list[tuple[Any, ...]]] = []
    for group in groups:
        arms = [arm for cell in group if (arm := arm_of(cell, runs)) is not None]
        ids = {arm.label: tuple(run.row.run_id for run in arm.runs) for arm in arms}
        keys.append([])
        for c in compare(arms):
            key = (c.mode, ids[c.algo_a], ids[c.algo_b])
            family.setdefault(key, c)
            keys[-1].append(key)
    together = dict(zip(family, corrected(list(family.values()))))
    return [[together[key] for key in group] for group in keys]


def difference_table(comparisons: Iterable[Comparison], mode: str) -> str:
    """Return the comparisons in one test mode as a Markdown table."""
    rows = [
        [
            *(f"{c.algo_a} - {c.algo_b}", f"{c.diff:+.4f}", f"{c.ci95_low:+.4f} to {c.ci95_high:+.4f}"),
            *(f"{c.p_value_holm:.2g}", f"{c.test_tasks:,}", c.verdict),
        ]
        for c in comparisons
        if c.mode == mode
    ]
    return markdown_table(["A - B", "difference", "95% interval", "p (Holm)", "pairs", "verdict"], rows)


def score_cells(row: CellRow) -> list[str]:
    """Return plain and transductive accuracy, each with its interval and the spread over seeds, as table cells."""
    scores = (
        (row.test_acc, row.test_acc_ci95, row.test_acc_seed_sd),
        (row.test_acc_transductive, row.test_acc_transductive_ci95, row.test_acc_transductive_seed_sd),
    )
    cells = []
    for mean, half, sd in scores:
        cells += [row.status if mean is None else plus_minus(mean, math.nan if half is None else half), fraction(sd)]
    return cells


def run_line(run: Run) -> str:
    """Return one line on a run of such a study that has just ended."""
    row = run.row
    what = f"{row.algo} {row.n_way}-way {row.k_shot}-shot seed {row.seed}, {counted(row.inner_steps, 'inner step')}"
    what += f", meta_lr {row.meta_lr}"
    if not run.ok or row.test_acc is None or row.test_acc_transductive is None:
        return f"{what}: {row.status}: {row.error}"
    cost = f"{number(row.train_s)} s training"
    return f"{what}: {row.test_acc:.4f} plain, {row.test_acc_transductive:.4f} transductive, {cost}"


def missing(rows: Sequence[CellRow]) -> str:
    """Say how many cells have no result, empty if all have one."""
    lost = sum(row.test_acc is None for row in rows)
    return f"{lost} of {len(rows)} results are missing; the status column says why." if lost else ""


def page_head(
    title: str, source: str, fixed: Iterable[str], picture: tuple[str, str], rows: Sequence[CellRow]
) -> list[str]:
    """Return how the page of such a study begins: title, source, what was held fixed, its figure, what is missing.

    Args:
        picture: what it shows, and the name of its file in ``plots/``.
    """
    shows, name = picture
    held = "\n".join(f"- {line}" for line in fixed if line)
    return [f"# {title}", source, held, f"![{shows}](plots/{name}.png)", missing(rows)]


def machine(rows: Sequence[CellRow], runs: Mapping[str, Run]) -> str:
    """Name the machines, thread counts and commits of the runs."""
    used = [runs[run_id].row for row in rows for run_id in row.run_ids.split() if run_id in runs]
    places = dict.fromkeys(f"{r.device_name or r.device}, threads: {r.threads}" for r in used if r.status == "ok")
    commits = dict.fromkeys(r.git_commit for r in used if r.status == "ok" and r.git_commit)
    return f"{'; '.join(places)}; commit {', '.join(commits)}." if places else ""


MODES = (
    "Plain: each query image alone with the support set, as in supervised-reptile. Transductive: all query images of a "
    "task in one batch."
)
HOW_TO_READ = (
    "Accuracies are fractions, mean over seeds ± half-width of the 95% interval over test tasks; the spread over "
    f"seeds, which the interval does not cover, stands beside it. {MODES}"
)
HOW_TO_COMPARE = (
    "A minus B on identical test tasks, plain: paired t interval and the p-value of a sign-flip test after Holm's "
    "correction for all comparisons of this study, both test modes (the CSV has them all). They say how the models "
    "trained here compare on further tasks, not what training again with another seed would give."
)
