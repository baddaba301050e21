"""bench.speed: the variants compute the same, the arithmetic is issue 3's, the whole script leaves its files."""

import dataclasses
import os
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from bench.api import BenchError
from bench.runs.processes import WORKER_ENVIRONMENT
from bench.speed import command as speed
from bench.speed import measure as speed_measure
from bench.speed import report as speed_report
from bench.speed import variant as speed_variant
from bench.speed.measure import Disagreement, Product, agreement, interleaved, seconds, start_seconds
from bench.speed.peers import PROJECT, VARIANTS, Runner, vmap_of_grad
from bench.speed.report import MET, MISSED, Results, SpeedRow, markdown, verdicts
from bench.speed.variant import Variant, VariantProcess
from bench.speed.work import SETTINGS, Problem, Work, gflop, layers, supervised_gflop
from bench.system.files import read_rows

CPU = torch.device("cpu")
TINY = {
    "S1": Work("S1", 3, 1, 2, inner_steps=2, meta_batch=2, inner_lr=0.4),
    "S4": Work("S4", 2, 1, 3, inner_steps=3, meta_batch=2, inner_lr=1e-3, inner_batch=4, algos=("reptile",)),
}
CASES = [("S1", "maml"), ("S1", "fomaml"), ("S4", "reptile")]


class FakeLearner(nn.Module):
    """learn2learn 0.2's learner: adapted weights that lead back to those of the module it was cloned from."""

    def __init__(self, module, weights, lr, first_order):
        super().__init__()
        self.inner, self.fast, self.lr, self.first_order = [module], weights, lr, first_order

    def adapt(self, loss):
        grads = torch.autograd.grad(loss, list(self.fast.values()), create_graph=not self.first_order)
        self.fast = {n: w - self.lr * g for (n, w), g in zip(self.fast.items(), grads)}

    def forward(self, x):
        return functional_call(self.inner[0], self.fast, (x,))


class FakeMAML(nn.Module):
    """learn2learn 0.2's ``algorithms.MAML``, as far as its examples use it."""

    def __init__(self, model, lr, first_order=False):
        super().__init__()
        self.module, self.lr, self.first_order = model, lr, first_order

    def clone(self):
        weights = {n: w.clone() for n, w in self.module.named_parameters()}
        return FakeLearner(self.module, weights, self.lr, self.first_order)


@pytest.fixture
def learn2learn(monkeypatch):
    """A stand-in for the library, so that the loop over it runs where it cannot be installed."""
    module = types.ModuleType("learn2learn")
    module.algorithms = types.SimpleNamespace(MAML=FakeMAML)
    module.__spec__ = types.SimpleNamespace(name="learn2learn")
    monkeypatch.setitem(sys.modules, "learn2learn", module)


@pytest.mark.parametrize(("setting", "algo"), CASES)
def test_variants_agree_in_float64(setting, algo, learn2learn):
    """Per-task loops, vmap of grad and the stacked project are independent of each other; so is the sum of tasks."""
    errors = agreement(TINY[setting], algo, CPU)
    expected = {"loop", "vmap", "project"} | ({"learn2learn"} if algo != "reptile" else set())
    assert set(errors) == expected
    assert max(errors.values()) < 1e-11


def test_a_variant_that_computes_something_else_stops_the_script(monkeypatch, capsys, tmp_path):
    def other_rate(problem):
        return vmap_of_grad(dataclasses.replace(problem, work=dataclasses.replace(problem.work, inner_lr=0.4001)))

    monkeypatch.setitem(VARIANTS, "vmap", other_rate)
    with pytest.raises(Disagreement, match=r"S1 maml: the meta-gradient of 'vmap' is off that of 'loop' by a relative"):
        agreement(TINY["S1"], "maml", CPU)
    monkeypatch.setattr(speed, "SETTINGS", TINY)
    assert speed.main(["--settings", "S1", "--out", str(tmp_path)]) == speed.FAILED
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "nothing was timed" in lines[0]
    assert not list(tmp_path.iterdir())


def test_a_gradient_that_is_no_number_does_not_pass(monkeypatch):
    def broken(problem):
        weights = {n: p.detach().clone() for n, p in problem.network().named_parameters()}
        return Runner(lambda: [w.mul_(float("nan")) for w in weights.values()], weights)

    monkeypatch.setitem(VARIANTS, "vmap", broken)
    with pytest.raises(Disagreement):
        agreement(TINY["S1"], "fomaml", CPU)


@pytest.mark.parametrize(
    ("setting", "maml", "fomaml", "images"),
    [("S1", 10.5, 5.0, 320), ("S2", 77.7, 50.3, 3200), ("S3", 105.3, 50.4, 3200)],
)
def test_work_is_that_of_the_issue(setting, maml, fomaml, images):
    work = SETTINGS[setting]
    assert round(gflop(work, "maml"), 1) == maml
    assert round(gflop(work, "fomaml"), 1) == fomaml
    assert work.support_images + work.query_images == images
    assert supervised_gflop(work) == gflop(work, "fomaml")


