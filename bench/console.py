"""What people read while the command runs."""

from __future__ import annotations

import sys
import textwrap

WIDTH = 100


def say(line: str) -> None:
    """Print a line at once, so that a log can be followed."""
    print(line, flush=True)


def warn(line: str) -> None:
    """Print a warning that cannot be missed."""
    rule = "!" * WIDTH
    print(f"{rule}\n{textwrap.fill(f'WARNING: {line}', WIDTH)}\n{rule}", file=sys.stderr, flush=True)
