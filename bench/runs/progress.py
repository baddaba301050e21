"""Everything that is said while runs are made: how far each is, how it ended, how long all of them will take."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from bench.records.run import RUN_FILE, Run
from bench.runs.job import Job
from bench.settings.config import RunConfig
from bench.system.console import Console, duration, one_line
from bench.system.locks import Owner
from bench.system.text import pace, shortened
from bench.training.checkpoint import Progress
from bench.training.evaluate import ADAPTATION_STEPS

PULSE_S = 60.0
FIRST_S = 5.0  # of training, after which it shows how long all will take
BAR = "{desc} {percentage:3.0f}% |{bar}| {pace}, {remaining} left{told}"
_REST = len(" 100% || 99.9 steps/s, 10:00:00 left")  # what stands around the name and the cells, at its longest
_ROWS = 24  # tqdm shows nothing on a terminal that does not say how many it has
_CELLS = 20  # that a bar has at least, for which its text makes room


@dataclass
class Reports:
    """What is said of all runs of a comparison, each called by its number; ``run_all`` explains what it calls."""

    total: int
    pace: Pace
    say: Callable[[str], None]
    note: Callable[[str], None]
    describe: Callable[[Run], str]
    after_run: Callable[[Run], None] | None

    def place_of(self, number: int) -> str:
        """Return which of the runs it is, as in ``[2/6]``."""
        return f"[{number}/{self.total}]"

    def started(self, number: int, told: str) -> None:
        """Note that the run which messages call ``told`` is under way."""
        self.note(f"{told}: started; {self.pace.words()}")
        self.pace.start(number)

    def waiting(self, number: int, run_id: str, owner: Owner | str, fresh: bool) -> None:
        """Say for whom a run waits."""
        spared = "; --fresh leaves it alone until then" if fresh else ""
        self.say(f"{self.place_of(number)} waiting for {run_id}, run by {owner}{spared}")

    def ended(self, number: int, run: Run, kept: str = "", going_on: bool = True) -> None:
        """Say how a run ended, and why it was ``kept`` where it was not made here."""
        self.pace.end(number)
        words = self.pace.words(going_on)
        how = f" ({kept})" if kept else f"; {words}" if self.total > 1 else ""
        self.say(f"{self.place_of(number)} {self.describe(run)}{how}")
        if self.after_run is not None:
            self.after_run(run)


def line(run: Run) -> str:
    """Return one line on a run that has ended."""
    row = run.row
    what = f"{row.algo} {row.setting} seed {row.seed} on {row.dataset}"
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


@dataclass
class Pace:
    """How long the comparison has taken, and how long it will take if the runs to come take as long as those made."""

    left: int
    jobs: int
    took: list[float] = field(default_factory=list)
    under_way: dict[int, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def start(self, number: int) -> None:
        """Note that a run is under way."""
        self.under_way[number] = time.monotonic()

    def end(self, number: int) -> None:
        """Note that a run is done, whether it was made here or not."""
        self.left -= 1
        if (began := self.under_way.pop(number, None)) is not None:
            self.took.append(time.monotonic() - began)

    def words(self, going_on: bool = True) -> str:
        """Say both, or the first alone where nothing goes on."""
        now = time.monotonic()
        text = f"{duration(now - self.began)} gone"
        if self.left and self.took and going_on:
            each = sum(self.took) / len(self.took)
            work = each * self.left - sum(min(each, now - began) for began in self.under_way.values())
            text += f", about {duration(work / min(self.jobs, self.left))} left"
        return text


tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a run that is killed would leave behind


def bar(job: Job, doing: str, total: int, unit: str) -> tqdm:
    """Return the progress bar of what a run is ``doing``, so many of a ``unit``, which shows only on a terminal."""
    off = not (job.bars and sys.stderr.isatty())
    return _Bar(
        job, doing, total=total, unit=unit, disable=off, leave=False, dynamic_ncols=True, nrows=_ROWS, bar_format=BAR
    )


class _Bar(tqdm):
    """A bar that keeps its cells where the terminal is narrow: its text gets shorter instead."""

    def __init__(self, job: Job, doing: str, **look: Any) -> None:
        c = job.config
        self._name, self._further = (job.place, c.algo), (f"{c.n_way}w{c.k_shot}s s{c.seed}", doing)
        super().__init__(**look)

    @property
    def format_dict(self) -> dict[str, Any]:
        """What the bar's format may hold: that of tqdm, and the text that fits."""
        known = super().format_dict
        done, elapsed = known["n"] - known["initial"], known["elapsed"]
        rate = known["rate"] or (done / elapsed if elapsed else None)
        told = f", {known['postfix']}" if known["postfix"] else ""
        room = (known["ncols"] or 80) - _CELLS - _REST
        place, algo = self._name
        name = f"{place} {shortened(algo, max(8, min(24, room - len(place) - 1)))}".lstrip()
        room -= len(name)
        fitting = []
        for part in (f" {self._further[0]}", told, f" {self._further[1]}"):  # the most wanted first
            fitting.append(part if len(part) <= room else "")
            room -= len(fitting[-1])
        where, told, doing = fitting
        return {**known, "prefix": f"{name}{where}{doing}", "pace": pace(rate, known["unit"]), "told": told}


