"""The comparison: a process per run, finished runs kept, unfinished ones continued, failures recorded."""

from __future__ import annotations

import datetime
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.records.run import Run
from bench.runs.job import Job
from bench.runs.kept import clear, finished, recorded, usable
from bench.runs.launch import Launch
from bench.runs.launchers.launcher import PROFILER, WORKER, Launcher
from bench.runs.launchers.local import Local
from bench.runs.profile import PROFILE_SUMMARY
from bench.runs.progress import Pace, Reports, line
from bench.runs.signals import INTERRUPTED, Forwarding, forwarding_signals
from bench.settings.config import RunConfig
from bench.system.files import remove_leftovers
from bench.system.locks import Lock, Owner, run_lock
from bench.system.untrusted import check_inside

POLL_S = 0.05  # how often workers are looked after
LOOK_S = 1.0  # how often runs of other processes are


class Halted(Exception):
    """The comparison cannot go on: what it finds out cannot be written."""

    @classmethod
    def by(cls, error: OSError) -> Halted:
        """Return the one line that says so."""
        where = f": {error.filename}" if error.filename else ""
        what = "nobody reads our output any more" if isinstance(error, BrokenPipeError) else error.strerror or error
        return cls(f"{what}{where}; what has finished is kept, the same command goes on from there")


@dataclass(frozen=True)
class FollowUp:
    """Further tests of a finished run in a process of their own: a module that takes the run's job."""

    module: str
    tests: tuple[Mapping[str, Any], ...]
    """Fields of RunConfig that are otherwise, for each test."""
    done: Callable[[Run, Sequence[Mapping[str, Any]]], bool]
    """Whether a run has been through such tests."""


@dataclass(frozen=True)
class Place:
    """Where a comparison reads and writes, and the command behind it."""

    out: Path
    data_root: Path
    plugins: tuple[Path, ...] = ()
    command: str = ""
    profile: bool = False
    """Whether to write a profile beside every run that has none."""
    jobs: int = 1
    """How many runs are under way at once on this machine."""
    run_timeout_s: float | None = None
    """After which a run's process is told to leave, and killed if it does not."""
    bars: bool = True
    """Whether a run may show its progress, where there is a terminal."""
    log_file: Path | None = None
    """What gets the warnings of runs, besides stderr."""
    data_sha256: Mapping[str, str] = field(default_factory=dict)
    """Of each data set that the runs are made on, by its name: finished runs on other data of it are not theirs."""
    stated_s: float | None = None
    """How long the protocol says that each run takes; None where it does not, or where settings are others."""
    test_data_root: Path | None = None
    """Where the test data set is; None for ``data_root``."""
    follow_up: FollowUp | None = None
    """What is done with every run that is ok."""
    launcher: Launcher | None = None
    """What starts the processes of runs; None for processes of this machine."""

    @property
    def runs_by(self) -> Launcher:
        """Return what starts the processes of runs."""
        return self.launcher or Local(self.jobs)

    @property
    def data_roots(self) -> tuple[Path, Path]:
        """Return where the data sets of training and of test are."""
        return self.data_root, self.test_data_root or self.data_root


def run_all(
    configs: Sequence[RunConfig],
    place: Place,
    fresh: bool,
    say: Callable[[str], None],
    describe: Callable[[Run], str] | None = None,
    note: Callable[[str], None] = lambda line: None,
    after_run: Callable[[Run], None] | None = None,
) -> int:
    """Run what has not finished yet and return the exit status: 0 all ok, 1 some failed, 130 interrupted.

    A run that another process is at work on is left for later; what that process finishes is kept, and what it leaves
    unfinished is taken over.

    Args:
        fresh: set aside what was begun before this command and run it again.
        say: called with one line per run.
        describe: makes that line.
        note: called with one line when a run begins.
        after_run: called with every run that has ended, one that was kept included.
    Raises:
        Halted: results cannot be written.
    """
    remove_leftovers(place.out)
    with forwarding_signals() as signals:
        pace = Pace(len(configs), place.runs_by.room)
        reports = Reports(len(configs), pace, say, note, describe or line, after_run)
        return _Comparison(configs, place, fresh, reports, signals).run()


@dataclass(eq=False)
class _Item:
    """One run of the comparison."""

    number: int
    config: RunConfig
    folder: Path
    before: str | None = None
    """``started_at`` of what its folder held when another process was found at work on it: empty if nothing, None if
    none was found.
    """
    said: Owner | str = ""


