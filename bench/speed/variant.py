"""One variant in a process of its own, timed when told to: ``python -m bench.speed.variant JOB``, for ``bench.speed``.

In one process the variants would share a heap, and each would be timed on what the others had left of it: on the
smallest work all of them were then slower by a quarter and more. On a card they share one.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile

import torch

from bench.api import BenchError
from bench.speed.measure import child_environment, peak_here, problem, repeated, settle
from bench.speed.peers import VARIANTS, NotAvailable
from bench.speed.work import Work


class Variant:
    """A variant set up and warm, its peak memory measured if asked for; ``reason`` says why it cannot run here."""

    def __init__(self, work: Work, algo: str, name: str, device: torch.device, threads: int, memory: bool) -> None:
        self.peak: float | None = None
        self.launches: int | None = None
        self.how = self.reason = ""
        settle(threads)
        try:
            if memory:
                self.peak = peak_here(problem(work, algo, device), name)
            runner = VARIANTS[name](problem(work, algo, device))
        except NotAvailable as reason:
            self.reason = str(reason)
            return
        self.how, self.launches = runner.how, runner.launches
        self._clock = repeated(runner.step, device)

    def __call__(self) -> float:
        """Return seconds per meta-iteration."""
        return self._clock()

    def close(self) -> None:
        """End nothing: there is no process."""


class VariantProcess:
    """The same from another process, which waits between readings.

    Raises:
        BenchError: the process has died; the message is its last line.
    """

    def __init__(self, work: Work, algo: str, name: str, device: torch.device, threads: int, memory: bool) -> None:
        self._label = f"{work.name} {algo} {name}"
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # open as long as the process
        job = {"work": dataclasses.asdict(work), "algo": algo, "name": name, "device": device.type}
        text = json.dumps({**job, "threads": threads, "memory": memory})
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bench.speed.variant", text],
            env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        self.peak, self.launches, self.how, self.reason = json.loads(self._answer())

    def __call__(self) -> float:
        """Return seconds per meta-iteration."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or [f"it left with status {code}"])[-1]
            self.close()
            raise BenchError(f"{self._label}: its process failed: {last}")
        return line


def main(text: str) -> int:
    """Set the variant up, say what is known of it, and time it once for every line that is read."""
    job = json.loads(text)
    work = Work(**{**job["work"], "algos": tuple(job["work"]["algos"])})
    variant = Variant(work, job["algo"], job["name"], torch.device(job["device"]), job["threads"], job["memory"])
    print(json.dumps([variant.peak, variant.launches, variant.how, variant.reason]), flush=True)
    for _ in sys.stdin:
        print(variant(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
