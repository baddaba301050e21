"""Sine waves before and after adaptation: the regression of the MAML and Reptile papers, beside joint training."""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import ticker
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bench.api import BenchError
from bench.records.run import Run, add_tables
from bench.records.stats import holm, mean_ci95, paired_comparison
from bench.registry import create_algorithm
from bench.report.drawing.colours import ink
from bench.report.drawing.panels import (
    COLUMN,
    GREY,
    TEXT,
    Page,
    direct,
    entitle,
    finish,
    label_ends,
    line_style,
    literal,
    new_figure,
    put_legend,
    styles_of,
    wrapped,
)
from bench.report.drawing.pictures import write_pictures
from bench.report.exports import write_both
from bench.runs.worker import build, stream_plan
from bench.settings.config import RunConfig
from bench.settings.protocols import Protocol, read_presets, resolve
from bench.studies.study import Request, Study, register_study, run_of
from bench.system.files import Columns, write_atomic
from bench.system.text import markdown_table, number
from bench.tasks.data import load_data
from bench.tasks.stream import TaskStream
from bench.training.checkpoint import read_checkpoint
from bench.training.evaluate import TRANSDUCTIVE, evaluate

SETTINGS = Path(__file__).with_suffix(".toml")
STEPS = (0, 1, 2, 5, 8, 10, 16, 24, 32)
"""Adaptation steps after which the error is measured."""
DRAWN = (0, 8, 16, 24, 32)
"""Adaptation steps after which functions are drawn, as in the Reptile paper's figure."""
TASKS = 4  # whose functions are drawn, the first of the test stream

ERROR_FILE, FUNCTION_FILE = "mse.csv", "functions.csv"


@dataclass(frozen=True)
class ErrorPoint(Columns):
    """Mean squared error over the first ``tasks`` test tasks after ``step`` adaptation steps."""

    step: int
    mse: float
    mse_ci95: float | None
    tasks: int


@dataclass(frozen=True)
class FunctionPoint(Columns):
    """One point of one test task: the wave, and what the network says after each of DRAWN steps.

    ``support`` is 1 for a point that was adapted to, 0 for one of the query set.
    """

    task: int
    support: int
    x: float
    wave: float
    step_0: float
    step_8: float
    step_16: float
    step_24: float
    step_32: float


@dataclass(frozen=True)
class SineRow(Columns):
    """The error of one run after so many adaptation steps: a line of sine.csv."""

    algo: str
    seed: int
    step: int
    mse: float
    mse_ci95: float | None
    test_tasks: int
    run_id: str


@dataclass(frozen=True)
class Followed:
    """A finished run and what it does while it adapts."""

    run: Run
    errors: tuple[ErrorPoint, ...]
    functions: tuple[FunctionPoint, ...]


