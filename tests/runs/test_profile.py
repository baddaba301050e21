"""A profile: phases of real traces, its text, and no effect on what a run measures."""

import contextlib
import gzip
import io
import json
from pathlib import Path

import pytest
import torch
from commands import SMALL
from trainings import make_training

from bench.runs.job import Job
from bench.runs.profile import STEPS, markdown, record
from bench.runs.trace import CAPTURED, PHASES, REST, Cost, Summary, summarise
from bench.settings.config import RunConfig
from run_bench import main


@pytest.mark.filterwarnings("default")  # what the profiler warns of differs between versions
@pytest.mark.parametrize(("name", "second_order"), [("maml", True), ("fomaml", False), ("reptile", False)])
def test_only_maml_has_a_second_order_and_the_phases_of_a_real_trace_add_up(name, second_order, toy_images, tmp_path):
    training = make_training(
        toy_images,
        tmp_path,
        name,
        {"inner_steps": 2},
        meta_steps=100,
        val_points=1,
        backbone="conv4",
        backbone_options={"filters": 16},
    )
    path = tmp_path / "trace.json.gz"
    assert record(training, path) == STEPS
    s = summarise(json.loads(gzip.decompress(path.read_bytes()))["traceEvents"], STEPS)
    assert sum(s.host.values()) == pytest.approx(s.total)
    assert (s.host["second order"] > 0) is second_order
    assert all(s.host[phase] > 0 for phase in ("data", "forward", "backward", "optimizer", REST))
    calls = {(c.phase, c.name): c.calls for c in s.operations}
    passes = STEPS * (2 if name == "reptile" else 3)  # 2 inner steps, and the query
    assert calls["forward", "aten::conv2d"] == 3 * passes  # the last convolution goes another way
    assert calls["backward", "aten::convolution_backward"] == 5 * passes  # two each, less that of the images
    first = next(iter(training.progress.slow.values()))
    assert torch.isfinite(first).all()


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """The same run without and with --profile, and what the second one printed."""
    folders, words = [], io.StringIO()
    for flags in ([], ["--profile"]):
        out = tmp_path_factory.mktemp("out")
        with contextlib.redirect_stdout(words):
            assert main([*SMALL, "--algos", "maml", "--out", str(out), *flags]) == 0
        folders.append(next(out.glob("runs/*")))
    return *folders, words.getvalue()


def test_a_run_with_profile_has_the_bits_of_one_without(twice):
    plain, profiled, _ = twice
    rows = [json.loads((folder / "run.json").read_text())["row"] for folder in (plain, profiled)]
    clocks = (
        "train_s",
        "eval_s",
        "setup_s",
        "step_ms_median",
        "step_ms_p95",
        "adapt_ms",
        "tasks_per_s",
        "peak_mem_mib",
        "started_at",
        "beside",
        "load",
    )
    same = [{name: value for name, value in row.items() if name not in clocks} for row in rows]
    assert same[0] == same[1]
    assert plain.name == profiled.name
    for name in ("test_tasks.csv", "adaptation.csv"):
        assert (plain / name).read_bytes() == (profiled / name).read_bytes()
    states = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (plain, profiled)]
    assert all(torch.equal(states[1]["slow"][n], w) for n, w in states[0]["slow"].items())
    assert {p.name for p in profiled.iterdir()} - {p.name for p in plain.iterdir()} == {"profile"}


def test_a_profile_is_a_trace_and_a_screen_of_text_whose_phases_add_up(twice):
    _, profiled, printed = twice
    text = (profiled / "profile" / "profile.md").read_text()
    assert len(text.splitlines()) < 50
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    names = (*PHASES, REST)
    parts = [float(cells[1]) for cells in lines if cells[0] in names]
    (total,) = (float(cells[1]) for cells in lines if cells[0] == "total")
    assert len(parts) == len(names)
    assert sum(parts) == pytest.approx(total, abs=0.0006 * len(names))
    assert text.replace("\\", "") in printed
    trace = json.loads(gzip.decompress((profiled / "profile" / "trace.json.gz").read_bytes()))
    assert summarise(trace["traceEvents"], STEPS).total / STEPS / 1e3 == pytest.approx(total, abs=0.001)


def test_a_kept_run_is_profiled_too_and_a_failure_is_said_and_counted(twice, tmp_path, capsys):
    plugin = tmp_path / "not_in_a_profile.py"
    plugin.write_text("import sys\nif sys.argv[0] == 'bench.runs.profile':\n    raise RuntimeError('not here')\n")
    out = twice[0].parent.parent
    before = (twice[0] / "run.json").read_bytes()
    assert main([*SMALL, "--algos", "maml", "--out", str(out), "--profile", "--plugin", str(plugin)]) == 1
    printed = capsys.readouterr().out
    assert "(kept; --fresh runs it again)" in printed
    assert "[1/1] no profile: the process left with status 1" in printed
    assert (twice[0] / "run.json").read_bytes() == before


@pytest.mark.parametrize("captured", [False, True])
def test_on_a_gpu_the_summary_says_how_busy_it_was(captured):
    host = {**dict.fromkeys(PHASES, 100.0), REST: 500.0}
    device = {CAPTURED if captured else "forward": 700.0}
    summary = Summary(1, 1000.0, host, [], device, 650.0, 50.0, [Cost("forward", "gemm", 3, 650.0)])
    job = Job(RunConfig(algo="maml"), *[Path()] * 2, (), "", "", 0.0)
    text = markdown(job, torch.device("cuda"), summary, 0.9)
    assert "65.0% of the time in kernels, 5.0% in copies alone, 30.0% idle" in text
    assert ("replayed from a CUDA graph" in text) is captured
    (last,) = (line for line in text.splitlines() if line.startswith("| total"))
    assert [cell.strip() for cell in last.split("|")[1:-1]] == ["total", "1.000", "100.0%", "0.700"]