class _Comparison:
    """Keeps as many runs under way as there is room for until all have ended, or a signal has come."""

    def __init__(
        self, configs: Sequence[RunConfig], place: Place, fresh: bool, reports: Reports, signals: Forwarding
    ) -> None:
        runs = place.out / "runs"
        self.place, self.fresh, self.reports, self.signals = place, fresh, reports, signals
        self.launcher = place.runs_by
        self.todo = deque(_Item(n, config, runs / config.run_id) for n, config in enumerate(configs, start=1))
        self.locked: list[_Item] = []  # by other processes
        self.active: dict[_Item, Launch] = {}
        self.began = _now()
        self.failed = False
        self._next_look = 0.0

    def run(self) -> int:
        """Return the exit status."""
        try:
            while self.active or (not self.signals.stopped and (self.todo or self.locked)):
                self._begin_some()
                for item, launch in list(self.active.items()):
                    if (code := launch.poll()) is not None:
                        del self.active[item]
                        self._after(item, launch, code)
                if self.active or self.locked or self.todo:
                    time.sleep(POLL_S)
        except OSError as error:
            raise Halted.by(error) from error
        finally:  # with some still there only where an exception ends all
            Launch.end_all(self.active.values())
        return INTERRUPTED if self.signals.stopped else int(self.failed)

    @property
    def _room(self) -> bool:
        self.reports.pace.jobs = max(1, room := self.launcher.room)
        return len(self.active) < room and not self.signals.stopped

    def _data(self, item: _Item) -> str:
        return self.place.data_sha256.get(item.config.dataset, "")

    def _begin_some(self) -> None:
        while self.todo and self._room:
            item = self.todo.popleft()
            if not self._begin(item):
                self.locked.append(item)
        if self.todo or not self.locked or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_S
        for item in list(self.locked):
            if self._room and self._begin(item):
                self.locked.remove(item)

    def _begin(self, item: _Item) -> bool:
        """Begin a run, or say that it has ended; False if another process is at work on it."""
        kept = None if self.fresh else finished(item.folder, self._data(item))
        if kept is not None and not self._further(item, kept):
            self._ended(item, kept, kept=True)
            return True
        check_inside(self.place.out, (folder := Path("runs", item.config.run_id), folder / PROFILE_SUMMARY.parent))
        lock = run_lock(self.place.out, item.config.run_id)
        if not lock.take():
            self._leave_for_later(item, lock)
            return False
        launched = False
        try:
            kept = usable(item.folder, self._data(item), self.began, self.fresh, item.before)
            if kept is not None:
                self._ended(item, kept, kept=True)
            elif item.folder.exists():
                clear(item.folder, self.place.out / "set-aside", self.fresh, self._data(item))
            if module := WORKER if kept is None else self._further(item, kept):
                self._launch(item, lock, module)
                launched = True
        finally:
            if not launched:
                lock.release()
        return True

    def _leave_for_later(self, item: _Item, lock: Lock) -> None:
        if item.before is None:
            run = recorded(item.folder)
            item.before = run.row.started_at if run else ""
        owner = lock.owner() or "another process"
        if not self.todo and not self.signals.stopped and item.said != owner:
            item.said = owner
            self.reports.waiting(item.number, item.config.run_id, owner, self.fresh)

    def _launch(self, item: _Item, lock: Lock, module: str) -> None:
        p, jobs = self.place, self.reports.pace.jobs
        job = Job(
            item.config, p.out, p.data_root, p.plugins, p.command, _now(), time.monotonic(),
            bars=p.bars and jobs == 1, place=self.reports.place_of(item.number),
            log_file=p.log_file, quiet=not p.bars, to_come=self._to_come(module), jobs=jobs, stated_s=p.stated_s,
            test_data_root=p.test_data_root, tests=p.follow_up.tests if p.follow_up else (),
            data_sha256=self._data(item),
        )  # fmt: skip
        self.active[item] = Launch(job, lock, self.launcher, self.signals, p.run_timeout_s, module)
        if module == WORKER:
            self.reports.started(item.number, job.told)

    def _to_come(self, module: str) -> int | None:
        """Return how many runs will be begun after those that can be under way with this one; None of a profile."""
        if module != WORKER:
            return None
        due = [i for i in self.todo if self.fresh or finished(i.folder, self._data(i)) is None]
        return max(0, len(due) - (self.reports.pace.jobs - 1))

    def _after(self, item: _Item, launch: Launch, code: int) -> None:
        """Record how a process ended, and go on to what the run still wants; else let the run go."""
        try:
            if launch.module == WORKER:
                run = launch.outcome(code)
                self._ended(item, run)
                if run.row.status == "interrupted" and not self.signals.stopped:
                    self.signals.on_signal(signal.SIGTERM)  # somebody stopped the worker itself: that means all of us
            elif code == 0 and launch.module == PROFILER and not self.signals.stopped:
                self.reports.say((item.folder / PROFILE_SUMMARY).read_text().replace("\\", ""))  # Markdown's escapes
            elif code != 0 and not self.signals.stopped:
                self.failed = True
                what = "profile" if launch.module == PROFILER else "further tests"
                self.reports.say(f"{self.reports.place_of(item.number)} no {what}: {launch.ended(code)}")
            if code == 0 and not self.signals.stopped and (further := self._further(item, recorded(item.folder))):
                launch.start(further)
                self.active[item] = launch
        finally:
            if item not in self.active:
                launch.close()

    def _ended(self, item: _Item, run: Run, kept: bool = False) -> None:
        meanwhile = item.before is not None or run.row.started_at >= self.began
        why = "run by another process meanwhile" if meanwhile else "kept; --fresh runs it again"
        self.reports.ended(item.number, run, why if kept else "", going_on=not self.signals.stopped)
        self.failed |= not run.ok

    def _further(self, item: _Item, run: Run | None) -> str:
        """Return the module that a run which has ended still wants to go through; empty for none."""
        if run is None or not run.ok:
            return ""
        if self.place.profile and not (item.folder / PROFILE_SUMMARY).exists():
            return PROFILER
        then = self.place.follow_up
        return then.module if then is not None and not then.done(run, then.tests) else ""


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
