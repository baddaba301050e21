"""One run under way: a process, wherever a launcher starts it, from its start to what it leaves."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import time
from collections.abc import Collection

from bench.network.build import KNOWN
from bench.records.run import Run, load_run, rewrite_status, write_run
from bench.runs import presence
from bench.runs.job import Job
from bench.runs.kept import recorded
from bench.runs.launchers.launcher import Launcher
from bench.runs.signals import INTERRUPTED, Forwarding
from bench.system.locks import Lock

GRACE_S = 10.0  # for a process that was told to leave
INTERRUPT_S = 30.0  # for one that a signal told so: schedulers kill all of us not much later


class Launch:
    """A job under way, with its lock held and its presence announced until it is closed.

    Args:
        lock: taken already, and let go of at the end. The process holds it too: should we be killed, it goes on until
            its next step and saves.
        launcher: starts the process.
        limit_s: after which the process is told to leave, and killed if it does not.
        module: WORKER, PROFILER, or that of a follow-up.
    """

    def __init__(
        self, job: Job, lock: Lock, launcher: Launcher, signals: Forwarding, limit_s: float | None, module: str
    ) -> None:
        self._lock, self._launcher, self._signals, self._limit_s = lock, launcher, signals, limit_s
        self._stopped: float | None = None  # when a signal was first seen
        self._presence = presence.announce() if launcher.here else None
        ways = dict(KNOWN) if launcher.here else {}  # another machine's kernels may give other numbers
        self.job = dataclasses.replace(
            job, presence=presence.name_of(self._presence), commit=launcher.commit, ways=ways
        )  # fmt: skip
        try:
            for torn in job.folder.glob(".*.tmp"):  # of a process that was killed while it wrote
                torn.unlink(missing_ok=True)
            self.start(module)
        except BaseException:
            self.close()
            raise

    def start(self, module: str) -> None:
        """Run the job by a fresh process; what is held for it stays held."""
        files = [self._lock.file, *([] if self._presence is None else [self._presence.fileno()])]
        self.job = self._launcher.adopt(self.job, module)
        self._process = self._launcher.start(self._signals, module, self.job, files)
        self._lock.sign(self._process.pid)
        self.module, self._since = module, time.monotonic()
        self._told: float | None = None  # when it was told to leave

    def poll(self) -> int | None:
        """Return the exit status of the process, None while it is there; see to it that it leaves once it is due."""
        now = time.monotonic()
        if self._signals.stopped and self._stopped is None:
            self._stopped = now
        if (code := self._process.poll()) is not None:
            self._signals.remove(self._process)
            return code
        if self._stopped is not None and now > self._stopped + INTERRUPT_S:
            self._process.kill()  # what its last checkpoint holds is kept
        elif self._told is not None:
            if now > self._told + GRACE_S:
                self._process.kill()
        elif self._limit_s is not None and self._stopped is None and now > self._since + self._limit_s:
            self._leave()
        return None

    def put(self, name: str, content: bytes) -> None:
        """Give a run that is elsewhere a file in its folder."""
        self._launcher.put(self._process, name, content)

    @property
    def late(self) -> str:
        """Say that the process took too long, where it was told to leave for that; else nothing."""
        return f"took longer than --run-timeout {self._limit_s:g} s" if self._told is not None else ""

    def outcome(self, code: int) -> Run:
        """Return what the worker has recorded; one that left with ``code`` and no record gets it here."""
        job, late, stopped = self.job, self.late, self._signals.stopped
        run = recorded(job.folder)
        if run is not None and run.row.started_at == job.started_at:
            gave_up = late and run.row.status == "interrupted" and not stopped
            return rewrite_status(run, "failed", late) if gave_up else run
        ended = self._launcher.ending(self._process, INTERRUPTED if stopped else code)
        status, error = ("failed", late) if late and not stopped else ended
        if status == "interrupted" and not stopped:  # nobody did: a plugin ended the process so
            status, error = "failed", f"the process left with status {code} and no record"
        config = dataclasses.asdict(job.config)
        details = {"config": config, "command": job.command, "hyperparameters": config["hyperparameters"]}
        cells, further = self._launcher.known(self._process)
        row = dataclasses.replace(job.base_row(status, error), **cells)
        write_run(job.folder, row, {**details, **further}, [], [], [])
        return load_run(job.folder)

    def ended(self, code: int) -> str:
        """Return why a process that was to leave no row left with ``code``."""
        return self.late or self._launcher.ending(self._process, code)[1]

    def close(self) -> None:
        """Let go of what is held for a process that has ended."""
        self._lock.release()
        if self._presence is not None:
            self._presence.close()

    def _leave(self) -> None:
        self._told = time.monotonic()
        self._process.terminate()

    @staticmethod
    def end_all(launches: Collection[Launch]) -> None:
        """Have the processes that are still there save and leave, and kill those that do not."""
        for launch in launches:
            if not launch._signals.stopped and launch._told is None:  # a second signal would end it unsaved
                launch._leave()
        deadline = time.monotonic() + GRACE_S
        with contextlib.ExitStack() as closing:  # all of them, whatever becomes of one
            for launch in launches:
                closing.callback(launch.close)
                closing.callback(launch._see_off, deadline)

    def _see_off(self, deadline: float) -> None:
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(GRACE_S)
