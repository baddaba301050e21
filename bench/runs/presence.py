"""How many runs are under way on this machine, whatever command or user started them.

Each holds a socket with a name and no file (Linux' abstract namespace), which the kernel takes away with the last
process that holds it. The names are seen in ``/proc/net/unix`` by all processes of one network namespace: a container
with a network of its own sees its own runs alone.
"""

from __future__ import annotations

import secrets
import socket
import time
from pathlib import Path

_PREFIX = "meta-bench-run-"
_NAMES = Path("/proc/net/unix")
_LOOK_S = 1.0


def announce() -> socket.socket | None:
    """Return a socket that says, while it is open here or in a child, that a run is under way; None if none can."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"\0{_PREFIX}{secrets.token_hex(8)}")
    except OSError:  # a sandbox
        held.close()
        return None
    return held


def name_of(held: socket.socket | None) -> str:
    """Return the name of what ``announce`` returned, empty for None."""
    return held.getsockname()[1:].decode() if held is not None else ""


def under_way() -> set[str] | None:
    """Return the names of all runs that are under way on this machine; None where that cannot be known."""
    try:
        found = (line.rpartition("@")[2].strip() for line in _NAMES.read_text().splitlines() if f"@{_PREFIX}" in line)
        return set(found)
    except OSError:
        return None


class Company:
    """The largest number of other runs that were seen beside the one called ``name``, None while that is not known.

    ``earlier`` is what earlier parts of the run have seen.
    """

    def __init__(self, name: str, earlier: int | None = None) -> None:
        self.name, self.most = name, earlier
        self._next = 0.0

    def look(self) -> int | None:
        """Look around, at most once a second so that training does not notice, and return the largest number so far."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LOOK_S
            if (names := under_way()) is not None:
                self.most = max(self.most or 0, len(names - {self.name}))
        return self.most
