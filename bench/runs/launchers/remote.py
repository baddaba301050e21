"""A run on a node as the command sees it: a process that is looked at, and whose files come here as it writes them."""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ActorUnavailableError, ActorUnschedulableError, OutOfMemoryError, RayError

from bench.runs.job import Job
from bench.runs.kept import recorded
from bench.runs.launchers.node import RECORD, Look
from bench.runs.signals import INTERRUPTED
from bench.system.files import write_atomic
from bench.system.text import shortened
from bench.training.checkpoint import CHECKPOINT_FILE

if TYPE_CHECKING:
    from bench.runs.launchers.ray import Ray

LOOK_S = 0.3  # between two looks at a run
LOOKS_PER_S = 100  # at all runs together
LOSSES = 3  # in a row without a newer checkpoint, after which a run is given up
KILL_S = 5.0  # for a node to answer that a run was killed
UNAVAILABLE_S = 60.0  # after which an actor that cannot be reached is taken for lost
SILENT_S = 300.0  # after which one that has begun and does not answer is, too

log = logging.getLogger("bench")


class Remote:
    """A run elsewhere, with the methods of a process that runs need (``bench.runs.signals.Worker``).

    Lost with its node, it goes on on another from the last checkpoint that has come here.
    """

    pid = None

    def __init__(self, launcher: Ray, job: Job, module: str) -> None:
        self._launcher, self.job, self.module = launcher, job, module
        self.host = ""
        self.node: str | None = None
        """The node that it is bound to, once it has a place."""
        self.avoid: set[str] = set()
        """Nodes on which it could not begin."""
        self.why: tuple[str, str] | None = None
        """Status and error, where it is not its process that says so."""
        before = recorded(job.folder)
        self.attempts: list[Mapping[str, Any]] = list(before.details.get("attempts", ())) if before else []
        """Where and when it was begun, by earlier commands too, and how each attempt but the present one ended."""
        self._actor: Any = None
        self._code: int | None = None
        self._look: Any = None  # the outstanding one
        self._begun = False  # whether an answer has come
        self._known: dict[str, tuple[int, int]] = {}
        self._signals: deque[int] = deque()
        self._stopping = False
        self._kill_at = self._lost_at = self._silent_at = float("inf")
        self._next = self._not_before = 0.0
        self._told: list[tuple[Any, str, tuple[Any, ...]]] = []  # what it was told and has not confirmed
        self._losses, self._reached = 0, self._checkpoint

    def go_on(self, actor: Any, look: Look) -> None:
        """Take over an actor that an earlier command has begun."""
        self._actor = actor
        self._take(look)

    def poll(self) -> int | None:
        """Return the exit status, None while the run is under way; never waits."""
        if self._code is None:
            self._advance()
        return self._code

    def wait(self, timeout: float) -> int:
        """Return the exit status; ``subprocess.TimeoutExpired`` if the run does not end."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() >= end:
                raise subprocess.TimeoutExpired(self.job.told, timeout)
            time.sleep(0.02)
        return code

    def send_signal(self, number: int, /) -> None:
        """Have a signal sent at the next poll: this may be called in the middle of anything."""
        self._signals.append(number)

    def terminate(self) -> None:
        """Ask the run to leave."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the run."""
        self.send_signal(signal.SIGKILL)

    def put(self, name: str, content: bytes) -> None:
        """Write a file into the folder of the run, where it is."""
        self._tell("put", name, content)

    def drop(self) -> None:
        """End the actor, whatever it is doing."""
        if self._actor is not None:
            actor, self._actor = self._actor, None
            self._launcher.let_go(actor)

    def _advance(self) -> None:
        now = time.monotonic()
        if self._signals and self._hand_on():
            return
        if self._actor is None:
            if now < self._not_before or (placed := self._launcher.place(self)) is None:
                return
            self._actor, self.node = placed
            self._known, self._next = {}, 0.0
        if now > self._kill_at:
            self._end(-signal.SIGKILL)
            return
        self._tell_again()
        if self._look is None and now >= self._next:
            self._silent_at = now + SILENT_S if self._begun else float("inf")
            self._look = self._asked()
        if self._look is not None and ray.wait([self._look], timeout=0)[0]:
            self._answered()
        elif now > self._silent_at:
            ray.kill(self._actor)
            self._lost(f"no answer for {SILENT_S:g} s")

    def _asked(self) -> Any:
        """Ask how the run is doing; until it has answered once, ask it to begin, which it does once."""
        if self._begun:
            return self._actor.look.remote(self._known)
        parcel = self._launcher.parcel(self.job, self.module, self.attempts, self.node)
        return self._actor.begin.remote(parcel)

    def _tell(self, method: str, *args: Any) -> None:
        if self._actor is not None:
            self._told.append((getattr(self._actor, method).remote(*args), method, args))

    def _tell_again(self) -> None:
        """Tell it once more what did not reach it."""
        told, self._told = self._told, []
        for one in told:
            reference, method, args = one
            if not ray.wait([reference], timeout=0)[0]:
                self._told.append(one)
                continue
            try:
                ray.get(reference)
            except ActorUnavailableError:
                self._tell(method, *args)
            except RayError:
                pass  # the next look says what has become of it

    def _hand_on(self) -> bool:
        """Hand signals on; True if that has ended the run, which has not begun."""
        while self._signals:
            number = self._signals.popleft()
            self._stopping = True
            if not self._begun:
                self._end(-number if number == signal.SIGKILL else INTERRUPTED)
                return True
            self._tell("signal", int(number))
            if number == signal.SIGKILL:
                self._kill_at = min(self._kill_at, time.monotonic() + KILL_S)
        return False

    def _answered(self) -> None:
        reference, self._look = self._look, None
        among = len(self._launcher.workers) / LOOKS_PER_S
        self._next = time.monotonic() + max(LOOK_S, among)
        try:
            look = ray.get(reference)
        except ActorUnavailableError as error:  # the network, perhaps: it may come back
            self._lost_at = min(self._lost_at, time.monotonic() + UNAVAILABLE_S)
            if time.monotonic() > self._lost_at:
                self._lost(_why(error))
            return
        except ActorUnschedulableError as error:  # its node went before it was there: that says nothing of the run
            self._lost(_why(error), counts=False)
            return
        except RayError as error:
            words = _why(error)
            self._lost(words, oom=isinstance(error, OutOfMemoryError) or "running low on memory" in str(error))
            return
        self._lost_at = float("inf")
        self._take(look)

    def _take(self, look: Look) -> None:
        """Write what has come, the record last: it says that all else is there."""
        self.host, self._begun, self.attempts = look.host, True, list(look.attempts)
        for warning, line in look.lines:
            self._launcher.said(look.host, line, warning)
        stopped_there = look.code == INTERRUPTED and not self._stopping  # by somebody of that node
        for name in sorted(look.files, key=lambda name: name == RECORD):
            stamp, content = look.files[name]
            if not (stopped_there and name == RECORD):
                write_atomic(self.job.folder / _inside(name), content)
            self._known[name] = stamp
        if look.code is None:
            return
        for name in self._known.keys() - set(look.names):
            (self.job.folder / _inside(name)).unlink(missing_ok=True)
        if stopped_there:
            self._lost("its process was stopped there")
        else:
            self._end(look.code)

    def _lost(self, words: str, oom: bool = False, counts: bool = True) -> None:
        """Go on elsewhere, unless that has been tried often enough or the node had too little memory."""
        where = self.host or (self._launcher.called(self.node) if self.node else "a node")
        if not self._begun and self.node:
            self.avoid.add(self.node)
        present = self.attempts.pop() if self._begun and self.attempts else {}
        self.attempts.append({**present, "ended": words})
        if self._stopping:
            self._end(INTERRUPTED)
            return
        if oom:
            self.why = "oom", f"the node {where} ran out of memory ({words}); give each run more by --cpus-per-run"
            self._end(1)
            return
        reached, self._reached = self._reached, self._checkpoint
        self._losses = self._losses + counts if reached == self._reached else 1
        if self._losses >= LOSSES:
            error_words = f"lost {self._losses} times in a row without a newer checkpoint, at last {where}: {words}"
            self.why = "failed", error_words
            self._end(1)
            return
        self._launcher.say(f"{self.job.told}: lost {where} ({words}); it goes on elsewhere from its last checkpoint")
        self.drop()
        self._not_before = time.monotonic() + 2.0**self._losses  # until the cluster has noticed
        self.host, self._begun, self.node, self._look, self._told = "", False, None, None, []

    @property
    def _checkpoint(self) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            state = (self.job.folder / CHECKPOINT_FILE).stat()
            return state.st_mtime_ns, state.st_size
        return None

    def _end(self, code: int) -> None:
        self._code = code
        self.drop()
        self._launcher.workers.remove(self)


def _inside(name: str) -> PurePosixPath:
    """Return the name of a file in a folder; what would lie outside it is refused."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise OSError(f"{name!r} is no file of a run's folder")
    return path


def _why(error: RayError) -> str:
    """Return what Ray says, as one short line: why, where it knows, and else what."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(error).__name__]
    return shortened(next((line for line in lines if "dead because" in line), lines[0]), 300)
