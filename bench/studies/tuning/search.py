"""All searches of a command: trials are asked for, made in processes of their own, and told, until each has enough."""

from __future__ import annotations

import dataclasses
import datetime
import math
import signal
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.api import BenchError
from bench.records.run import Run
from bench.records.tuning import FOLDER, Search, Trial, write_search
from bench.runs.job import Job
from bench.runs.kept import recorded, set_aside
from bench.runs.launch import Launch
from bench.runs.runner import LOOK_S, POLL_S, Halted, Place
from bench.runs.signals import Forwarding, forwarding_signals
from bench.settings.config import RunConfig
from bench.studies.tuning.asking import Asked
from bench.studies.tuning.question import Question, with_values
from bench.studies.tuning.storage import Study
from bench.studies.tuning.trial import PRUNED
from bench.system.console import one_line
from bench.system.locks import Lock, turn
from bench.system.text import fraction
from bench.system.untrusted import check_inside
from bench.training.checkpoint import CHECKPOINT_FILE

MODULE = "bench.studies.tuning.trial"


@dataclass(frozen=True)
class Claim:
    """A trial that this process works on, its lock held."""

    number: int
    config: RunConfig
    lock: Lock


class Trials:
    """The trials of one search, as far as this process and others have come.

    Args:
        measured: what is measured and its kind, as ``accuracy`` and ``acc``.
        wanted: how many trials are to be made.
        fresh: whether to set aside what there is, unless somebody is at work on it.
    """

    def __init__(self, question: Question, place: Place, measured: tuple[str, str], wanted: int, fresh: bool) -> None:
        self.question, self.place, self.wanted, self.measured = question, place, wanted, measured
        self.within = f"{FOLDER}/{question.name}"
        self.folder = place.out / self.within
        check_inside(place.out, (FOLDER, self.within, f"{self.within}/runs"))
        with self._turn():
            if fresh and self.folder.exists() and not self._at_work():
                set_aside(self.folder, place.out / "set-aside")
            self.study = Study(self.folder, question.name, measured[1], question.config.val_points)
            self.study.begin(question.values)

    def claim(self) -> Claim | None:
        """Return a trial to work on: one that its process has left, or a new one; None where there is none now.

        What a process has recorded before it was killed is told first.
        """
        with self._turn():
            while True:
                for number in self.study.running:
                    lock = self._lock(number)
                    if not lock.take():
                        continue
                    if (claim := self._begun(number, lock)) is not None:
                        return claim
                if self.study.begun >= self.wanted:
                    return None
                number = self.study.ask()
                lock = self._lock(number)
                if not lock.take():
                    raise BenchError(f"{lock.path} is locked by {lock.owner() or 'another process'}, for a new trial")
                if (claim := self._begun(number, lock)) is not None:
                    return claim

    def _begun(self, number: int, lock: Lock) -> Claim | None:
        """Return a trial, its lock held; None, and the lock let go of, where it has ended."""
        values = self.study.suggest(number, self.question.spaces)
        try:
            config = self.question.trial(number, values)
        except BenchError as error:
            self.study.tell(number, Trial(number, "failed", values, 0, 0.0, error=str(error)))
            lock.release()
            return None
        run = recorded(self.place.out / self.within / "runs" / config.run_id)
        if run is None or run.row.status == "interrupted":
            return Claim(number, config, lock)
        self.study.tell(number, self._ended(number, run))
        lock.release()
        return None

    @property
    def done(self) -> bool:
        """Whether as many trials as wanted have ended."""
        return len(self.study.ended(self.wanted)) >= self.wanted

    def tell(self, claim: Claim, run: Run) -> Trial:
        """Note how a trial ended, and write the record of the search."""
        ended = self._ended(claim.number, run)
        with self._turn():
            self.study.tell(claim.number, ended)
            (run.folder / CHECKPOINT_FILE).unlink(missing_ok=True)
            self._write()
        return ended

    def finished(self) -> Search:
        """Write the record of the search and return it."""
        with self._turn():
            return self._write()

    def _write(self) -> Search:
        c, measured = self.question.config, self.measured
        known = {f.name for f in dataclasses.fields(Search)}
        search = Search(
            **{name: value for name, value in vars(c).items() if name in known and name != "backbone"},
            name=self.question.name,
            backbone=c.network,
            measure=measured[0],
            kind=measured[1],
            data_sha256=self.question.data_sha256,
            spaces={name: dataclasses.asdict(space) for name, space in self.question.spaces.items()},
            importance=self.study.importance(self.wanted),
            trials=tuple(self.study.ended(self.wanted)),
        )
        write_search(self.folder, search)
        return search

    def _ended(self, number: int, run: Run) -> Trial:
        row, last = run.row, run.curve[-1] if run.curve else None
        state = PRUNED if run.details.get(PRUNED) else "complete"
        if row.status not in ("ok", "leaking"):
            state = row.status if row.status in ("diverged", "oom") else "failed"
        error = self.measured[1] == "error"
        score = None if last is None else last.val_error if error else last.val_acc
        half = None if last is None else last.val_error_ci95 if error else last.val_acc_ci95
        why = row.error
        if score is not None and not math.isfinite(score):  # no number is worse than that, and none can be compared
            state, score, half, why = "diverged", None, None, why or "meta-validation gave no finite score"
        if state == "complete" and score is None:
            state = "failed"
        steps = (row.tasks_seen or 0) // self.question.config.meta_batch
        seconds = (row.train_s or 0.0) + (row.eval_s or 0.0)
        values = self.study.suggest(number, self.question.spaces)
        return Trial(number, state, values, steps, seconds, score, half, why, row.stream_sha256)

    def _turn(self) -> Any:
        return turn(self.place.out / "locks" / f"{self.question.name}.lock", "a search, which is being worked on")

    def _lock(self, number: int) -> Lock:
        return Lock(self.place.out / "locks" / f"{self.question.name}-{number}.lock")

    def _at_work(self) -> bool:
        """Whether a process is at work on a trial."""
        for path in sorted((self.place.out / "locks").glob(f"{self.question.name}-*.lock")):
            lock = Lock(path)
            if not lock.take():
                return True
            lock.release()
        return False


