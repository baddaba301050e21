"""The comparison: a process per run, finished runs kept, unfinished ones continued, failures recorded."""

from __future__ import annotations

import dataclasses
import datetime
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.records.run import RUN_FILE, Run, load_run, rewrite_status, write_run
from bench.runs import presence
from bench.runs.kept import FINISHED, clear, finished, on_other_data
from bench.runs.pace import Pace
from bench.runs.processes import Forwarding, forwarding_signals, verdict
from bench.runs.profile import PROFILE_SUMMARY
from bench.runs.worker import INTERRUPTED, Job
from bench.settings.config import RunConfig
from bench.system.console import one_line
from bench.system.files import remove_leftovers
from bench.system.locks import Lock, Owner, run_lock
from bench.system.untrusted import check_inside

POLL_S = 0.05  # how often workers are looked after
LOOK_S = 1.0  # how often runs of other processes are
GRACE_S = 10.0  # for a worker that was told to leave
INTERRUPT_S = 30.0  # for one that a signal told so: schedulers kill all of us not much later


class Halted(Exception):
    """The comparison cannot go on: what it finds out cannot be written."""

    @classmethod
    def by(cls, error: OSError) -> Halted:
        """Return the one line that says so."""
        where = f": {error.filename}" if error.filename else ""
        what = "nobody reads our output any more" if isinstance(error, BrokenPipeError) else error.strerror or error
        return cls(f"{what}{where}; what has finished is kept, the same command goes on from there")


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
    """How many runs are under way at once."""
    run_timeout_s: float | None = None
    """After which a run's process is told to leave, and killed if it does not."""
    bars: bool = True
    """Whether a run may show its progress, where there is a terminal."""
    log_file: Path | None = None
    """What gets the warnings of runs, besides stderr."""
    data_sha256: str = ""
    """Of the data that the runs are made on: finished runs on other data of that name are not theirs."""


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
        return _Comparison(configs, place, fresh, Reports(say, note, describe or _line, after_run), signals).run()


@dataclass(frozen=True)
class Reports:
    """Whom a comparison tells about its runs, as ``run_all`` says."""

    say: Callable[[str], None]
    note: Callable[[str], None]
    describe: Callable[[Run], str]
    after_run: Callable[[Run], None] | None


@dataclass(eq=False)
class _Item:
    """One run of the comparison that has not begun."""

    number: int
    config: RunConfig
    folder: Path
    waited: bool = False
    """Whether another process was found at work on it."""
    before: str | None = None
    """``started_at`` of what its folder held when that process was found."""
    said: Owner | str = ""


@dataclass(eq=False)
class _Task:
    """One run under way: its process, and what is held for it until the last one has ended."""

    item: _Item
    job: Job
    lock: Lock
    presence: socket.socket | None
    process: subprocess.Popen[bytes]
    profiles: bool = False
    """Whether the process is the one that profiles the run, after it."""
    since: float = 0.0
    told: float | None = None
    """When it was told to leave because its time was up."""


