"""Clocks that wait for the device, and the time of every meta-step."""

from __future__ import annotations

import itertools
import time

import torch

AHEAD = 16  # steps that a GPU may have before it: enough to be kept busy, few enough that a signal stops the run soon


def now(device: torch.device) -> float:
    """Return monotonic seconds once the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class StepTimes:
    """Milliseconds of every step, by CUDA events on a GPU so that measuring never makes the host wait."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.ms: list[float] = []
        self._events: list[torch.cuda.Event] = []
        self._times: list[float] = []

    def mark(self) -> None:
        """Note the end of a step; the first mark of a segment is its start."""
        if self.on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._events.append(event)
            if len(self._events) > AHEAD:
                self._events[-AHEAD].synchronize()
        else:
            self._times.append(time.perf_counter())

    def close(self) -> None:
        """End a segment: the device has been synchronised, and times between marks become milliseconds."""
        self.ms += [a.elapsed_time(b) for a, b in itertools.pairwise(self._events)]
        self.ms += [(b - a) * 1e3 for a, b in itertools.pairwise(self._times)]
        self._events, self._times = [], []