@register_study("sine")
class Sine(Study):
    """Trains every algorithm on the same waves and follows it through 32 steps on some points of new ones."""

    summary = "sine waves before and after adaptation, by Reptile, first-order and full MAML and joint training"
    dataset = "sine"

    def configs(self, request: Request) -> list[RunConfig]:
        """Return the runs, all algorithms of a seed before the next seed.

        Raises:
            BenchError: something to vary, or a list where one value fits.
        """
        if request.vary:
            raise BenchError(f"--vary {next(iter(request.vary))}: study sine varies nothing but --seeds")
        for name, values in request.grid.items():
            if name != "seed" and len(values) > 1:
                listed = ",".join(map(str, values))
                raise BenchError(f"{name} {listed}; accepted in study sine: one value, and several --seeds")
        content = settings()
        protocol = Protocol("study-sine", self.summary, read_presets(content))
        shape = {name: request.grid.get(name, [default])[0] for name, default in (("n_way", 1), ("k_shot", 10))}
        flags = {**request.flags, **{name: v[0] for name, v in request.grid.items() if name == "k_query"}}
        machine = {"dataset": self.dataset, "device": request.device, "threads": request.threads}
        return [
            resolve(protocol, {"algo": algo, **shape, "seed": seed, **machine}, flags, request.sets)
            for seed in request.grid.get("seed", [0])
            for algo in request.algos or content["algos"]
        ]

    def report(self, request: Request, runs: Mapping[str, Run], out: Path) -> str:
        """Write sine.csv, sine.md and two figures, and return the errors and where all of it is."""
        wanted = self.configs(request)
        found = [followed for run in chosen(wanted, runs) if (followed := follow(run)) is not None]
        rows = [
            SineRow(f.run.row.algo, f.run.row.seed, p.step, p.mse, p.mse_ci95, p.tasks, f.run.row.run_id)
            for f in found
            for p in f.errors
        ]
        write_both(out / "sine.csv", rows, SineRow.columns())
        write_pictures(out / "plots", "curves", partial(functions_figure, found))
        write_pictures(out / "plots", "mse", partial(error_figure, rows))
        have = {(f.run.row.algo, f.run.row.seed) for f in found}
        absent = [c for c in wanted if (c.algo, c.seed) not in have]
        ended = {c.run_id: run.row.status for c in absent if (run := run_of(c, runs)) is not None and not run.ok}
        missing = [f"{c.algo} seed {c.seed} ({ended.get(c.run_id, 'not run')})" for c in absent]
        write_atomic(out / "sine.md", markdown(found, rows, missing))
        note = f"\n{len(missing)} of {len(wanted)} runs are missing: {', '.join(missing)}." if missing else ""
        return f"{error_table(rows)}{note}\n\nIn {out}: sine.md, sine.csv, plots/, runs/"

    def line(self, run: Run) -> str:
        """Return one line on a run that has just ended."""
        row = run.row
        if not run.ok:
            return f"{row.algo} seed {row.seed}: {row.status}: {row.error}"
        error = f"mse {number(row.error_before_adaptation)} before, {number(row.test_error)} after adaptation"
        return f"{row.algo} seed {row.seed}: {error}; {number(row.train_s)} s training"


def settings() -> dict[str, Any]:
    """Return the study's algorithms, the settings of their runs, and notes on where these differ from the papers."""
    return tomllib.loads(SETTINGS.read_text(encoding="utf-8"))


def chosen(wanted: Sequence[RunConfig], runs: Mapping[str, Run]) -> list[Run]:
    """Return the finished runs to report on, in the order of ``wanted``.

    For a run that is not there under its own name the latest stands in that had the same settings, on whatever machine:
    an earlier version of the code gave it another name.
    """
    found = (run_of(config, runs) for config in wanted)
    return [run for run in found if run is not None and run.ok]


def follow(run: Run) -> Followed | None:
    """Return what a run does while it adapts: from its files, or from its weights, which writes these files.

    None where neither is there, or where a file was altered since it was written, which gives a warning.
    """
    recorded = run.details.get("files", {ERROR_FILE: "", FUNCTION_FILE: ""})  # schema 1 knows no hashes
    if not all(name in recorded and (run.folder / name).exists() for name in (ERROR_FILE, FUNCTION_FILE)):
        checkpoint = run.folder / "checkpoint.pt"
        if not checkpoint.exists():
            return None
        points, lines = measure(RunConfig(**run.details["config"]), read_checkpoint(checkpoint))
        run = add_tables(run, {ERROR_FILE: (ErrorPoint, points), FUNCTION_FILE: (FunctionPoint, lines)})
    errors, functions = run.table(ERROR_FILE, ErrorPoint), run.table(FUNCTION_FILE, FunctionPoint)
    return Followed(run, errors, functions) if errors and functions else None


