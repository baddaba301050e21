"""bench.speed: the whole script leaves its files, stops where variants disagree, and says what is wrong in a line."""

import dataclasses
import os

import pytest
import torch
from tiny_work import CASES, TINY

from bench.speed import command as speed
from bench.speed import measure as speed_measure
from bench.speed import variant as speed_variant
from bench.speed.__main__ import with_worker_environment
from bench.speed.measure import Disagreement, Product, agreement
from bench.speed.peers import PROJECT, VARIANTS, vmap_of_grad
from bench.speed.report import SpeedRow
from bench.speed.variant import Variant
from bench.system.csvfile import read_rows
from bench.system.start import WORKER_ENVIRONMENT


def test_on_a_card_variants_share_a_process(monkeypatch):
    for name in ("Variant", "VariantProcess"):
        monkeypatch.setattr(speed, name, lambda *args, name=name: name)
    kinds = [speed.start_variant(TINY["S1"], "maml", "vmap", torch.device(kind), 1, False) for kind in ("cuda", "cpu")]
    assert kinds == ["Variant", "VariantProcess"]


def test_a_variant_that_computes_something_else_stops_the_script(monkeypatch, capsys, tmp_path):
    def other_rate(problem):
        return vmap_of_grad(dataclasses.replace(problem, work=dataclasses.replace(problem.work, inner_lr=0.4001)))

    monkeypatch.setitem(VARIANTS, "vmap", other_rate)
    with pytest.raises(Disagreement, match=r"S1 maml: the meta-gradient of 'vmap' is off that of 'loop' by a relative"):
        agreement(TINY["S1"], "maml", torch.device("cpu"))
    monkeypatch.setattr(speed, "SETTINGS", TINY)
    assert speed.main(["--settings", "S1", "--out", str(tmp_path)]) == speed.FAILED
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "nothing was timed" in lines[0]
    assert not list(tmp_path.iterdir())


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
    with_worker_environment(["--rounds", "1"])
    [(_, command, environment)] = started
    assert command[1:] == ["-m", "bench.speed", "--rounds", "1"]
    assert environment.items() >= WORKER_ENVIRONMENT.items()
    for name, value in WORKER_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with_worker_environment(["--rounds", "1"])
    assert len(started) == 1