def test_work_by_hand():
    """Multiply-adds of a forward pass: output positions x 9 x channels in x channels out, 256 x 5 in the last layer."""
    first, rest = 14 * 14 * 9 * 64, (49 + 16 + 4) * 9 * 64 * 64 + 256 * 5
    assert sum(layer.forward for layer in layers(5)) == 2 * (first + rest)
    passes = 2 * (2 * first + 3 * rest)  # forward, gradient to weights, and to inputs but for the first layer
    assert gflop(SETTINGS["S4"], "reptile") == pytest.approx(5 * 50 * passes / 1e9)
    more = 2 * (2 * first + 6 * rest)  # second order: each of those products differentiated in both of its factors
    assert gflop(SETTINGS["S1"], "maml", least=True) == pytest.approx((320 * passes + 160 * more) / 1e9)


@pytest.mark.parametrize("algo", ["maml", "fomaml"])
def test_work_is_what_torch_counts_in_a_plain_loop(algo):
    work = dataclasses.replace(SETTINGS["S1"], meta_batch=1, inner_steps=2)
    case = Problem(work, algo, CPU)
    network, tasks = case.network(), case.tasks()
    slow = dict(network.named_parameters())
    with FlopCounterMode(display=False) as counter:
        fast = slow
        for _ in range(work.inner_steps):
            loss = F.cross_entropy(functional_call(network, fast, (tasks.support.x[0],)), tasks.support.y[0])
            grads = torch.autograd.grad(loss, list(fast.values()), create_graph=algo == "maml")
            fast = {n: w - 0.4 * g for (n, w), g in zip(fast.items(), grads)}
        loss = F.cross_entropy(functional_call(network, fast, (tasks.query.x[0],)), tasks.query.y[0])
        torch.autograd.grad(loss, list(slow.values()))
    assert gflop(work, algo) == pytest.approx(counter.get_total_flops() / 1e9, rel=1e-12)


def test_rounds_read_every_clock_once_and_begin_with_another():
    read = []

    def clock(name):
        def reading():
            read.append(name)
            return float(len(read))

        return reading

    times = interleaved({name: clock(name) for name in "abcd"}, rounds=4)
    rounds = [read[i : i + 4] for i in range(0, 16, 4)]
    assert all(sorted(names) == list("abcd") for names in rounds)
    assert [names[0] for names in rounds] == list("abcd")
    assert times["a"] == [1.0, 8.0, 11.0, 14.0]


def test_seconds_is_the_mean_over_the_calls(monkeypatch):
    clock = iter([10.0, 13.0])
    monkeypatch.setattr(speed_measure, "now", lambda device: next(clock))
    calls = []
    assert seconds(lambda: calls.append(1), 6, CPU) == 0.5
    assert len(calls) == 6


def test_ratios_are_taken_round_by_round():
    """The second round ran on a busy machine; the ratio of the medians, 22 / 10, would be wrong."""
    assert speed_report.ratio([2.0, 40.0, 22.0], [1.0, 20.0, 10.0]) == 2.0


FACTS = {"device_name": "x", "threads": 1, "torch_version": "2", "git_commit": "c", "rounds": 3}


def made_results(device, peer, share, drawing, second, warm):
    """Rows of maml and fomaml at S1 in which the best peer takes ``peer`` times as long as the project."""
    rows = []
    for algo in ("maml", "fomaml"):
        for name in VARIANTS:
            ratio = {"loop": peer, "vmap": 2 * peer, PROJECT: 1.0, "supervised": 0.5}.get(name)
            status = "ok" if ratio else "not installed"
            measured = {"ms_median": 10 * ratio, "ms_min": 9 * ratio, "ms_max": 11 * ratio} if ratio else {}
            ours = (
                {"share_of_matmul_rate": share, "task_share": drawing, "gflop": 1.0, "gflop_least": 0.5}
                if name == PROJECT
                else {}
            )
            rows.append(
                SpeedRow(
                    setting="S1", algo=algo, variant=name, status=status, ratio_to_project=ratio, device=device,
                    **measured, **ours, **FACTS,
                )
            )  # fmt: skip
    return Results(rows, 1e-13, "command", 0.1, {"S1": second}, {"maml": (20.0, warm)})


def test_verdicts_on_a_cpu_turn_at_the_targets():
    good = verdicts(made_results("cpu", peer=1.5, share=0.5, drawing=0.0199, second=2.3, warm=14.9))
    bad = verdicts(made_results("cpu", peer=1.49, share=0.49, drawing=0.02, second=2.31, warm=15.0))
    assert [target for target, *_ in good] == [target for target, *_ in bad]
    assert len(good) == 2 * 3 + 2
    assert {verdict for *_, verdict in good} == {MET}
    assert good[1][1] == "50% (25% counting the least work)"
    assert {verdict for *_, verdict in bad} == {MISSED}


def test_verdicts_on_a_gpu_turn_at_the_targets():
    for peer, expected in ((100.0, MET), (99.0, MISSED)):
        found = verdicts(made_results("cuda", peer, share=0.1, drawing=0.001, second=9.0, warm=99.0))
        assert [v for target, _, v in found if "as fast as the loop" in target] == [expected, expected]
        assert len(found) == 4