class _Comparison:
    """Keeps ``place.jobs`` runs under way until all have ended, or a signal has come."""

    def __init__(
        self,
        configs: Sequence[RunConfig],
        place: Place,
        fresh: bool,
        reports: Reports,
        signals: Forwarding,
    ) -> None:
        runs = place.out / "runs"
        self.place, self.fresh, self.reports, self.signals = place, fresh, reports, signals
        self.pace = Pace(len(configs), place.jobs)
        self.total = len(configs)
        self.todo = deque(_Item(n, config, runs / config.run_id) for n, config in enumerate(configs, start=1))
        self.locked: list[_Item] = []  # by other processes
        self.active: list[_Task] = []
        self.began = _now()
        self.failed = False
        self._next_look = 0.0
        self._stopped: float | None = None  # when a signal was first seen

    def run(self) -> int:
        """Return the exit status."""
        try:
            while self.active or (not self.signals.stopped and (self.todo or self.locked)):
                self._begin_some()
                self._attend()
                if self.active or self.locked:
                    time.sleep(POLL_S)
        except OSError as error:
            raise Halted.by(error) from error
        finally:
            self._end_all()
        return INTERRUPTED if self.signals.stopped else int(self.failed)

    @property
    def _room(self) -> bool:
        return len(self.active) < self.place.jobs and not self.signals.stopped

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
        if (
            not self.fresh
            and (kept := finished(item.folder, self.place.data_sha256)) is not None
            and not self._wants_profile(item, kept)
        ):
            self._ended(item, kept, kept=True)
            return True
        check_inside(self.place.out, (folder := Path("runs", item.config.run_id), folder / PROFILE_SUMMARY.parent))
        lock = run_lock(self.place.out, item.config.run_id)
        if not lock.take():
            self._leave_for_later(item, lock)
            return False
        try:
            kept = self._usable(item)
            if kept is None and item.folder.exists():
                clear(item.folder, self.place.out / "set-aside", self.fresh, self.place.data_sha256)
            if kept is not None:
                self._ended(item, kept, kept=True)
            if kept is None or self._wants_profile(item, kept):
                self._launch(item, lock, profiles=kept is not None)
                return True
        except BaseException:
            lock.release()
            raise
        lock.release()
        return True

    def _leave_for_later(self, item: _Item, lock: Lock) -> None:
        if not item.waited:
            item.waited, item.before = True, _started_at(item.folder)
        owner = lock.owner() or "another process"
        if not self.todo and not self.signals.stopped and item.said != owner:
            item.said = owner
            spared = "; --fresh leaves it alone until then" if self.fresh else ""
            self.reports.say(f"{self._place_of(item)} waiting for {item.config.run_id}, run by {owner}{spared}")

    def _usable(self, item: _Item) -> Run | None:
        """Return the run in the folder, which nobody is at work on, if this command need not run it.

        That is one that finished, for ``--fresh`` only if it was begun since this command was; and one that another
        process has begun meanwhile and that failed, which would only fail again.
        """
        try:
            run = load_run(item.folder)
        except (OSError, ValueError, RecursionError):
            return None
        if on_other_data(run, self.place.data_sha256):
            return None
        since = run.row.started_at >= self.began
        if run.row.status in FINISHED:
            return run if not self.fresh or (since and not run.row.resumed) else None
        others = since or (item.waited and run.row.started_at != item.before)
        return run if others and run.row.status != "interrupted" else None

    def _launch(self, item: _Item, lock: Lock, profiles: bool) -> None:
        held = presence.announce()
        try:
            job = self._job(item, presence.name_of(held))
            for torn in item.folder.glob(".*.tmp"):  # of a process that was killed while it wrote
                torn.unlink(missing_ok=True)
            task = _Task(item, job, lock, held, self._start(job, lock, held, profiles), profiles, time.monotonic())
        except BaseException:
            if held is not None:
                held.close()
            raise
        self.active.append(task)
        if not profiles:
            self.reports.note(f"{job.told}: started; {self.pace.words()}")
            self.pace.start(item.number)

    def _start(self, job: Job, lock: Lock, held: socket.socket | None, profiles: bool) -> subprocess.Popen[bytes]:
        # The worker holds the lock too: should we be killed, it goes on until its next step and saves.
        files = [lock.file, *([] if held is None else [held.fileno()])]
        process = self.signals.start("bench.runs.profile" if profiles else "bench.runs.worker", job.to_json(), files)
        lock.sign(process.pid)
        return process

    def _job(self, item: _Item, name: str) -> Job:
        p = self.place
        bars = p.bars and p.jobs == 1
        return Job(
            item.config, p.out, p.data_root, p.plugins, p.command, _now(), time.monotonic(), name, bars,
            self._place_of(item), p.log_file, not p.bars,
        )  # fmt: skip

    def _attend(self) -> None:
        """See which workers have ended, tell those to leave whose time is up, and end those that do not."""
        limit = self.place.run_timeout_s
        if self.signals.stopped and self._stopped is None:
            self._stopped = time.monotonic()
        for task in list(self.active):
            code = task.process.poll()
            if code is not None:
                self.active.remove(task)
                self.signals.remove(task.process)
                self._after(task, code)
            elif self._stopped is not None and time.monotonic() > self._stopped + INTERRUPT_S:
                task.process.kill()  # what its last checkpoint holds is kept
            elif task.told is not None:
                if time.monotonic() > task.told + GRACE_S:
                    task.process.kill()
            elif limit is not None and time.monotonic() > task.since + limit:
                task.told = time.monotonic()
                task.process.terminate()

    def _after(self, task: _Task, code: int) -> None:
        """Record how a process ended, and go on to the run's profile if one is wanted; else let the run go."""
        item, goes_on = task.item, False
        try:
            if task.profiles:
                self._profiled(task, code)
                return
            run = self._record(task, code)
            self._ended(item, run)
            if run.row.status == "interrupted" and not self.signals.stopped:
                self.signals.on_signal(signal.SIGTERM)  # somebody stopped the worker itself: that means all of us
            if not self.signals.stopped and self._wants_profile(item, run):
                task.process = self._start(task.job, task.lock, task.presence, profiles=True)
                task.profiles, task.since, task.told = True, time.monotonic(), None
                self.active.append(task)
                goes_on = True
        finally:
            if not goes_on:
                _let_go(task)

    def _record(self, task: _Task, code: int) -> Run:
        """Return what a worker has recorded; one that died without a record gets it here."""
        job = task.job
        late = f"took longer than --run-timeout {self.place.run_timeout_s:g} s" if task.told is not None else ""
        if self.signals.stopped:
            code = INTERRUPTED
        try:
            run = load_run(job.folder)
            if run.row.started_at == job.started_at:
                if late and run.row.status == "interrupted" and not self.signals.stopped:
                    return rewrite_status(run, "failed", late)
                return run
        except (OSError, ValueError, RecursionError):
            pass
        status, error = ("failed", late) if late and not self.signals.stopped else verdict(code)
        if status == "interrupted" and not self.signals.stopped:  # nobody did: a plugin ended the process so
            status, error = "failed", f"the process left with status {code} and no record"
        details = {"config": dataclasses.asdict(job.config), "command": self.place.command}
        write_run(job.folder, job.base_row(status, error), details, [], [], [])
        return load_run(job.folder)

    def _profiled(self, task: _Task, code: int) -> None:
        if self.signals.stopped:
            return
        self.failed |= code != 0
        if code == 0:
            self.reports.say((task.job.folder / PROFILE_SUMMARY).read_text().replace("\\", ""))  # Markdown's escapes
        else:
            late = f"took longer than --run-timeout {self.place.run_timeout_s:g} s" if task.told is not None else ""
            self.reports.say(f"{self._place_of(task.item)} no profile: {late or verdict(code)[1]}")

    def _ended(self, item: _Item, run: Run, kept: bool = False) -> None:
        meanwhile = item.waited or run.row.started_at >= self.began
        how = "run by another process meanwhile" if meanwhile else "kept; --fresh runs it again"
        self.pace.end(item.number)
        words = self.pace.words(going_on=not self.signals.stopped)
        how = f" ({how})" if kept else f"; {words}" if self.total > 1 else ""
        self.reports.say(f"{self._place_of(item)} {self.reports.describe(run)}{how}")
        if self.reports.after_run is not None:
            self.reports.after_run(run)
        self.failed |= not run.ok

    def _place_of(self, item: _Item) -> str:
        return f"[{item.number}/{self.total}]"

    def _wants_profile(self, item: _Item, run: Run) -> bool:
        return self.place.profile and run.ok and not (item.folder / PROFILE_SUMMARY).exists()

    def _end_all(self) -> None:
        """Have workers that are still there save and leave; there are some only where an exception ends all."""
        for task in self.active:
            if not self.signals.stopped and task.told is None:  # a second signal would end it unsaved
                task.process.terminate()
        deadline = time.monotonic() + GRACE_S
        for task in self.active:
            try:
                task.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                task.process.kill()
                task.process.wait()
            _let_go(task)


def _let_go(task: _Task) -> None:
    task.lock.release()
    if task.presence is not None:
        task.presence.close()


def _started_at(folder: Path) -> str | None:
    try:
        return load_run(folder).row.started_at
    except (OSError, ValueError, RecursionError):
        return None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _line(run: Run) -> str:
    row = run.row
    what = f"{row.algo} {row.n_way}-way {row.k_shot}-shot seed {row.seed} on {row.dataset}"
    tested = (row.test_acc, row.test_acc_transductive)
    if row.test_error is not None:
        tested = (row.test_error, row.test_error_transductive)
    if not run.ok or None in tested:
        where = f" (traceback in {run.folder / RUN_FILE})" if "traceback" in run.details else ""
        return f"{what}: {row.status}: {one_line(str(row.error))}{where}"
    cost = f"{row.train_s:.1f} s training, {row.step_ms_median:.1f} ms a step"
    memory = "" if row.peak_mem_mib is None else f", {row.peak_mem_mib:.0f} MiB"
    name = "" if row.measure in (None, "accuracy") else f"{row.measure} "
    return f"{what}: {name}{tested[0]:.4f} plain, {tested[1]:.4f} transductive, {cost}{memory}"
