"""Runs for TensorBoard: curves as scalars over meta-steps, hyperparameters with what came out beside them."""

from __future__ import annotations

import datetime
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.analysis.results import Results, results_of
from bench.api import BenchError
from bench.records.run import RUN_FILE, Run
from bench.report.outputs import Files, output
from bench.settings.config import OPTIONS
from bench.system.files import write_atomic
from bench.system.untrusted import check_inside

FOLDER = "tensorboard"
_METRICS = ("test_acc", "test_acc_transductive", "test_error", "test_error_transductive")
_COSTS = ("train_s", "step_ms_median", "peak_mem_mib")


def writer(out: Path) -> Callable[[Run], None]:
    """Return what writes a run's events into ``out/tensorboard/RUN_ID``, unless they are there already.

    Older events of the run are replaced; other files stay.

    Raises:
        BenchError: the package is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a package that is not ours
            import torch.utils.tensorboard  # noqa: F401  # only to see whether it is there
    except ImportError as error:
        raise BenchError(
            f"--tensorboard: the package tensorboard cannot be imported ({error}); pip install tensorboard"
        ) from error

    def write(run: Run) -> None:
        folder = Path(FOLDER, run.folder.name)
        check_inside(out, (FOLDER, folder))
        there = list((out / folder).glob("events.*"))
        record = run.folder / RUN_FILE
        if there and all(path.stat().st_mtime > record.stat().st_mtime for path in there):
            return
        for path in there:
            path.unlink(missing_ok=True)
        for name, content in tensorboard(results_of([run])).items():
            write_atomic(out / name, content)

    return write


@output(FOLDER, "curves and hyperparameters of every run for TensorBoard", when="asked")
def tensorboard(results: Results) -> Files:
    """Return the events of every run, whatever its status."""
    return {f"{FOLDER}/{run.folder.name}/{_file_name(run)}": _events(run) for run in results.runs}


def _file_name(run: Run) -> str:
    return f"events.out.tfevents.{int(_timestamp(run.row.started_at))}.bench"


def _events(run: Run) -> bytes:
    """Return the events of a run.

    The wall-clock of an event is the start of the run and the training time up to it, so that TensorBoard's axis
    RELATIVE shows training time.
    """
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    began = _timestamp(run.row.started_at)
    with tempfile.TemporaryDirectory() as folder:  # the package writes files and nothing else
        with SummaryWriter(folder) as events:
            for tag, value, step, seconds in _scalars(run):
                events.add_scalar(tag, value, step, walltime=began + seconds)
            metrics = {f"result/{name}": _known(getattr(run.row, name)) for name in (*_METRICS, *_COSTS)}
            found = {name: value for name, value in metrics.items() if value is not None}
            for summary in hparams(_settings(run), dict.fromkeys(found, 0.0)):
                events._get_file_writer().add_summary(summary)
            end = began + (run.row.train_s or 0.0)
            for name, value in found.items():
                events.add_scalar(name, value, run.row.meta_steps, walltime=end)
        (file,) = Path(folder).iterdir()
        return file.read_bytes()


def _scalars(run: Run) -> Iterator[tuple[str, float, int, float]]:
    """Yield tag, value, step and seconds of training of every point that is a number."""
    for point in run.curve:
        columns = {"val/accuracy": point.val_acc, "val/error": point.val_error, "train/query_loss": point.query_loss}
        for tag, value in columns.items():
            if _known(value) is not None:
                yield tag, float(value or 0.0), point.meta_step, point.train_s
    for adapted in run.adaptation:
        for kind, value in (("accuracy", adapted.acc), ("error", adapted.error)):
            if _known(value) is not None:
                tag = f"adaptation/{kind} {adapted.mode}, by inner step"
                yield tag, float(value or 0.0), adapted.step, run.row.train_s or 0.0


def _settings(run: Run) -> dict[str, Any]:
    """Return what decided the run, settings of algorithm and network among them, as TensorBoard takes it."""
    config = run.details.get("config")
    known = dict(config) if isinstance(config, Mapping) else {}
    named = {name: getattr(run.row, name) for name in ("algo", "dataset", "protocol", "n_way", "k_shot", "seed")}
    flat = {**named, **{name: value for name, value in known.items() if not isinstance(value, Mapping)}}
    for part in OPTIONS:
        if isinstance(nested := known.get(part), Mapping):
            flat |= nested
    flat["status"] = run.row.status
    return {n: v if isinstance(v, bool | int | float | str) else str(v) for n, v in flat.items()}


def _known(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _timestamp(started_at: str) -> float:
    try:
        return datetime.datetime.fromisoformat(started_at).timestamp()
    except ValueError:  # a record made by hand
        return 0.0
