"""What is said while runs are made: how long they will take, and how far one is."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.records.columns import CurvePoint
from bench.runs import progress as said
from bench.runs.job import Job
from bench.runs.progress import Pace, Pulse
from bench.settings.config import RunConfig
from bench.system.console import Console, duration
from bench.system.text import pace
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
    pulse = Pulse(job, Console(), progress, silent(job))
    pulse.look(100)  # those of an earlier part
    for _ in range(4):
        clock.now, progress.meta_step = clock.now + 30.0, progress.meta_step + 300
        if progress.meta_step == 1000:
            progress.curve.append(CurvePoint(1000, 4000, 80.0, 0.8834, 0.01, 0.5))
            clock.now += 7.0
            pulse.look(0)  # a validation is not training
        pulse.look(300)
    assert capsys.readouterr().out.splitlines() == [
        "[2/6] maml 5-way 1-shot seed 0 on auto: 700 of 10,000 meta-steps, 10 steps/s,"
        " about 15 min 30 s of training left",
        "[2/6] maml 5-way 1-shot seed 0 on auto: 1,300 of 10,000 meta-steps, 10 steps/s, val 0.883,"
        " about 14 min 30 s of training left",
    ]


def drawn(columns, algo, place="[5/6]", rate=None, told="", n=5, doing="training", unit="step"):
    """The line that a bar shows on a terminal of so many columns."""
    job = Job(RunConfig(algo=algo, meta_steps=20), Path(), Path(), (), "", "", 0.0, place=place)
    bar = said._Bar(job, doing, total=20, unit=unit, file=io.StringIO(), ncols=columns, bar_format=said.BAR)
    bar.n, bar.postfix = n, told
    known = {**bar.format_dict, "ascii": True}
    known["pace"] = pace(rate, unit) if rate else known["pace"]
    bar.close()
    return bar.format_meter(**known)


@pytest.mark.parametrize("algo", ["maml", "reptile_warmness", "task_normalised_first_order", "x" * 40])
@pytest.mark.parametrize("place", ["[5/6]", "[12/36]"])
@pytest.mark.parametrize("told", ["", "val 0.883"])
def test_a_bar_on_80_columns_has_20_cells_and_a_name_of_16_letters(algo, place, told):
    for rate in (0.0123, 5.6, 12.0, 999.0):
        line = drawn(80, algo, place, rate, told)
        assert len(line) <= 80
        assert len(line.partition("|")[2].rpartition("|")[0]) >= 20
        shown = line.split()[1]
        assert shown == algo or (
            len(algo) > 16 and shown in ("task_normalised..", "task..", f"{'x' * (len(shown) - 2)}..")
        )


def test_a_bar_says_more_where_there_is_room():
    assert drawn(80, "maml", told="val 0.883").startswith("[5/6] maml 5w1s s0  25% |")
    wide = drawn(120, "task_normalised_first_order", told="val 0.883")
    assert wide.startswith("[5/6] task_normalised_first.. 5w1s s0 training  25% |")
    assert wide.endswith("left, val 0.883")
    assert " 25% |" in drawn(50, "task_normalised_first_order")


@pytest.mark.parametrize(
    ("rate", "words"), [(1 / 5.6, "5.6 s/step"), (12.34, "12 steps/s"), (1.0, "1.0 steps/s"), (None, "? steps/s")]
)
def test_a_slow_rate_is_told_as_the_time_of_one(rate, words):
    assert pace(rate, "step") == words


def silent(job):
    return said.bar(job, "training", job.config.meta_steps, "step")


@pytest.mark.parametrize(
    ("stated_s", "warned"), [(None, False), (450.0, False), (430.0, True)], ids=["not stated", "stated", "twice that"]
)
def test_the_first_seconds_of_training_tell_how_long_all_will_take(stated_s, warned, monkeypatch, capsys):
    """3 s of set-up, 10 s of validation, a step that warms up, steps of half a second: told after 5 s of these.

    A validation of 10 tasks takes 10 * (3 * 5 * 2 + 5) = 350 images. The test takes
    20 * (30 + 5 * (2 + 2 * 6)) = 2,000, following 10 tasks to 50 steps 10 * (750 + 5 * (8 + 8 * 6)) = 10,300.
    """
    clock = SimpleNamespace(now=103.0)
    monkeypatch.setattr(said.time, "monotonic", lambda: clock.now)
    config = RunConfig(
        algo="maml", hyperparameters={"inner_steps": 2}, meta_steps=1000, val_points=2, val_tasks=10, test_tasks=20,
        adaptation_tasks=10,
    )  # fmt: skip
    progress = Progress({}, {}, 1, eval_s=10.0, curve=[CurvePoint(0, 0, 0.0, 0.2, 0.1, None)])
    job = Job(config, Path(), Path(), (), "", "", 100.0, place="[1/3]", to_come=2, stated_s=stated_s)
    pulse = Pulse(job, Console(), progress, silent(job))
    for passed, steps in ((0.0, 0), (10.0, 0), (1.0, 1), *[(0.5, 1)] * 12):
        clock.now += passed
        progress.meta_step += steps
        pulse.look(steps)
    said_, warning = capsys.readouterr()
    own = (1000 - 11) * 0.5 + 10.0 * (2 + (2000 + 10300) / 350)
    left = own + 2 * (19.0 + own)
    told = "[1/3] maml 5-way 1-shot seed 0 on auto: about {} left for the whole command, evaluation included\n"
    assert said_ == told.format(duration(left))
    assert ("WARNING: this command will take about" in warning) == warned
    assert warned == (bool(stated_s) and 19.0 + left > 2 * 3 * (stated_s or 0))
