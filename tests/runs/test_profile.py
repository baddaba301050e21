"""A profile: phases on traces with answers known beforehand, on real ones, and no effect on what a run measures."""

import contextlib
import gzip
import io
import json
from pathlib import Path

import pytest
import torch
from commands import SMALL
from trainings import make_training

from bench.runs.profile import CAPTURED, PHASES, REST, STEPS, Cost, Summary, markdown, record, summarise
from bench.runs.worker import Job
from bench.settings.config import RunConfig
from run_bench import main

NODE = "autograd::engine::evaluate_function: "


def event(name, start, end, kind="cpu_op", thread=1, **args):
    names = {"sequence": "Sequence number", "forward": "Fwd thread id", "correlation": "correlation"}
    args = {names[key]: value for key, value in args.items()}
    return {"ph": "X", "name": name, "cat": kind, "ts": start, "dur": end - start, "tid": thread, "args": args}


def window(end):
    return event("bench: meta-steps", 0, end, "user_annotation")


def test_every_microsecond_of_a_known_trace_is_in_its_phase():
    """One MAML step in miniature: a forward pass, a backward pass that makes graph, the query, the outer backward."""
    trace = [
        window(200),
        event("bench: data", 0, 10, "user_annotation"),
        event("aten::index", 2, 8),  # inside data
        event("aten::bmm", 20, 40, sequence=5, forward=0),  # makes node 5
        event(NODE + "BmmBackward0", 50, 70, sequence=5, forward=1),
        event("BmmBackward0", 51, 70, sequence=5, forward=1),
        event("aten::bmm", 52, 62, sequence=6, forward=0),  # makes node 6, inside a backward pass
        event("aten::mul", 70, 75, sequence=7, forward=0),  # the inner update makes node 7
        event("aten::bmm", 80, 90, sequence=8, forward=0),  # the query makes node 8
        event(NODE + "BmmBackward0", 100, 110, sequence=8, forward=1),
        event(NODE + "MulBackward0", 110, 114, sequence=7, forward=1),
        event(NODE + "BmmBackward0", 114, 130, sequence=6, forward=1),  # backward of backward
        event(NODE + "BmmBackward0", 130, 137, sequence=5, forward=1),  # for the second time
        event(NODE + "torch::autograd::AccumulateGrad", 137, 138),
        event("Optimizer.step#Adam.step", 150, 160, "user_annotation"),
        event("aten::add_", 155, 158),
        event("aten::bmm", 300, 400),  # after the window
        {"ph": "i", "name": "an instant", "ts": 3},
    ]
    for events in (trace, trace[::-1]):
        s = summarise(events, 2)
        assert s.total == 200
        assert s.host == {
            "data": 10, "forward": 20 + 5 + 10, "backward": 20 + 10 + 4 + 1, "second order": 16 + 7, "optimizer": 10,
            REST: 200 - 10 - 35 - 35 - 23 - 10,
        }  # fmt: skip
        own = {(c.phase, c.name): (c.calls, c.us) for c in s.operations}
        assert own["forward", "aten::bmm"] == (2, 30)
        assert own["backward", "aten::bmm"] == (1, 10)
        assert own["backward", "BmmBackward0"] == (
            3,
            (20 - 19) + (19 - 10) + 10,
        )  # the range, the node in it, the query's
        assert own["second order", "BmmBackward0"] == (2, 23)
        assert own["optimizer", "aten::add_"] == (1, 3)
        assert not s.device


def test_an_operation_that_makes_no_node_does_not_hide_the_one_that_does():
    """Both carry the number that the next node will have; the last one with it makes the node."""
    trace = [
        window(100),
        event(NODE + "A", 10, 20, sequence=1, forward=1),
        event("aten::view", 12, 13, sequence=4, forward=0),  # in a backward pass, but of no consequence
        event("aten::bmm", 30, 40, sequence=4, forward=0),
        event(NODE + "B", 50, 60, sequence=4, forward=1),
    ]
    assert summarise(trace, 1).host["second order"] == 0


def test_kernels_belong_to_the_phase_that_launched_them_and_idle_is_what_no_kernel_covers():
    def launch(number, start, thread=1, name="cudaLaunchKernel"):
        return event(name, start, start + 1, "cuda_runtime", thread, correlation=number)

    def kernel(number, start, end, kind="kernel", name="gemm"):
        return event(name, start, end, kind, 7, correlation=number)

    trace = [
        window(100),
        event("aten::bmm", 0, 10, sequence=3, forward=0),
        launch(1, 4), kernel(1, 10, 30),
        event(NODE + "BmmBackward0", 20, 30, thread=2, sequence=3, forward=1),
        event("aten::bmm", 21, 28, thread=2, sequence=0, forward=0),  # this thread counts from 0
        launch(2, 22, 2), kernel(2, 30, 50),
        event(NODE + "BmmBackward0", 40, 46, thread=2, sequence=0, forward=2),  # made in that thread: second order
        launch(3, 42, 2), kernel(3, 45, 60),  # overlaps the one before on another stream
        launch(4, 60), kernel(4, 70, 75, "gpu_memcpy", "Memcpy DtoD"),  # from no operation
    ]  # fmt: skip
    s = summarise(trace, 1)
    assert s.device == {"forward": 20, "backward": 20, "second order": 15, REST: 5}
    assert (s.in_kernels, s.in_copies) == (50, 5)
    assert s.host["second order"] == 6
    assert not s.captured
    assert [(k.phase, k.name, k.us) for k in s.kernels][:2] == [("backward", "gemm", 20), ("forward", "gemm", 20)]


def test_a_replayed_graph_has_kernels_and_idle_but_no_phases():
    trace = [
        window(100),
        event("cudaGraphLaunch", 1, 3, "cuda_runtime", correlation=9),
        *(event("gemm", 10 * i, 10 * i + 9, "kernel", 7, correlation=9) for i in range(1, 9)),
    ]
    s = summarise(trace, 4)
    assert s.captured
    assert s.device == {CAPTURED: 72}
    assert s.in_kernels == 72
    assert s.host == {**dict.fromkeys(PHASES, 0), REST: 100}


def test_a_trace_without_its_range_is_refused():
    with pytest.raises(ValueError, match="the trace holds no 'bench: meta-steps'"):
        summarise([event("aten::bmm", 0, 1)], 1)


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
        "tasks_per_s",
        "peak_mem_mib",
        "started_at",
        "beside",
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
    plugin.write_text("import sys\nif 'bench.runs.profile' in sys.orig_argv:\n    raise RuntimeError('not here')\n")
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
