"""Compare meta-learning algorithms on identical task streams: the entry point of what bench/cli/command.py does."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

from bench.system.start import STOPPING, started

INTERRUPTED = 130
LOADING = "loading torch and what else is needed"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status of SPEC 1."""
    argv = sys.argv[1:] if argv is None else list(argv)
    with started("run_bench.py", "" if "--quiet" in argv else LOADING):
        with _leaving_at_once():
            from bench.cli.command import main as run  # imports torch, which takes seconds
        return run(argv)


@contextlib.contextmanager
def _leaving_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process with a line: there is nothing to save yet, and what imports may swallow exceptions."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as a shell sets it for what runs in the background, and nohup
            signal.signal(number, _leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"run_bench.py: interrupted before anything was begun\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
