"""``python -m bench.speed``."""

import os
import sys
from collections.abc import Sequence

from bench.system.start import WORKER_ENVIRONMENT, started


def with_worker_environment(argv: Sequence[str]) -> None:
    """Start this process anew with a worker's allocator settings, unless it has them: all variants get the same."""
    if any(os.environ.get(name) != value for name, value in WORKER_ENVIRONMENT.items()):
        os.execve(  # the allocator reads its settings once, when a process starts
            sys.executable, [sys.executable, "-m", "bench.speed", *argv], {**os.environ, **WORKER_ENVIRONMENT}
        )


if __name__ == "__main__":
    with_worker_environment(sys.argv[1:])
    with started("bench.speed", "loading torch"):
        from bench.speed.command import main

        sys.exit(main())