def test_the_page_names_the_variants_that_did_not_run():
    page = markdown(made_results("cpu", 1.5, 0.5, 0.01, 2.0, 4.0))
    assert "| S1 maml   |   15.0 | not installed |   30.0 |      10.0 |         5.00 |" in page


def test_the_whole_script_on_tiny_work(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(speed, "SETTINGS", TINY)
    monkeypatch.setattr(speed_measure, "LEAST_S", 0.0)
    monkeypatch.setattr(speed_measure.gc, "collect", lambda: None)  # slow among the objects of a test run
    monkeypatch.setattr(speed, "products", lambda device: [Product(1, 64), Product(4, 32)])
    monkeypatch.setattr(speed, "start_seconds", lambda algos, device, threads: dict.fromkeys(algos, (9.0, 3.0)))
    monkeypatch.setattr(speed, "start_variant", Variant)
    monkeypatch.setattr(speed_variant, "peak_here", lambda *_: 7.0)
    threads = torch.get_num_threads()
    try:
        status = speed.main(["--settings", "S1,S4", "--rounds", "2", "--threads", "1", "--out", str(tmp_path)])
    finally:
        torch.set_num_threads(threads)
    assert status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "slides",
        "speed.csv",
        "speed.json",
        "speed.md",
        "speed.png",
        "speed.svg",
    ]
    rows = read_rows(tmp_path / "speed.csv", SpeedRow)
    timed = [(row.setting, row.algo, row.variant) for row in rows if row.algo]
    assert timed == [(*case, name) for case in CASES for name in VARIANTS]
    for row in rows:
        if row.status != "ok":
            continue
        assert 0 < row.ms_min <= row.ms_median <= row.ms_max
        assert row.gflop_per_s == pytest.approx(1e3 * row.gflop / row.ms_median)
        if row.algo:
            assert row.peak_mem_mib == 7.0
            assert row.share_of_matmul_rate > 0
    assert {row.ratio_to_project for row in rows if row.variant == PROJECT} == {1.0}
    assert {row.variant for row in rows if not row.algo} == {"matmul 64 x 64", "bmm 4 x 32 x 32"}
    page = (tmp_path / "speed.md").read_text()
    assert "S4 reptile" in page
    assert page in capsys.readouterr().out
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_peak_memory_is_taken_in_a_process_of_its_own():
    """Two inner steps keep at least the first layer's outputs: 64 channels of 14 x 14 for 3 images of 32 tasks."""
    work = dataclasses.replace(TINY["S1"], meta_batch=32)
    least = 2 * 32 * 3 * 64 * 14 * 14 * 4 / 2**20
    process = VariantProcess(work, "maml", "vmap", CPU, 1, memory=True)
    try:
        assert least < process.peak < 100 * least
        assert process() > 0
    finally:
        process.close()


def test_a_variant_whose_process_dies_is_said_in_a_line():
    broken = dataclasses.replace(TINY["S1"], inner_steps=-1, n_way=10**6)
    with pytest.raises(BenchError, match=r"S1 maml vmap: its process failed: .*accepted: 2 to"):
        VariantProcess(broken, "maml", "vmap", CPU, 1, memory=False)


def test_a_second_start_is_reported_beside_the_first(monkeypatch, tmp_path):
    """The command is run_bench.py's own, twice with one --out."""
    commands = []

    def run(command, **_):
        commands.append(command)
        return types.SimpleNamespace(returncode=0)

    def load(out):
        return [types.SimpleNamespace(row=types.SimpleNamespace(algo="maml", setup_s=10.0 / len(commands)))]

    monkeypatch.setattr(speed_measure.subprocess, "run", run)
    monkeypatch.setattr(speed_measure, "load_runs", load)
    assert start_seconds(["maml"], CPU, 1) == {"maml": (10.0, 5.0)}
    assert commands[0] == commands[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--settings", "S1,S9"], "unknown setting 'S9'. Did you mean 'S4'? Accepted: S1, S2, S3, S4."),
        (["--rounds", "0"], "--rounds 0; accepted: 1 or more"),
        pytest.param(
            ["--device", "cuda"], "--device cuda: torch finds no GPU here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line(arguments, words, capsys, tmp_path):
    assert speed.main([*arguments, "--out", str(tmp_path)]) == speed.USAGE
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert words in lines[0]


def test_the_process_starts_anew_with_a_workers_allocator_settings_once(monkeypatch):
    started = []
    monkeypatch.setattr(os, "execve", lambda *call: started.append(call))
    for name in WORKER_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    speed.with_worker_environment(["--rounds", "1"])
    [(_, command, environment)] = started
    assert command[1:] == ["-m", "bench.speed", "--rounds", "1"]
    assert environment.items() >= WORKER_ENVIRONMENT.items()
    for name, value in WORKER_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    speed.with_worker_environment(["--rounds", "1"])
    assert len(started) == 1
