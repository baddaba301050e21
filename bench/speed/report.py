"""What ``bench.speed`` leaves: rows, a readable table with the verdict on every target, a plot."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass, field
from statistics import median

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.report.drawing.axes import finish, thousands
from bench.report.drawing.legends import put_legend
from bench.report.drawing.panels import COLUMN, Page, entitle, new_figure
from bench.report.drawing.styles import SMALL
from bench.speed.peers import PROJECT, VARIANTS, YARDSTICK
from bench.system.csvfile import Columns
from bench.system.text import markdown_table, number

FASTER, SHARE, TASK_SHARE, START_S = 1.5, 0.5, 0.02, 15.0
SECOND_TO_FIRST = {"S1": 2.3, "S2": 1.8}
FASTER_THAN_LOOP = {"S1": 100.0, "S2": 30.0}
MET, MISSED = "met", "missed"
WIDTH = 120  # of the page's text

_OURS, _GREYS, _LINE = "#222222", ("#CCCCCC", "#999999", "#E8E8E8", "#777777"), "#C44E00"


@dataclass(frozen=True, kw_only=True)
class SpeedRow(Columns):
    """One variant on one setting and algorithm, or a matrix product in the rounds of a setting."""

    setting: str
    algo: str | None = None
    variant: str
    status: str = "ok"
    ms_median: float | None = None
    ms_min: float | None = None
    ms_max: float | None = None
    tasks_per_s: float | None = None
    ratio_to_project: float | None = None
    gflop: float | None = None
    gflop_least: float | None = None
    gflop_per_s: float | None = None
    share_of_matmul_rate: float | None = None
    peak_mem_mib: float | None = None
    launches: int | None = None
    how: str | None = None
    task_share: float | None = None
    device: str
    device_name: str
    threads: int
    torch_version: str
    git_commit: str | None
    rounds: int


@dataclass(frozen=True)
class Results:
    """All that was measured: the rows, and what does not belong to a row of its own.

    ``second_to_first`` is the project's MAML time over its FOMAML time by setting, the median of the rounds' ratios;
    ``starts`` holds seconds of a first and a second start by algorithm; ``error`` is the largest in the agreement.
    """

    rows: list[SpeedRow]
    error: float
    command: str
    load: float
    second_to_first: dict[str, float] = field(default_factory=dict)
    starts: dict[str, tuple[float, float]] = field(default_factory=dict)

    def cases(self) -> list[tuple[str, str]]:
        """Return every setting with every algorithm that was timed on it."""
        return list(dict.fromkeys((row.setting, row.algo) for row in self.rows if row.algo))

    def row(self, setting: str, algo: str, variant: str) -> SpeedRow:
        """Return the row of a variant."""
        [found] = [r for r in self.rows if (r.setting, r.algo, r.variant) == (setting, algo, variant)]
        return found

    def fastest_peer(self, setting: str, algo: str) -> SpeedRow:
        """Return the row of the fastest variant that is neither the project nor the yardstick."""
        peers = [self.row(setting, algo, name) for name in VARIANTS if name not in (PROJECT, YARDSTICK)]
        return min((peer for peer in peers if peer.ratio_to_project), key=lambda peer: peer.ratio_to_project or 0.0)


def verdicts(results: Results) -> list[tuple[str, str, str]]:
    """Return target, what was measured, and whether it is met, for each target of issue 3 that holds here."""
    on_cpu = results.rows[0].device == "cpu"
    found: list[tuple[str, str, str]] = []

    def judge(target: str, value: float, met: bool, text: str) -> None:
        found.append((target, text if math.isfinite(value) else "-", MET if met else MISSED))

    for setting, algo in results.cases():
        ours, place = results.row(setting, algo, PROJECT), f"{setting} {algo}"
        if on_cpu:
            peer = results.fastest_peer(setting, algo)
            ratio, share = peer.ratio_to_project or math.nan, ours.share_of_matmul_rate or math.nan
            judge(
                f"{place}: at least {FASTER} times as fast as the fastest peer",
                ratio, ratio >= FASTER, f"{number(ratio)} times ({peer.variant})",
            )  # fmt: skip
            least = share * (ours.gflop_least or math.nan) / (ours.gflop or math.nan)
            text = f"{share:.0%}" if least == share else f"{share:.0%} ({least:.0%} counting the least work)"
            judge(f"{place}: at least half of the matrix-product rate", share, share >= SHARE, text)
        elif setting in FASTER_THAN_LOOP:
            least = FASTER_THAN_LOOP[setting]
            ratio = results.row(setting, algo, "loop").ratio_to_project or math.nan
            judge(f"{place}: at least {least:.0f} times as fast as the loop", ratio, ratio >= least, number(ratio))
        drawing = math.nan if ours.task_share is None else ours.task_share
        judge(f"{place}: making tasks takes less than 2% of a step", drawing, drawing < TASK_SHARE, f"{drawing:.2%}")
    if on_cpu:
        for setting, ratio in results.second_to_first.items():
            if setting in SECOND_TO_FIRST:
                most = SECOND_TO_FIRST[setting]
                judge(f"{setting}: maml at most {most} times fomaml", ratio, ratio <= most, f"{number(ratio)} times")
        for algo, (_, warm) in results.starts.items():
            target = f"{algo}: second start to the end of the first step in less than {START_S:.0f} s"
            judge(target, warm, warm < START_S, f"{number(warm)} s")
    return found


def markdown(results: Results) -> str:
    """Return the page: times, memory, verdicts, and how it was measured."""
    first, names = results.rows[0], list(VARIANTS)
    times, memory = [], []
    best: dict[str, float] = {}
    for row in results.rows:
        if row.algo is None and row.gflop and row.ms_min:
            best[row.variant] = max(best.get(row.variant, 0.0), 1e3 * row.gflop / row.ms_min)
    for setting, algo in results.cases():
        rows = [results.row(setting, algo, name) for name in names]
        ours, peer = results.row(setting, algo, PROJECT), results.fastest_peer(setting, algo)
        work = f"{number(ours.gflop)} ({number(ours.gflop_least)})"
        rate = f"{number(ours.gflop_per_s)} ({ours.share_of_matmul_rate or math.nan:.0%})"
        against = f"{number(peer.ratio_to_project)} ({peer.variant})"
        times.append(
            (f"{setting} {algo}", *(_cell(r, r.ms_median) for r in rows), against, work, rate, number(ours.tasks_per_s))
        )
        memory.append((f"{setting} {algo}", *(_cell(r, r.peak_mem_mib) for r in rows)))
    threads = f", {first.threads} thread{'s' if first.threads > 1 else ''}" if first.device == "cpu" else ""
    rates = "; ".join(f"{name}: {number(rate)} GFLOP/s" for name, rate in best.items())
    lines = [
        "# Speed",
        f"{first.device_name} ({first.device}{threads}), torch {first.torch_version}, commit `{first.git_commit}`,"
        f" load average {results.load:.1f} at the start, rounds: {first.rounds}.",
        f"```\n{results.command}\n```",
        "## Milliseconds per meta-iteration",
        markdown_table(
            ["", *names, "fastest peer / project", "work, GFLOP (least)", "project, GFLOP/s (share)", "tasks/s"], times
        ),
        textwrap.fill(_LEGEND.format(error=f"{results.error:.1e}", rates=rates), WIDTH),
    ]
    if any(row.peak_mem_mib is not None for row in results.rows):
        lines += ["## Peak memory, MiB", markdown_table(["", *names], memory), textwrap.fill(_MEMORY, WIDTH)]
    if results.starts:
        starts = [(algo, number(cold), number(warm)) for algo, (cold, warm) in results.starts.items()]
        lines += [
            "## Start of a worker to the end of its first meta-step, seconds",
            markdown_table(["", "first", "second"], starts),
        ]
    lines += ["## Targets", markdown_table(["target", "measured", "verdict"], verdicts(results))]
    lines.append("![milliseconds per meta-iteration](speed.png)")
    return "\n\n".join(lines) + "\n"


_LEGEND = """\
Medians over rounds; lowest and highest are in `speed.csv`. Every round runs every variant of all algorithms of its
setting, on a CPU each in a process of its own, over as many meta-iterations as fill 0.3 s after one that is not timed;
each round begins with another. Ratios and shares are taken round by round, then their median. `loop`: one task after
the other through `higher`, for reptile with `torch.optim.Adam`. `vmap`: `torch.func`. `project` makes its tasks anew at
every step; the others find theirs ready. `supervised`: forward and backward of as many images (each support image
once per inner step, each query image once) through one network, channels last, batches of 100, no optimizer. Work:
convolutions and linear layers as torch's own operators execute them in the plain loop; in brackets without what they
compute and throw away in second order (`bench/speed/work.py`). Share: of the faster of two float32 matrix products in
the same round, best of three tries; best of all rounds: {rates}. Before anything was timed, the variants' meta-
gradients agreed in float64 to a relative {error}."""

_MEMORY = """Over two meta-iterations after one to warm up. On a CPU, each in a process of its own: peak resident size
above that before; on a GPU: peak that tensors took, less what those of other variants held."""


def _cell(row: SpeedRow, value: float | None) -> str:
    return row.status if row.status != "ok" else number(value)


def plot(results: Results, page: Page = COLUMN) -> Figure:
    """Draw the times as grouped bars on a logarithmic axis, from lowest to highest round where they differ."""
    cases, device = results.cases(), results.rows[0]
    shown = [name for name in VARIANTS if any(results.row(*case, name).ms_median for case in cases)]
    height = 0.55 + (0.135 * len(shown) + 0.1) * len(cases)
    figure = new_figure(page, height)
    entitle(figure, f"Time of a meta-iteration, {device.device_name}", height)
    axes = figure.add_subplot()
    width = 0.84 / len(shown)
    rest = [name for name in shown if name not in (PROJECT, YARDSTICK)]
    for i, name in enumerate(shown):
        bars = [(y - 0.42 + (i + 0.5) * width, results.row(*case, name)) for y, case in enumerate(cases)]
        bars = [(y, row) for y, row in bars if row.ms_median]
        lengths = np.array([row.ms_median for _, row in bars], dtype=float)
        below = lengths - np.array([row.ms_min for _, row in bars], dtype=float)
        above = np.array([row.ms_max for _, row in bars], dtype=float) - lengths
        # Greys: colours stand for algorithms everywhere else.
        shade = _OURS if name == PROJECT else "white" if name == YARDSTICK else _GREYS[rest.index(name) % len(_GREYS)]
        axes.barh([y for y, _ in bars], lengths, width, color=shade, edgecolor="black", lw=0.5, label=name)
        axes.errorbar(lengths, [y for y, _ in bars], xerr=np.stack([below, above]), fmt="none", ecolor=_LINE, lw=0.8)
        for y, row in bars:
            axes.annotate(
                number(row.ms_median), (row.ms_max or 0.0, y), (3, 0), textcoords="offset points",
                ha="left", va="center", fontsize=SMALL,
            )  # fmt: skip
    axes.set_xscale("log")
    known = [row.ms_median for row in results.rows if row.algo and row.ms_median]
    axes.set_xlim(min(known) / 2, max(known) * (max(known) / min(known)) ** 0.25 * 1.3)  # room for the numbers
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(known) < 300 * min(known) else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(thousands))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(cases)), [f"{setting}\n{algo}" for setting, algo in cases])
    axes.set_ylim(len(cases) - 0.5, -0.5)
    finish(axes, "time of a meta-iteration (ms, log scale):\nmedian, line from lowest to highest round", "", True)
    axes.grid(visible=False, axis="y")
    put_legend(figure, *axes.get_legend_handles_labels()[:1])
    return figure


def ratio(above: list[float], below: list[float]) -> float:
    """Return the median of the ratios that the rounds give."""
    return median(a / b for a, b in zip(above, below, strict=True))