def measure(config: RunConfig, state: Mapping[str, Any]) -> tuple[list[ErrorPoint], list[FunctionPoint]]:
    """Return errors and functions of the weights of a checkpoint on the run's test stream, computed on the CPU."""
    cpu = torch.device("cpu")
    source = load_data(config.dataset, Path(), Path())
    algorithm = create_algorithm(config.algo, **config.hyperparameters)
    task_loss, _ = build(config, algorithm, source.shape, cpu, objective=source.objective)
    rotation, episode = stream_plan(config)["meta_test"]
    stream = TaskStream(source.pool("meta_test", rotation, cpu), episode, config.seed)
    slow, carry = state["slow"], state["carry"]
    result = evaluate(
        algorithm, task_loss, slow, carry, stream, config.test_tasks, max(STEPS), modes=(TRANSDUCTIVE,), at=STEPS
    )
    errors = [
        ErrorPoint(step, *mean_ci95(values), len(values)) for step, values in result.measure[TRANSDUCTIVE].items()
    ]
    tasks = stream.batch(0, TASKS)
    x, wave = (torch.cat([getattr(e, name) for e in (tasks.support, tasks.query)], dim=1) for name in "xy")
    path = enumerate(algorithm.predictors(task_loss, slow, tasks.support, max(DRAWN), carry))
    said = [predictor(x).detach()[..., 0] for step, predictor in path if step in DRAWN]
    values = torch.stack([x[..., 0], wave, *said]).double()  # [2 + DRAWN, TASKS, K + Q]
    support = tasks.support.y.shape[1]
    functions = [
        FunctionPoint(task, int(i < support), *values[:, task, i].tolist())
        for task in range(TASKS)
        for i in range(values.shape[2])
    ]
    return errors, functions


def by_algo(rows: Sequence[SineRow]) -> dict[str, dict[int, tuple[float, float]]]:
    """Return mean and half-width of the 95% interval over the tasks of all seeds, by algorithm and step."""
    found: dict[str, dict[int, tuple[float, float]]] = {}
    for algo, step in dict.fromkeys((row.algo, row.step) for row in rows):
        same = [row for row in rows if (row.algo, row.step) == (algo, step)]
        half = math.hypot(*(math.nan if row.mse_ci95 is None else row.mse_ci95 for row in same)) / len(same)
        found.setdefault(algo, {})[step] = (sum(row.mse for row in same) / len(same), half)
    return found


def error_table(rows: Sequence[SineRow]) -> str:
    """Return the errors by adaptation step as a Markdown table."""
    cells = [
        [algo, *(f"{number(by_step[s][0])} ± {number(by_step[s][1], 2)}" if s in by_step else "-" for s in STEPS)]
        for algo, by_step in by_algo(rows).items()
    ]
    return markdown_table(["mse after", *(f"{step} step{'' if step == 1 else 's'}" for step in STEPS)], cells)


def markdown(found: Sequence[Followed], rows: Sequence[SineRow], missing: Sequence[str] = ()) -> str:
    """Return sine.md: what was run, errors, paired differences and figures."""
    if not found:
        return "# Sine waves\n\nNo run has finished yet.\n"
    row, config = found[0].run.row, found[0].run.details["config"]
    seeds = ", ".join(map(str, dict.fromkeys(f.run.row.seed for f in found)))
    whole = "the whole grid" if row.eval_k_query == 50 else f"{row.eval_k_query} further points"
    intro = (
        f"y = a sin(x + b), a uniform in 0.1..5, b in 0..2 pi, on 50 points over -5..5. {row.tasks_seen:,} training "
        f"tasks, the same in the same order for every algorithm, {row.meta_batch} in each meta-step; network "
        f"{config['backbone']} ({', '.join(f'{k}={v}' for k, v in config['backbone_options'].items())}). At test "
        f"{row.k_shot} points of a new wave and up to {max(STEPS)} steps of SGD on all of them, error on {whole}, "
        f"{row.test_tasks:,} waves for each seed. Seeds: {seeds}. {row.device_name or row.device}."
    )
    parts = [
        "# Sine waves",
        intro,
        *([f"**Missing**, so that means are over unequal seeds: {', '.join(missing)}."] if missing else []),
        "## Settings",
        _settings(found),
        _notes(),
        "## Mean squared error",
        error_table(rows),
    ]
    parts += ["± is the half-width of a 95% interval over test waves.", _pairs(found)]
    parts += ["![error against adaptation steps](plots/mse.png)", "## Functions before and after adaptation"]
    parts += [f"The first {TASKS} test waves of seed {row.seed}, the same for all.", "![functions](plots/curves.png)"]
    return "\n\n".join(parts) + "\n"