def search(
    questions: Iterable[Question],
    trials: int,
    measured: tuple[str, str],
    place: Place,
    fresh: bool,
    say: Callable[[str], None],
    note: Callable[[str], None],
) -> dict[str, Search] | None:
    """Make ``trials`` trials of every question and return the searches by name; None where a signal has come.

    Trials that have ended are kept, those that another process is at work on are waited for.

    Raises:
        Halted: results cannot be written.
    """
    distinct = {question.name: question for question in questions}.values()
    with forwarding_signals() as signals:
        try:
            found = [Trials(question, place, measured, trials, fresh) for question in distinct]
            if not _Making(found, place, signals, say, note).run():
                return None
            return {one.question.name: one.finished() for one in found}
        except OSError as error:
            raise Halted.by(error) from error


class _Making:
    """Keeps as many trials under way as there is room for until every search has enough, or a signal has come."""

    def __init__(
        self,
        searches: Collection[Trials],
        place: Place,
        signals: Forwarding,
        say: Callable[[str], None],
        note: Callable[[str], None],
    ) -> None:
        self.open, self.place, self.signals, self.say, self.note = deque(searches), place, signals, say, note
        self.launcher = place.runs_by
        self.active: dict[Launch, tuple[Trials, Claim, Asked]] = {}
        self._next_look = 0.0

    def run(self) -> bool:
        """Return whether all searches have enough trials."""
        try:
            while self.active or (self.open and not self.signals.stopped):
                self._begin_some()
                for launch, (trials, claim, asked) in list(self.active.items()):
                    if not self.launcher.here:
                        asked.look(trials.study, claim.number)
                    if (code := launch.poll()) is not None:
                        del self.active[launch]
                        asked.close()
                        self._after(trials, claim, launch, code)
                time.sleep(POLL_S)
        finally:
            Launch.end_all(list(self.active))
        return not self.open and not self.signals.stopped

    def _begin_some(self) -> None:
        """Begin trials, those of the first search that has some to be made."""
        if time.monotonic() < self._next_look:
            return
        for trials in list(self.open):
            while len(self.active) < self.launcher.room and not self.signals.stopped:
                if (claim := trials.claim()) is None:
                    break
                self._launch(trials, claim)
            if trials.done:
                self.open.remove(trials)
        waiting = len(self.active) < self.launcher.room
        self._next_look = time.monotonic() + LOOK_S if waiting else 0.0  # for trials of other processes

    def _launch(self, trials: Trials, claim: Claim) -> None:
        p, jobs, launched = self.place, max(1, self.launcher.room), False
        told = f"[{claim.config.algo} trial {claim.number}, {claim.number + 1}/{trials.wanted}]"
        job = Job(
            claim.config, p.out, p.data_root, p.plugins, p.command,
            datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"), time.monotonic(),
            bars=p.bars and jobs == 1, place=told, log_file=p.log_file, quiet=not p.bars, jobs=jobs,
            within=trials.within, trial=claim.number,
        )  # fmt: skip
        try:
            launch = Launch(job, claim.lock, self.launcher, self.signals, p.run_timeout_s, MODULE)
            launched = True
        finally:
            if not launched:
                claim.lock.release()
        self.active[launch] = trials, claim, Asked(launch.job.folder, launch.put)
        self.note(f"{told} {_told(trials.study.suggest(claim.number, trials.question.spaces))}: started")

    def _after(self, trials: Trials, claim: Claim, launch: Launch, code: int) -> None:
        try:
            run = launch.outcome(code)
            if run.row.status == "interrupted":
                if not self.signals.stopped:
                    self.signals.on_signal(signal.SIGTERM)  # somebody stopped the trial itself: that means all of us
                return
            ended = trials.tell(claim, run)
        finally:
            launch.close()
        self._next_look = 0.0
        self.say(f"[{claim.config.algo} trial {claim.number}, {claim.number + 1}/{trials.wanted}] {line(ended, run)}")


def line(trial: Trial, run: Run) -> str:
    """Return one line on a trial that has ended."""
    steps = f"{trial.meta_steps:,} of {run.row.meta_steps:,} meta-steps"
    if trial.state not in ("complete", PRUNED):
        return f"{_told(trial.values)}: {trial.state} after {steps}: {one_line(str(trial.error))}"
    how = f", pruned after {steps}" if trial.state == PRUNED else ""
    measure = "val" if run.row.measure in (None, "accuracy") else f"val {run.row.measure}"
    return f"{_told(trial.values)}: {measure} {fraction(trial.score)}{how}"


def _told(values: Mapping[str, Any]) -> str:
    shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in values.items()}
    return ", ".join(f"{name}={value}" for name, value in shown.items())


def chosen(config: RunConfig, found: Search) -> RunConfig | None:
    """Return the run with the settings of the best trial; None where no trial was complete."""
    if (best := found.best) is None:
        return None
    return with_values(config, best.values, **found.cost)
