"""What people read while the command runs: lines on the terminal and in a log file, in colour where that is wanted."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import re
import shutil
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from bench.api import BenchError
from bench.system.start import speak_plainly

WIDEST = 100
"""Columns that nothing printed goes beyond, however wide the terminal."""

MOMENT_S = 2.0

_STYLES = {"best": "\033[1;32m", "warning": "\033[1;33m"}
_END = "\033[0m"


def width() -> int:
    """Return the columns of the terminal, 80 where there is none, at most WIDEST."""
    return max(40, min(WIDEST, shutil.get_terminal_size(fallback=(80, 24)).columns))


def folded(text: str, indent: str = "  ") -> str:
    """Return text in lines no longer than the terminal is wide, broken between words alone, further lines indented.

    A word stays whole even where it is longer, and so does a value with its interval.
    """
    columns, found = width(), []
    for line in text.split("\n"):
        if len(unstyled(line)) > columns:
            held = line.replace(" ± ", "\xa0±\xa0")
            parts = textwrap.wrap(
                held, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
            )
            line = "\n".join(part.replace("\xa0±\xa0", " ± ") for part in parts)
        found.append(line)
    return "\n".join(found)


def in_colour(stream: TextIO) -> bool:
    """Say whether to colour what goes to a stream: only on a terminal that can, and never against NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str) -> str:
    """Return text in one of the styles, as terminals understand it."""
    return f"{_STYLES[style]}{text}{_END}"


def unstyled(text: str) -> str:
    """Return text without its styles."""
    return re.sub(r"\033\[[\d;]*m", "", text)


def one_line(text: str) -> str:
    """Return text of others, a plugin's error say, as one line that does nothing to a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))


class Console:
    """Where lines go: stdout, unless it is to be quiet, and the log file, if there is one, with the time in front."""

    def __init__(self) -> None:
        speak_plainly()
        self.quiet = False
        self._log: TextIO | None = None
        self._handlers: list[logging.Handler] = []

    def open(self, quiet: bool, log_file: Path | None) -> None:
        """Begin to be quiet, and to write a log file too.

        Raises:
            BenchError: the file cannot be written.
        """
        self.quiet = quiet
        if log_file is None:
            return
        try:
            self._log = log_file.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise BenchError(
                f"--log-file {str(log_file)!r} cannot be written ({error.strerror}); accepted: a file in a folder"
                " that exists"
            ) from error
        handler = _LogHandler(self._log, self._give_up)
        handler.setFormatter(_Stamped())
        self._handlers = [handler, *([logging.lastResort] if logging.lastResort else [])]  # the latter is stderr's
        for one in self._handlers:
            logging.getLogger("bench").addHandler(one)

    def close(self) -> None:
        """Stop writing the log file."""
        for handler in self._handlers:
            logging.getLogger("bench").removeHandler(handler)
        self._handlers = []
        if self._log is not None:
            with contextlib.suppress(OSError):  # of a full disk, of which has been spoken
                self._log.close()
            self._log = None

    def say(self, line: str) -> None:
        """Print a line at once, so that a log can be followed; a terminal gets it in lines that fit."""
        self.log(line)
        if not self.quiet:
            print(folded(line) if sys.stdout.isatty() else line, flush=True)

    def note(self, line: str) -> None:
        """Print a line that only a log needs: on a terminal a progress bar says it."""
        self.log(line)
        if not self.quiet and not sys.stdout.isatty():
            print(line, flush=True)

    @contextlib.contextmanager
    def doing(self, line: str) -> Iterator[None]:
        """Say on stderr what is being waited for, if that takes more than a moment."""

        def speak() -> None:
            self.log(line)
            if not self.quiet:
                print(line, file=sys.stderr, flush=True)

        timer = threading.Timer(MOMENT_S, speak)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def warn(self, line: str) -> None:
        """Print a warning that cannot be missed, even if all else is quiet."""
        line = one_line(line)
        self.log(f"WARNING: {line}")
        rule = "!" * width()
        text = f"{rule}\n{folded(f'WARNING: {line}', '')}\n{rule}"
        print(styled(text, "warning") if in_colour(sys.stderr) else text, file=sys.stderr, flush=True)

    def complain(self, line: str) -> None:
        """Print the one line that says why the command ends."""
        line = one_line(line)
        self.log(line)
        text = f"run_bench.py: {line}"
        print(folded(text) if sys.stderr.isatty() else text, file=sys.stderr, flush=True)

    def log(self, text: str) -> None:
        """Write lines to the log file alone."""
        if self._log is not None:
            try:
                self._log.write(stamped(text))
                self._log.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: BaseException | None) -> None:
        """Go on without the log file: what is being made is worth more."""
        self.close()
        self.warn(f"--log-file cannot be written any more, going on without it ({error})")


class _LogHandler(logging.StreamHandler[TextIO]):
    """Writes a log, and speaks up once if that fails."""

    def __init__(self, stream: TextIO, failed: Callable[[BaseException | None], None]) -> None:
        super().__init__(stream)
        self._failed = failed

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        self._failed(sys.exc_info()[1])


class _Stamped(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return stamped(f"{record.levelname}: {record.getMessage()}").removesuffix("\n")


def stamped(text: str) -> str:
    """Return text with the local time in front of every line, without styles and empty lines."""
    now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return "".join(f"{now} {line}\n" for line in unstyled(text).splitlines() if line.strip())


def duration(seconds: float) -> str:
    """Return a time as people say it: ``42 s``, ``3 min 5 s``, ``2 h 40 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
