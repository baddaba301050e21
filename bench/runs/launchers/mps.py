"""Several runs on one card: side by side through CUDA's multi-process service (MPS), or else in turns.

Without MPS the card works for one process at a time and changes between them (time-slicing). A process decides when it
opens the card, so the service must be there before the first run, and the command itself never opens the card.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from bench.system.start import STOPPING

MPS, TURNS = "mps", "time-slicing"
CONTROL = "nvidia-cuda-mps-control"
PIPES, LOGS, VISIBLE = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY", "CUDA_VISIBLE_DEVICES"
PROBE = Path(__file__).with_name("probe.py")
ANSWER_S, START_S, LEAVE_S = 30.0, 60.0, 30.0  # also on a machine that is busy
_ROOM = "/tmp"  # and not TMPDIR, which may be long: the path of a socket has 107 bytes
# Waits for the end of its input, which comes when we close it or end, however we do; then for the end of the last run.
_KEEPER = 'read -r _; echo quit | "$0"; rm -rf "$1"'

log = logging.getLogger("bench")


class SharedCard:
    """The card that the runs of one command share, from the first ``look`` until ``close``.

    A service that somebody else has begun is used and left alone. Otherwise a private one is begun, for the first
    visible card alone. It ends with ``close`` or with this process.
    """

    def __init__(self, say: Callable[[str], None] = log.info) -> None:
        self.say = say
        self.sharing = ""
        """How runs share the card: MPS, or TURNS and the reason; empty before the first look."""
        self.environment: Mapping[str, str] = {}
        """What the environment of each run has besides, to find the service."""
        self._keeper: subprocess.Popen[str] | None = None
        self._folder = Path()
        self._answers = False

    def look(self) -> None:
        """Begin the service, or see whether it is there still; where it is not, warn once and let runs take turns."""
        try:
            if not self.sharing:
                self._begin()
                self.sharing = MPS
                self.say(f"runs share the card through CUDA's multi-process service ({MPS})")
            elif self._answers and self.sharing == MPS:
                _servers(self.environment)
        except OSError as why:
            if not self.sharing:
                self.close()
            self.sharing, self.environment = f"{TURNS} ({why})", {}
            log.warning("runs take turns on the card (%s): %s", TURNS, why)

    def close(self) -> None:
        """End a service of our own, and forget how the card was shared."""
        keeper, self._keeper, self.sharing, self.environment = self._keeper, None, "", {}
        if keeper is None or keeper.stdin is None:
            return
        keeper.stdin.close()
        try:
            keeper.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            log.warning("%s does not end when told so, and is killed", CONTROL)
            with contextlib.suppress(OSError, ValueError):
                daemon = int((self._folder / f"{CONTROL}.pid").read_text())
                os.killpg(os.getpgid(daemon), signal.SIGKILL)  # its servers too
            keeper.kill()
            keeper.wait()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _begin(self) -> None:
        """See to it that a process that opens the card goes through the service.

        Raises:
            OSError: it does not, with the reason.
        """
        card, served = _opened({})
        if served:  # by somebody else's
            with contextlib.suppress(OSError):
                self._answers = bool(_servers({}))
            return
        if (control := shutil.which(CONTROL)) is None:
            raise OSError(f"{CONTROL}, which comes with NVIDIA's driver, is not installed")
        self._folder, self._answers = Path(tempfile.mkdtemp(prefix="bench-mps-", dir=_ROOM)), True
        folder, visible = str(self._folder), os.environ.get(VISIBLE, "").partition(",")[0].strip()
        # By its UUID: the service numbers the cards that it has from 0, and its clients go by these numbers.
        self.environment = {PIPES: folder, LOGS: folder, VISIBLE: visible if visible.startswith("MIG-") else card}
        keep = ["sh", "-c", _KEEPER, control, folder]
        self._keeper = _begun(keep, self.environment, subprocess.DEVNULL)  # first, so that nothing is left if we end
        _said(CONTROL, [control, "-d"], self.environment, START_S)
        _servers(self.environment)
        if not _opened(self.environment)[1]:
            raise OSError(f"{CONTROL} answers, but a process opens the card without it")


def _opened(environment: Mapping[str, str]) -> tuple[str, bool]:
    """Return the UUID of the card as a process with that environment opens it, and whether it went through MPS.

    Raises:
        OSError: the card cannot be opened.
    """
    card, served = _said("opening the card", [sys.executable, "-I", str(PROBE)], environment, START_S).split()[-2:]
    if served == "unknown":  # to an old driver, but the service tells what it has begun for the process
        with contextlib.suppress(OSError):
            return card, bool(_servers(environment))
    return card, served == "yes"


def _servers(environment: Mapping[str, str]) -> str:
    """Return the process numbers of the servers that the service has begun.

    Raises:
        OSError: the service does not answer.
    """
    return _said(CONTROL, [CONTROL], environment, ANSWER_S, "get_server_list\n")


def _said(what: str, command: Sequence[str], environment: Mapping[str, str], within_s: float, asked: str = "") -> str:
    """Return what a program prints when it is ``asked`` something, in one line.

    Args:
        what: the program or its task in words, for the message.
    Raises:
        OSError: it cannot be started, fails, or has not ended after ``within_s``.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as printed:  # no pipe: a daemon may keep its end open
        process = _begun(command, environment, printed)
        try:
            process.communicate(asked, within_s)
        except BaseException as error:
            process.kill()
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise OSError(f"{what}: no answer within {within_s:g} s") from None
            raise
        printed.seek(0)
        text = " ".join(printed.read().split())
    if process.returncode:
        raise OSError(f"{what}: {text or f'status {process.returncode}'}")
    return text


def _begun(command: Sequence[str], environment: Mapping[str, str], printed: int | IO[Any]) -> subprocess.Popen[str]:
    """Start a program in a session of its own with signals blocked: what is to stop runs must not end their service."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        return subprocess.Popen(
            command, env={**os.environ, **environment}, cwd="/", stdin=subprocess.PIPE, stdout=printed,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
