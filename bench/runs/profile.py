"""Where the time of a meta-step goes: ``main`` records a few and writes trace and summary.

A process of its own, started after the run has been recorded: nothing of it can reach the run's results.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from bench.records.run import load_run
from bench.registry import load_plugin
from bench.runs.job import Job
from bench.runs.outcome import Outcome
from bench.runs.signals import UNWRITABLE
from bench.runs.trace import CAPTURED, PHASES, REST, WINDOW, Cost, Summary, summarise
from bench.runs.worker import set_up
from bench.system.files import write_atomic
from bench.system.start import STOPPING
from bench.system.text import markdown_table, number
from bench.training.checkpoint import CHECKPOINT_FILE
from bench.training.clocks import now
from bench.training.train import Training

PROFILE_TRACE, PROFILE_SUMMARY = Path("profile/trace.json.gz"), Path("profile/profile.md")  # in a run's folder
WARM_STEPS, STEPS = 3, 5  # meta-steps before those that are recorded, and those
_TOP = 10

DEFINITIONS = f"""\
data: drawing tasks and gathering their images. backward: nodes of autograd that run. second order: those among them
that differentiate a backward pass, or go through a part of the graph for the second time. optimizer: torch's, in the
meta-step. forward: every other operation, the inner updates among them. {REST}: no operation runs; Python, the
bookkeeping of autograd, waiting. Where two threads work at once, the time counts once, for the backward pass."""


class _Done(Exception):
    """Enough has been recorded."""


def main(text: str) -> int:
    """Profile the run of a job and write its folder; returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing to save
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # the runner blocks them
    job = Job.from_json(text)
    for path in job.plugins:
        load_plugin(path)
    short = dataclasses.replace(job.config, meta_steps=1000, val_points=1, val_tasks=2)
    with tempfile.TemporaryDirectory() as scratch:
        training, _ = set_up(dataclasses.replace(job, config=short), Outcome(), Path(scratch) / CHECKPOINT_FILE)
        path = Path(scratch) / PROFILE_TRACE.name
        steps = record(training, path)
        content = path.read_bytes()
    summary = summarise(json.loads(gzip.decompress(content))["traceEvents"], steps)
    unprofiled = load_run(job.folder).row.step_ms_median
    try:
        write_atomic(job.folder / PROFILE_TRACE, content)
        write_atomic(job.folder / PROFILE_SUMMARY, markdown(job, training.device, summary, unprofiled))
    except OSError:
        return UNWRITABLE
    return 0


def record(training: Training, path: Path) -> int:
    """Write a trace of some meta-steps after warm-up to ``path`` and return their number."""
    gpu = training.device.type == "cuda"
    profiler = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])])
    window = record_function(WINDOW)
    done = first = 0

    def advance(steps: int) -> None:
        nonlocal done, first
        before, done = done, done + steps
        if first and done - first >= STEPS:
            now(training.device)
            window.__exit__(None, None, None)
            profiler.stop()
            raise _Done
        if before < WARM_STEPS - 1 <= done:
            profiler.start()  # a step early: it has to warm up itself
        elif done >= WARM_STEPS and not first:
            first = done
            now(training.device)
            window.__enter__()

    try:
        training.run(advance)
    except _Done:
        profiler.export_chrome_trace(str(path))
    return done - first


def markdown(job: Job, device: torch.device, summary: Summary, unprofiled: float | None) -> str:
    """Return profile.md, which fits a screen."""
    s, config = summary, job.config
    per_step = s.total / s.steps / 1e3
    without = f"; {number(unprofiled)} ms in the run itself, without the profiler" if unprofiled else ""
    headers, phases = ["phase", "ms per step", "share"], (*PHASES[::-1], REST)
    rows = [[phase, _ms(s.host[phase], s), _share(s.host[phase], s)] for phase in phases]
    rows.append(["total", _ms(sum(s.host.values()), s), _share(sum(s.host.values()), s)])
    parts = [
        f"# Profile: {config.algo}, {config.n_way}-way {config.k_shot}-shot, meta-batch {config.meta_batch} ({device})",
        f"{s.steps} meta-steps after {WARM_STEPS} of warm-up, {number(per_step)} ms each{without}.",
    ]
    if s.device:
        headers.append("kernels, ms per step")
        rows = [[*row, _ms(s.device.get(str(row[0]), 0.0), s)] for row in rows[:-1]]
        if CAPTURED in s.device:  # of a graph a trace shows kernels only
            rows.append([CAPTURED, "-", "-", _ms(s.device[CAPTURED], s)])
            parts.append(
                "Steps are replayed from a CUDA graph: the trace shows their kernels, not which phase each is of."
            )
        rows.append(["total", _ms(s.total, s), _share(s.total, s), _ms(sum(s.device.values()), s)])
        idle = s.total - s.in_kernels - s.in_copies
        parts.append(
            f"GPU: {_share(s.in_kernels, s)} of the time in kernels, {_share(s.in_copies, s)} in copies alone,"
            f" {_share(idle, s)} idle."
        )
    parts += [markdown_table(headers, rows), _table("operation, by its own time on the host", s.operations, s)]
    if s.kernels:
        parts.append(_table("kernel", s.kernels, s))
    return "\n\n".join([*parts, DEFINITIONS]) + "\n"


def _table(title: str, costs: Sequence[Cost], s: Summary) -> str:
    rows = [
        [c.name if len(c.name) <= 48 else c.name[:45] + "...", c.phase, number(c.calls / s.steps), _ms(c.us, s),
         _share(c.us, s)]
        for c in costs[:_TOP]
    ]  # fmt: skip
    return markdown_table([title, "phase", "calls per step", "ms per step", "share"], rows)


def _ms(us: float, s: Summary) -> str:
    return f"{us / s.steps / 1e3:.3f}"


def _share(us: float, s: Summary) -> str:
    return f"{us / s.total:.1%}"
