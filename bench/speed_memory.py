"""Peak memory of one variant in this process, as JSON: ``python -m bench.speed_memory JOB``, for ``bench.speed``."""

from __future__ import annotations

import json
import sys

import torch

from bench.speed_measure import peak_here, problem, settle
from bench.speedwork import Work


def main(text: str) -> int:
    """Print the peak in MiB, null if the system does not tell; return the exit status."""
    job = json.loads(text)
    device = torch.device(job["device"])
    settle(job["threads"])
    work = Work(**{**job["work"], "algos": tuple(job["work"]["algos"])})
    print(json.dumps(peak_here(problem(work, job["algo"], device), job["variant"])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
