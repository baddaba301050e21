"""What is said while runs are made: how long they will take, and how far one is."""

from pathlib import Path
from types import SimpleNamespace

from bench.records.columns import CurvePoint
from bench.runs import progress as said
from bench.runs.job import Job
from bench.runs.progress import Pace, Pulse
from bench.settings.config import RunConfig
from bench.system.console import Console
from bench.training.checkpoint import Progress


def test_time_left_counts_runs_under_way_and_ends_with_the_last(monkeypatch):
    """Two at a time, the first two begun together: one took 60 s, so that the other, as long, is nearly done."""
    now = [0.0]
    monkeypatch.setattr("bench.runs.progress.time.monotonic", lambda: now[0])
    pace = Pace(4, 2, began=0.0)
    assert pace.words() == "0 s gone"
    pace.start(1)
    pace.start(2)
    now[0] = 60.0
    pace.end(1)
    assert pace.words() == "1 min 0 s gone, about 1 min 0 s left"  # 3 runs of 60 s less 60 s, by two
    pace.start(3)
    now[0] = 90.0  # what takes longer than others is not counted beyond them
    assert pace.words() == "1 min 30 s gone, about 45 s left"
    assert pace.words(going_on=False) == "1 min 30 s gone"
    pace.end(2)
    pace.end(3)
    pace.end(4)  # kept, or made by others
    assert pace.words() == "1 min 30 s gone"


def test_a_log_hears_of_training_once_a_minute(monkeypatch, capsys):
    """From step 100 on, 300 of 10,000 meta-steps in every half minute: 10 a second."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(said.time, "monotonic", lambda: clock.now)
    progress = Progress({}, {}, 1, meta_step=100)
    job = Job(RunConfig(algo="maml", meta_steps=10_000), Path(), Path(), (), "", "", 0.0, place="[2/6]")
    pulse = Pulse(job, Console(), progress)
    for _ in range(5):
        pulse.look()
        clock.now, progress.meta_step = clock.now + 30.0, progress.meta_step + 300
        if progress.meta_step == 1000:
            progress.curve.append(CurvePoint(1000, 4000, 80.0, 0.8834, 0.01, 0.5))
    assert capsys.readouterr().out.splitlines() == [
        "[2/6] maml 5-way 1-shot seed 0 on auto: 700 of 10,000 meta-steps, 10 a second,"
        " about 15 min 30 s of training left",
        "[2/6] maml 5-way 1-shot seed 0 on auto: 1,300 of 10,000 meta-steps, 10 a second, val 0.883,"
        " about 14 min 30 s of training left",
    ]
