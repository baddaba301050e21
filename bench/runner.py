"""The comparison: one fresh process per run, finished runs kept, unfinished ones continued, failures recorded."""

from __future__ import annotations

import dataclasses
import datetime
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from bench.config import RunConfig
from bench.profile import PROFILE_SUMMARY
from bench.records import RUN_FILE, Run, load_run, write_run
from bench.worker import INTERRUPTED, Job

ROOT = Path(__file__).resolve().parent.parent

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


@dataclass(frozen=True)
class Place:
    """Where a comparison reads and writes, and the command behind it."""

    out: Path
    data_root: Path
    plugins: tuple[Path, ...] = ()
    command: str = ""
    profile: bool = False
    """Whether to write a profile beside every run that has none."""


def run_all(
    configs: Sequence[RunConfig],
    place: Place,
    fresh: bool,
    say: Callable[[str], None],
    describe: Callable[[Run], str] | None = None,
) -> int:
    """Run what has not finished yet and return the exit status: 0 all ok, 1 some failed, 130 interrupted.

    Args:
        fresh: set finished runs aside and run again.
        say: called with one line per run.
        describe: makes that line.
    """
    failed = False
    for number, config in enumerate(configs, start=1):
        place_of_run = f"[{number}/{len(configs)}]"
        folder = place.out / "runs" / config.run_id
        if fresh and folder.exists():
            set_aside(folder, place.out / "set-aside")
        kept = finished(folder)
        run, stopped = (kept, False) if kept else _run_one(config, place)
        say(f"{place_of_run} {(describe or _line)(run)}{' (kept; --fresh runs it again)' if kept else ''}")
        if stopped or run.row.status == "interrupted":
            return INTERRUPTED
        failed |= not run.ok
        if place.profile and run.ok and not (folder / PROFILE_SUMMARY).exists():
            if (code := _start("bench.profile", _job(config, place))) == INTERRUPTED:
                return INTERRUPTED
            failed |= code != 0
            if code == 0:
                say((folder / PROFILE_SUMMARY).read_text().replace("\\", ""))  # Markdown's escapes
            else:
                say(f"{place_of_run} no profile: {_verdict(code)[1]}")
    return int(failed)


def finished(folder: Path) -> Run | None:
    """Return the run in ``folder`` if there is nothing left to do: it ended well, or what it measured is a leak."""
    try:
        run = load_run(folder)
    except (OSError, ValueError, RecursionError):
        return None
    return run if run.row.status in ("ok", "leaking") else None


def set_aside(folder: Path, where: Path) -> Path:
    """Move a run's folder out of the way under a name that was not taken, and return where it is now."""
    where.mkdir(parents=True, exist_ok=True)
    stamp = datetime.datetime.now().strftime("%Y%m%dT%H%M%S")
    for suffix in ("", *(f"-{i}" for i in range(1, 1000))):
        target = where / f"{folder.name}-{stamp}{suffix}"
        if not target.exists():
            return folder.rename(target)
    raise FileExistsError(f"{where} holds a thousand runs of this second")


def _run_one(config: RunConfig, place: Place) -> tuple[Run, bool]:
    """Run one configuration in a fresh process, and say whether a signal came meanwhile.

    A process that dies without a record gets one here.
    """
    job = _job(config, place)
    code = _start("bench.worker", job)
    try:
        run = load_run(job.folder)
        if run.row.started_at == job.started_at:
            return run, code == INTERRUPTED
    except (OSError, ValueError, RecursionError):
        pass
    status, error = _verdict(code)
    details = {"config": dataclasses.asdict(config), "command": place.command}
    write_run(job.folder, job.base_row(status, error), details, [], [], [])
    return load_run(job.folder), code == INTERRUPTED


def _job(config: RunConfig, place: Place) -> Job:
    started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return Job(config, place.out, place.data_root, place.plugins, place.command, started_at, time.monotonic())


def _start(module: str, job: Job) -> int:
    """Run a module on a job in a fresh process and return its exit status, INTERRUPTED if it was told to stop."""
    search_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with _forwarding_signals() as forwarding:
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", module, job.to_json()],  # -P: no module of the current folder
            env={**os.environ, **WORKER_ENVIRONMENT, "PYTHONPATH": search_path},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches it through us alone, once
        )
        forwarding.to(worker)
        code = worker.wait()
    return INTERRUPTED if forwarding.stopped else code


def _verdict(code: int) -> tuple[str, str]:
    if code == INTERRUPTED:
        return "interrupted", "stopped before it had anything to save, or at once by a second signal"
    if code == -signal.SIGKILL:
        return "oom", "the process was killed (SIGKILL), most likely by the system for want of memory"
    if code < 0:
        return "failed", f"the process was ended by {signal.Signals(-code).name}"
    return "failed", f"the process left with status {code} and no record"


class _Forwarding:
    """Hands SIGINT and SIGTERM to a worker, which saves and leaves; a second one ends it at once.

    A process inherits which signals are blocked, so a worker starts with these two blocked and lets them in when it can
    answer them (``bench.worker.Stop``): Python would lose one that comes while it imports.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.stopped = False
        self._worker: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def to(self, worker: subprocess.Popen[bytes]) -> None:
        """Let signals in from here on, those that came while the worker was being started first.

        Blocking holds a signal back from this thread alone: another one, of a library's pool, may take it, and Python
        then calls the handler here all the same.
        """
        self._worker = worker
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.SIGNALS)
        for place, number in enumerate(self._early):
            worker.send_signal(signal.SIGKILL if place else number)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Hand on the first signal, and kill at the second: no handler of Python's runs in the middle of a kernel."""
        if self._worker is None:
            self._early.append(number)
        else:
            self._worker.send_signal(signal.SIGKILL if self.stopped else number)
        self.stopped = True


@contextmanager
def _forwarding_signals() -> Iterator[_Forwarding]:
    """Hold signals back until the worker is there, then hand them on; put everything back at the end."""
    forwarding = _Forwarding()
    signal.pthread_sigmask(signal.SIG_BLOCK, forwarding.SIGNALS)
    before = {number: signal.signal(number, forwarding.on_signal) for number in forwarding.SIGNALS}
    try:
        yield forwarding
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, forwarding.SIGNALS)


def _line(run: Run) -> str:
    row = run.row
    what = f"{row.algo} {row.n_way}-way {row.k_shot}-shot seed {row.seed} on {row.dataset}"
    tested = (row.test_acc, row.test_acc_transductive)
    if row.test_error is not None:
        tested = (row.test_error, row.test_error_transductive)
    if not run.ok or None in tested:
        where = f" (traceback in {run.folder / RUN_FILE})" if "traceback" in run.details else ""
        return f"{what}: {row.status}: {row.error}{where}"
    cost = f"{row.train_s:.1f} s training, {row.step_ms_median:.1f} ms a step"
    memory = "" if row.peak_mem_mib is None else f", {row.peak_mem_mib:.0f} MiB"
    name = "" if row.measure in (None, "accuracy") else f"{row.measure} "
    return f"{what}: {name}{tested[0]:.4f} plain, {tested[1]:.4f} transductive, {cost}{memory}"
