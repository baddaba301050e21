"""What holds from the first line of a command on, before torch is there: how it stops and speaks.

Nothing here imports more than the standard library, so that a command says within a second what it is doing.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

URGENT = (signal.SIGINT, signal.SIGTERM)
"""Of these a second one ends runs at once."""
STOPPING = (*URGENT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
"""What users, terminals and batch systems send to have a command save and leave."""

# glibc gives large blocks back to the system at once and faults every page in again at the next step, which costs a
# training step up to half of its time; these keep them. Threads that come and go would change the order of sums.
WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**26),
    "OMP_DYNAMIC": "FALSE",
    "MKL_DYNAMIC": "FALSE",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "KINETO_LOG_LEVEL": "99",  # the profiler's own log, which calls a machine without a GPU an error
}

_CHARACTERS = {"±": "+/-", "\N{REPLACEMENT CHARACTER}": "?"}  # others are written as Python escapes them
_IMPORTED = {"PIL": "pillow"}  # packages that are imported under another name
_USAGE = 2  # exit status
_ROOT = Path(__file__).resolve().parents[2]


def worker_environment() -> dict[str, str]:
    """Return what a worker's environment has besides the user's, and the speed comparison has for all alike."""
    search_path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    return {**WORKER_ENVIRONMENT, "PYTHONPATH": search_path}


def heeded() -> tuple[signal.Signals, ...]:
    """Return those of STOPPING that we answer: none that nohup has ignored, none that others here have use for."""
    free = (signal.SIG_DFL, signal.default_int_handler)
    return tuple(number for number in STOPPING if number in URGENT or signal.getsignal(number) in free)


def requirement(module: str | None) -> str | None:
    """Return the line that says how to get a module that is not there, None if it is none of those we require."""
    name = (module or "").partition(".")[0]
    package = _IMPORTED.get(name, name)
    file = _ROOT / "requirements.txt"
    with contextlib.suppress(OSError):
        if name and re.search(rf"^{re.escape(package)}\b", file.read_text(encoding="utf-8"), re.MULTILINE):
            return f"the package {package} is not installed; `pip install -r {file.name}` installs it"
    return None


@contextlib.contextmanager
def started(program: str, doing: str = "") -> Iterator[None]:
    """Begin a command before it imports what takes long: say so, and make one line of a package that is missing.

    Args:
        program: what its messages begin with.
        doing: what is said of the wait that begins now; nothing is where torch is loaded already.
    """
    speak_plainly()
    if doing and sys.modules.get("torch") is None:
        print(f"{program}: {doing}", file=sys.stderr, flush=True)
    try:
        yield
    except ModuleNotFoundError as error:
        if (line := requirement(error.name)) is None:
            raise
        print(f"{program}: {line}", file=sys.stderr)
        sys.exit(_USAGE)


def speak_plainly() -> None:
    """Have stdout and stderr write what they cannot encode as plain letters: no character costs a result."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_PLAIN)


def as_shown(text: str) -> str:
    """Return text as stdout will show it, so that it can be measured."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, errors=_PLAIN).decode(encoding)


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    parts = []
    for character in error.object[error.start : error.end]:
        text = _CHARACTERS.get(character)
        parts.append(character.encode("ascii", "backslashreplace").decode() if text is None else text)
    return "".join(parts), error.end


_PLAIN = "bench-plain"
codecs.register_error(_PLAIN, _replaced)
