"""What a Chrome trace of meta-steps says: the time of every phase and operation, on the host and on a GPU."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.tasks.stream import DATA

WINDOW = "bench: meta-steps"
"""The range that is around the meta-steps to be looked at."""

# In this order: where two threads work at once, the time counts for the first of them.
PHASES = ("second order", "backward", "optimizer", "data", "forward")
REST = "idle and other"
CAPTURED = "in a CUDA graph"
_SECOND, _BACKWARD, _OPTIMIZER, _DATA, _FORWARD = PHASES
_NODE = "autograd::engine::evaluate_function: "
_LAUNCHES = ("cuda_runtime", "cuda_driver")
_COPIES = ("gpu_memcpy", "gpu_memset")


@dataclass(frozen=True)
class Cost:
    """Time of one name, in all recorded steps together, in microseconds."""

    phase: str
    name: str
    calls: int
    us: float


@dataclass(frozen=True)
class Summary:
    """What a trace says about ``steps`` meta-steps; times in microseconds, of all steps together."""

    steps: int
    total: float
    host: Mapping[str, float]
    """By phase, REST among them; their sum is ``total``."""
    operations: Sequence[Cost]
    """Time spent in an operation itself, without those that it calls, on the host."""
    device: Mapping[str, float] = field(default_factory=dict)
    """Time of kernels and copies by the phase that launched them, CAPTURED those of a CUDA graph; empty on a CPU."""
    in_kernels: float = 0.0
    in_copies: float = 0.0
    kernels: Sequence[Cost] = ()


@dataclass(eq=False)
class _Event:
    name: str
    kind: str
    thread: Any
    start: float
    end: float
    sequence: int | None
    forward_thread: int
    correlation: int | None
    inner: float = 0.0
    root: _Event | None = None
    phase: str | None = None


def summarise(trace: Iterable[Mapping[str, Any]], steps: int) -> Summary:
    """Return what the events of a Chrome trace say about the recorded meta-steps.

    Raises:
        ValueError: the trace holds no WINDOW.
    """
    events = [_parse(e) for e in trace if e.get("ph") == "X" and "dur" in e]
    window = next((e for e in events if (e.name, e.kind) == (WINDOW, "user_annotation")), None)
    if window is None:
        raise ValueError(f"the trace holds no {WINDOW!r}")
    inside = [e for e in events if window.start <= e.start < window.end and e is not window]
    host = sorted((e for e in inside if e.kind in ("cpu_op", "user_annotation")), key=lambda e: (e.start, -e.end))
    roots = _find_roots(host)
    _tell_orders_apart(host, window.thread)
    spans = [(e.start, min(e.end, window.end), e.phase) for e in roots]
    by_phase = _cover(spans, PHASES)
    total = window.end - window.start
    host_us = {phase: by_phase[phase] for phase in PHASES} | {REST: total - sum(by_phase.values())}
    operations = _totals((e.root.phase or REST, e.name.removeprefix(_NODE), e.end - e.start - e.inner)
                         for e in host if e.kind == "cpu_op" and e.root is not None)  # fmt: skip

    on_device = [e for e in inside if e.kind in ("kernel", *_COPIES)]
    launches = {e.correlation: e for e in events if e.kind in _LAUNCHES}
    threads: dict[Any, list[_Event]] = {}
    for e in roots:
        threads.setdefault(e.thread, []).append(e)
    for e in on_device:
        e.phase = _launched_in(launches.get(e.correlation), threads)
    device: dict[str, float] = {}
    for e in on_device:
        device[e.phase or REST] = device.get(e.phase or REST, 0.0) + e.end - e.start
    busy = _cover([(e.start, e.end, "kernel" if e.kind == "kernel" else "copy") for e in on_device], ("kernel", "copy"))
    kernels = _totals((e.phase or REST, e.name, e.end - e.start) for e in on_device)
    return Summary(steps, total, host_us, operations, device, busy["kernel"], busy["copy"], kernels)


def _parse(event: Mapping[str, Any]) -> _Event:
    args = event.get("args", {})
    start = float(event["ts"])
    return _Event(
        event["name"], event.get("cat", ""), event.get("tid"), start, start + float(event["dur"]),
        args.get("Sequence number"), args.get("Fwd thread id", 0), args.get("correlation"),
    )  # fmt: skip


def _find_roots(host: Sequence[_Event]) -> list[_Event]:
    """Give every event the outermost one around it that has a phase, and its children's time; return those roots.

    Args:
        host: by start, the longer first where two start together.
    """
    roots, stacks = [], dict[Any, list[_Event]]()
    for e in host:
        stack = stacks.setdefault(e.thread, [])
        while stack and stack[-1].end <= e.start:
            stack.pop()
        parent = next((p for p in reversed(stack) if p.kind == "cpu_op"), None)
        if parent is not None and e.kind == "cpu_op":
            parent.inner += e.end - e.start
        e.root = next((p.root for p in reversed(stack) if p.root is not None), None)
        if e.root is None and (phase := _phase_of(e)):
            e.root, e.phase = e, phase
            roots.append(e)
        stack.append(e)
    return roots


def _phase_of(e: _Event) -> str | None:
    if e.kind == "user_annotation":
        return _DATA if e.name == DATA else _OPTIMIZER if e.name.startswith("Optimizer.step#") else None
    return _BACKWARD if e.name.startswith(_NODE) else _FORWARD


def _tell_orders_apart(host: Sequence[_Event], main_thread: Any) -> None:
    """Turn ``backward`` into ``second order`` at the roots that are.

    A node of autograd carries the thread it was made in and that thread's running number; the operation that made it
    is the last one with that number.
    """
    made_by: dict[int, _Event] = {}
    seen: set[tuple[int, int]] = set()
    usual: int | None = None  # the main thread's name in the trace: the first node to run was made there
    for e in host:
        if e.sequence is None or e.sequence < 0:
            continue
        if e.name.startswith(_NODE):
            key = (e.forward_thread, e.sequence)
            usual = e.forward_thread if usual is None else usual
            maker = made_by.get(e.sequence) if e.forward_thread == usual else None
            elsewhere = e.forward_thread != usual  # a GPU's backward has a thread of its own: made in a backward pass
            in_backward = maker is not None and maker.root is not None and maker.root.name.startswith(_NODE)
            if e.root is e and (key in seen or elsewhere or in_backward):
                e.phase = _SECOND
            seen.add(key)
        elif e.thread == main_thread and not e.forward_thread:
            made_by[e.sequence] = e


def _cover(spans: Iterable[tuple[float, float, str | None]], order: Sequence[str]) -> dict[str, float]:
    """Return how long each of ``order`` goes on while none before it does."""
    edges = sorted([(start, 1, kind) for start, end, kind in spans] + [(end, -1, kind) for start, end, kind in spans])
    active, found, last = dict.fromkeys(order, 0), dict.fromkeys(order, 0.0), 0.0
    for at, change, kind in edges:
        current = next((k for k in order if active[k]), None)
        if current is not None:
            found[current] += at - last
        last = at
        if kind is not None:
            active[kind] += change
    return found


def _launched_in(launch: _Event | None, threads: Mapping[Any, Sequence[_Event]]) -> str:
    """Return the phase of the operation that a kernel was launched from."""
    if launch is None:
        return REST
    if "GraphLaunch" in launch.name:
        return CAPTURED
    roots = threads.get(launch.thread, ())
    i = bisect.bisect_right(roots, launch.start, key=lambda e: e.start) - 1
    return roots[i].phase or REST if i >= 0 and launch.start < roots[i].end else REST


def _totals(parts: Iterable[tuple[str, str, float]]) -> list[Cost]:
    """Return time and calls by phase and name, the longest first."""
    found: dict[tuple[str, str], list[float]] = {}
    for phase, name, us in parts:
        found.setdefault((phase, name), []).append(us)
    costs = [Cost(phase, name, len(times), sum(times)) for (phase, name), times in found.items()]
    return sorted(costs, key=lambda c: (-c.us, c.phase, c.name))
