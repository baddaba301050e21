"""Step time and peak memory, as interactive figures."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from bench.analysis.arms import Arm
from bench.analysis.comparison import Comparison
from bench.report.interactive.spec import FigureSpec, several
from bench.report.interactive.traces import ROW, axis, in_rows, literal, short
from bench.system.text import number


def step_time(place: int, arms: list[Arm], _: list[Comparison], look: dict[str, str]) -> FigureSpec | None:
    """Draw the time of a meta-step."""
    spec = _bars(place, arms, look, ("step_ms_median", "step_ms_p95"), "Step time", "time per meta-step (ms)", "ms")
    return spec and _with_note(spec, "Bar: median; line: to the 95th percentile.", arms)


def peak_memory(place: int, arms: list[Arm], _: list[Comparison], look: dict[str, str]) -> FigureSpec | None:
    """Draw the peak memory of training."""
    columns = ("peak_mem_mib", "peak_mem_reserved_mib")
    spec = _bars(place, arms, look, columns, "Peak memory in training", "peak memory (MiB)", "MiB")
    reserved = any(arm.values(columns[1]) for arm in arms)
    return spec and _with_note(spec, "Bar: allocated; line: to what was reserved." if reserved else "", arms)


def _with_note(spec: FigureSpec, note: str, arms: list[Arm]) -> FigureSpec:
    text = " ".join(filter(None, (note, "Means over seeds." if several(arms) else "", _beside(arms))))
    return replace(spec, note=text)


def _beside(arms: list[Arm]) -> str:
    """Name the arms that were measured beside other runs or other work."""
    found = [arm.label for arm in arms if arm.disturbed]
    named = "all" if len(found) == len(arms) else ", ".join(found)
    return f"Measured beside other runs or other work: {named}." if found else ""


def _bars(
    place: int, arms: list[Arm], look: dict[str, str], columns: tuple[str, str], title: str, label: str, unit: str
) -> FigureSpec | None:
    data = []
    shown = [arm for arm in arms if math.isfinite(arm.mean(columns[0]))]
    for i, arm in enumerate(shown):
        value, end = arm.mean(columns[0]), arm.mean(columns[1])
        seeds = f"<br>mean of {len(arm.ok)} seeds" if len(arm.ok) > 1 else ""
        hover = f"<b>{short(arm.label)}</b><br>{number(value, 4)} {unit}"
        hover += f"<br>line to {number(end, 4)} {unit}" if end > value else ""
        bar: dict[str, Any] = {"type": "bar", "orientation": "h", "x": [value], "y": [i], "width": 0.6}
        bar |= {"name": literal(arm.label), "meta": arm.label, "marker": {"color": look[arm.label]}}
        bar["hovertemplate"] = f"{hover}{seeds}<extra></extra>"
        if end > value:
            bar["error_x"] = {"type": "data", "symmetric": False, "array": [end - value], "arrayminus": [0]}
        data.append(bar)
    if not data:
        return None
    rows = [(arm.label, f"{number(arm.mean(columns[0]))} {unit}") for arm in shown]
    x_axis = axis(label) | {"rangemode": "tozero"}
    layout = {"xaxis": x_axis, **in_rows(rows, ROW + 10), "bargap": 0.3}
    return FigureSpec(columns[0], title, "", place, data, layout)
