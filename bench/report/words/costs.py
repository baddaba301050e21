"""What training cost, and how long it took to an accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.analysis.arms import Arm, by_setting
from bench.analysis.naming import place
from bench.analysis.time_to_accuracy import THRESHOLDS, ArmReached, of_arm, spacing
from bench.report.words.parts import per_setting
from bench.system.text import counted, escape, fraction, markdown_table, number

MEMORY = {
    "cuda": "peak memory allocated by torch since the end of warm-up, in brackets what it reserved",
    "cpu": "peak resident size above the size just before training",
}


def costs(arms: Sequence[Arm]) -> list[str]:
    """Return the tables of times and memory."""
    headers = ["algorithm", "train s", "evaluation s", "set-up s", "step ms", "p95 ms", "tasks/s", "peak MiB", "device"]
    columns = ("train_s", "eval_s", "setup_s", "step_ms_median", "step_ms_p95", "tasks_per_s")
    further = {"peak_tensor_mib": "tensors MiB", "adapt_ms": "adapt ms"}  # not of runs of the first version
    further = {column: header for column, header in further.items() if any(arm.values(column) for arm in arms)}
    headers[-1:-1] = further.values()

    def table(members: list[Arm]) -> list[str]:
        rows = []
        for arm in members:
            row = next(iter(arm.ok.values())).row
            mark = " *" if arm.disturbed else ""
            peak = number(max(arm.values("peak_mem_mib"), default=None))
            reserved = arm.values("peak_mem_reserved_mib")
            peak += f" ({number(max(reserved))})" if reserved else ""
            device = f"{row.device}: {row.device_name}" if row.device_name else row.device
            costs = [*(number(arm.mean(c)) + mark for c in columns), peak, *(number(arm.mean(c)) for c in further)]
            rows.append([arm.label, *costs, device])
        return [markdown_table(headers, rows)]

    rows = [run.row for arm in arms for run in arm.ok.values()]
    intro = "Means over seeds, but the peak is the largest. Training time is meta-steps only; step is the median."
    for device in sorted({row.device.partition(":")[0] for row in rows}):
        intro += f" Peak on {escape(device)}: {MEMORY.get(device, 'as that device reports it')}."
    if "peak_tensor_mib" in further:
        intro += (
            " Tensors: the most that one meta-step makes and holds at once, whatever the process and its allocator do."
            " Adapt: adaptation to one test task and its answers, the median."
        )
    if company := _company(arms):
        intro += (
            f" **Times marked \\* were measured beside {company}: they say what that machine gave, not what the "
            "algorithm takes.**"
        )
    if len({(row.device, row.device_name) for row in rows}) > 1:
        intro += " **Times and memory of different devices are not comparable.**"
    return [intro, *per_setting(arms, table)]


def _company(arms: Sequence[Arm]) -> str:
    """Say beside what times were measured; empty where the machine was quiet."""
    others, load = max((arm.beside for arm in arms), default=0), max((arm.load for arm in arms), default=0.0)
    runs = f"other runs on the same machine, up to {others} at once" if others else ""
    work = f"others' work, on up to {load:.1f} of its cores on average" if load else ""
    return " and ".join(filter(None, (runs, work)))


def times(arms: Sequence[Arm]) -> list[str]:
    """Return the blocks on time to accuracy, none where no run has validation accuracies."""
    shown = [arm for arm in arms if of_arm(arm)]
    if not shown:
        return []
    intro = (
        "Training time (meta-steps only) and training tasks up to the first validation with at least that accuracy, "
        "median over seeds; it stands there only if every seed got there: a miss is a miss, and so is a seed that "
        "diverged before. Nothing is interpolated: a time is late by up to the distance between two validations. "
        "Validation is transductive, on characters of its own and few tasks: ± is the half-width of the 95% interval "
        "of its last point, by which a first crossing may come early or late."
    )
    if len({(run.row.device, run.row.device_name) for arm in shown for run in arm.ok.values()}) > 1:
        intro += " **Times on different devices are not comparable.**"
    blocks = ["## Time to accuracy", intro]
    headers = ["algorithm", "seeds", "validated every", "±", *(f"{threshold:.2f}" for threshold in THRESHOLDS)]
    for _, members in by_setting(shown):
        rows = []
        for arm in members:
            found, gap = of_arm(arm), spacing(arm)
            every = f"{counted(round(gap[0]), 'step')} ({number(gap[1])} s)" if gap else "-"
            last = [run.curve[-1].val_acc_ci95 for run in arm.ok.values() if run.curve]
            half = max((h for h in last if h is not None and math.isfinite(h)), default=None)
            rows.append([arm.label, len(found[0].runs), every, fraction(half), *map(told, found)])
        blocks += [f"### {escape(place(members[0], arms))}", markdown_table(headers, rows)]
    return blocks


def told(found: ArmReached) -> str:
    """Say in a few words how long the seeds took, or that they did not all get there."""
    if found.median_s is not None and found.median_tasks is not None:
        return f"{number(found.median_s)} s ({found.median_tasks:,.0f} tasks)"
    if found.hits:
        return f"{found.hits} of {len(found.runs)} seeds"
    return f"not reached (best {found.best:.3f})" if math.isfinite(found.best) else "not reached"