def _settings(found: Sequence[Followed]) -> str:
    columns = ("inner_steps", "inner_lr", "meta_optimizer", "meta_lr")
    by_name = {f.run.row.algo: f.run for f in found}
    cells = []
    for algo, run in by_name.items():
        schedule = run.details["config"]["meta_lr_schedule"]
        batch = run.details["config"]["hyperparameters"].get("inner_batch")
        values = ["-" if getattr(run.row, c) is None else getattr(run.row, c) for c in columns]
        cells.append([algo, *values, schedule, batch or "all"])
    headers = ["algorithm", *columns, "schedule", "points in an inner step of training"]
    return markdown_table(headers, cells)


def _notes() -> str:
    return "\n".join(f"- {note}" for note in settings()["notes"])


def _pairs(found: Sequence[Followed]) -> str:
    """Return the paired differences of errors after adaptation, on identical test waves."""
    errors: dict[str, dict[int, np.ndarray]] = {}
    for f in found:
        values = f.run.test_tasks["error"].to_numpy(dtype=float)
        if len(values) and np.isfinite(values).all():
            errors.setdefault(f.run.row.algo, {})[f.run.row.seed] = values
    pairs = [(a, b) for a, b in itertools.combinations(errors, 2) if errors[a].keys() & errors[b].keys()]
    found_differences = [paired_comparison(errors[a], errors[b]) for a, b in pairs]
    corrected = holm([d.p_value for d in found_differences])
    cells = []
    for (a, b), d, p in zip(pairs, found_differences, corrected):
        interval = f"{d.ci95_low:+.4f} to {d.ci95_high:+.4f}"
        cells.append([f"{a} - {b}", f"{d.diff:+.4f}", interval, f"{p:.2g}", f"{d.test_tasks:,}", d.seeds])
    steps = ", ".join(map(str, dict.fromkeys(f.run.row.eval_inner_steps for f in found)))
    title = (
        f"Paired differences on identical test waves after {steps} steps; below zero the first is better. The p-value "
        "of the sign-flip test is corrected (Holm) for all of these; it says how the models trained here compare "
        "on further waves, and nothing of training anew with other seeds:"
    )
    return title + "\n\n" + markdown_table(["A - B", "difference", "95% interval", "p (Holm)", "pairs", "seeds"], cells)