class Pulse:
    """Says how long the command will take once training has shown it, then how far training is, once a minute.

    A log needs the latter; on a terminal a bar does it.
    """

    def __init__(self, job: Job, console: Console, progress: Progress, shown: tqdm) -> None:
        self._job, self._console, self._progress, self._shown = job, console, progress, shown
        self._last = time.monotonic()
        self._due = self._last + PULSE_S
        self._in_a_row = False  # what comes after a validation, or first of all, is a step that warms up
        self._steps, self._took_s = 0, 0.0
        self._told = job.to_come is None

    def look(self, steps: int) -> None:
        """Count the meta-steps since the last look, 0 of them in a validation, and speak if it is time."""
        now, done = time.monotonic(), self._progress.meta_step
        if steps and self._in_a_row:
            self._steps, self._took_s = self._steps + steps, self._took_s + now - self._last
        self._last, self._in_a_row = now, steps > 0
        if not self._took_s:
            return
        rate = self._steps / self._took_s
        training = (self._job.config.meta_steps - done) / rate
        if not self._told and self._took_s >= FIRST_S:
            self._told = True
            with self._shown.external_write_mode(file=sys.stderr):
                self._whole(now - self._job.launched, training + evaluation_left(self._job.config, self._progress))
        if now < self._due:
            return
        self._due = now + PULSE_S
        total = self._job.config.meta_steps
        parts = [f"{done:,} of {total:,} meta-steps", pace(rate, "step"), so_far(self._progress)]
        left = f"about {duration(training)} of training left"
        self._console.note(f"{self._job.told}: {', '.join(filter(None, parts))}, {left}")

    def _whole(self, gone: float, left: float) -> None:
        """Say how long the command will take if its further runs take as long as this one."""
        job = self._job
        assert job.to_come is not None, "who asks has looked"
        whole = left + (gone + left) * job.to_come / job.jobs
        self._console.say(f"{job.told}: about {duration(whole)} left for the whole command, evaluation included")
        stated = (job.stated_s or 0.0) * (1 + job.to_come / job.jobs)
        if stated and gone + whole > 2 * stated:
            self._console.warn(
                f"this command will take about {duration(gone + whole)} in all. Its protocol says {duration(stated)} on"
                " 2 quiet CPU cores: this machine is slower, or other work is on its cores."
            )


def evaluation_left(config: RunConfig, progress: Progress) -> float:
    """Return about how long a run's validations and its test still take, judged by its validations so far.

    Work is counted in images that go through the network once; an adaptation step takes each support image three
    times. Plain answers take the support set through it again for every query.
    """
    if not progress.curve:
        return 0.0
    known = config.hyperparameters.get("inner_steps") or 0
    steps = known if config.eval_inner_steps is None else config.eval_inner_steps

    def task(split: str, steps: int, together: int, alone: int) -> int:
        episode = config.episodes[split][1]
        support, queries = episode.n_way * episode.k_shot, episode.n_way * episode.k_query
        return 3 * support * steps + queries * (together + alone * (support + 1))

    validation = config.val_tasks * task("meta_val", steps, 1, 0)
    test = config.test_tasks * task("meta_test", steps, 2, 2)  # before adaptation and after it
    points = len(ADAPTATION_STEPS)
    followed = min(config.adaptation_tasks, config.test_tasks)
    followed *= task("meta_test", max(ADAPTATION_STEPS), points, points)
    each = progress.eval_s / len(progress.curve)
    return each * (config.val_points + 1 - len(progress.curve) + (test + followed) / validation)


def so_far(progress: Progress) -> str:
    """Return what the last validation found, in a few words; empty before the first."""
    if not progress.curve:
        return ""
    measures = {"val": progress.curve[-1].val_acc, "val error": progress.curve[-1].val_error}
    return next((f"{name} {value:.3f}" for name, value in measures.items() if value is not None), "")