def functions_figure(found: Sequence[Followed], page: Page = COLUMN) -> Figure:
    """Draw the functions of the first seed: a row for every wave, a column for every algorithm, four in a row."""
    first = [f for f in found if f.run.row.seed == found[0].run.row.seed] if found else []
    points = f"{first[0].run.row.k_shot} points" if first else "some points"
    across = min(4, max(1, len(first)))
    blocks = math.ceil(len(first) / 4) or 1
    height = (0.3 + 0.85 * TASKS) * blocks
    figure = new_figure(page, height)
    entitle(figure, f"Sine waves before and after adaptation to {points}", height)
    if not first:
        figure.text(0.5, 0.4, "no finished run", ha="center", va="center", color=GREY, fontsize=TEXT)
        return figure
    shades = {step: 0.2 + 0.8 * i / (len(DRAWN) - 1) for i, step in enumerate(DRAWN)}
    look = styles_of(f.run.row.algo for f in first)
    panels = figure.subplots(TASKS * blocks, across, sharex=True, sharey="row", squeeze=False)
    for i, f in enumerate(first):
        colour = look[f.run.row.algo].colour
        for task in range(TASKS):
            axes, here = panels[TASKS * (i // 4) + task, i % 4], [p for p in f.functions if p.task == task]
            line = sorted({p.x: p for p in here}.values(), key=lambda p: p.x)
            adapted_to = [p for p in here if p.support]
            x = [p.x for p in line]
            axes.plot(x, [p.wave for p in line], color="#BBBBBB", lw=2.6)
            for step in DRAWN:
                dash, alpha = ("--", 1.0) if step == 0 else ("-", shades[step])
                values = [getattr(p, f"step_{step}") for p in line]
                axes.plot(x, values, color=GREY if step == 0 else colour, ls=dash, lw=0.9, alpha=alpha)
            axes.plot([p.x for p in adapted_to], [p.wave for p in adapted_to], "o", color="black", ms=1.8, zorder=3)
            bottom = task == TASKS - 1
            finish(axes, "x" if bottom else "", f"wave {task + 1}: y" if i % 4 == 0 else "", bool(here))
            axes.xaxis.set_major_locator(ticker.MultipleLocator(5))
            axes.yaxis.set_major_locator(ticker.MaxNLocator(2, symmetric=True))
            if task == 0:
                name = literal(wrapped(f.run.row.algo, 9 if page.columns == 1 else 16))
                axes.set_title(name, fontsize=TEXT, color=ink(colour), weight="bold")
    for empty in panels.ravel()[[not axes.lines for axes in panels.ravel()]]:
        empty.set_axis_off()
    handles: list[Any] = [Line2D([], [], color="#BBBBBB", lw=2.6, label="wave")]
    handles.append(Line2D([], [], color="black", ls="none", marker="o", ms=1.8, label="points adapted to"))
    handles.append(Line2D([], [], color=GREY, ls="--", lw=0.9, label="before adaptation"))
    some = ", ".join(map(str, DRAWN[1:-1]))
    further = [Line2D([], [], color=GREY, lw=0.9, alpha=0.5, label=f"pale to full: after {some} and {DRAWN[-1]} steps")]
    put_legend(figure, handles, further)
    return figure


def error_figure(rows: Sequence[SineRow], page: Page = COLUMN) -> Figure:
    """Draw the error against adaptation steps with its interval, a line per algorithm."""
    height = 2.5
    figure = new_figure(page, height)
    entitle(figure, "Error on new sine waves against adaptation steps", height)
    axes, found = figure.subplots(), by_algo(rows)
    look = styles_of(list(found))
    handles: list[Any] = []
    for algo, by_step in found.items():
        steps, means = list(by_step), [mean for mean, _ in by_step.values()]
        halves = [half if math.isfinite(half) else 0.0 for _, half in by_step.values()]
        axes.plot(steps, means, **line_style(look[algo], 1))
        low, high = zip(*((mean - half, mean + half) for mean, half in zip(means, halves)))
        axes.fill_between(steps, low, high, color=look[algo].colour, alpha=0.2, lw=0)
        handles.append(Line2D([], [], label=literal(algo), **line_style(look[algo], 1)))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_xticks([step for step in STEPS if step % 8 == 0])
    axes.set_xticks(STEPS, minor=True)
    finish(axes, "adaptation steps", "mean squared error (log scale)", bool(found))
    beside_lines = bool(found) and direct(found, height - 0.5)
    if beside_lines:
        axes.set_ylim(axes.get_ylim())
        ends = {algo: (list(by_step.values())[-1][0], look[algo].colour) for algo, by_step in found.items()}
        label_ends(axes, ends, height - 0.5)
    band = Patch(color=GREY, alpha=0.25, lw=0, label="band: 95% interval over waves")
    put_legend(figure, [] if beside_lines else handles, [band])
    return figure
