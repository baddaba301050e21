"""What training held, and that it stays where it is over thousands of meta-steps; a run that loses some says so."""

import gc
import json
import resource
import sys
from itertools import count
from pathlib import Path

import pytest
import torch
from trainings import CPU, make_training

from bench.api import MetaGrad
from bench.registry import ALGORITHMS
from bench.training.memory import (
    LEAK_FLOOR,
    LEAK_SAMPLES,
    MIB,
    OPEN_FILES,
    Held,
    LiveTensors,
    Memory,
    growth,
    is_out_of_memory,
    open_files,
    peak_of_tensors,
)

OURS = [name for name in ALGORITHMS.names() if ALGORITHMS.get(name).__module__.startswith("algorithms.")]
BLOCKS_PER_STEP = 3  # the times and the loss of a step are kept, a number each


@pytest.mark.parametrize(
    ("held", "grown"),
    [
        ([], 0), ([7], 0), ([1, 5], 4), ([5, 1], 0), ([3, 3, 3, 3], 0),
        ([1, 2, 3, 4], 3), ([1, 9, 1, 1], 0), ([1, 1, 1, 9, 1, 1, 1, 1], 0),
        ([0, 1, 2, 3, 4, 5, 6, 7], 5), ([0, 4, 0, 0, 0, 0, 9, 2], 0), ([9, 0, 0, 0, 0, 0, 9, 9], 0),
    ],
)  # fmt: skip
def test_growth_is_of_what_is_always_held(held, grown):
    """The least of the last quarter above the most of the first."""
    assert growth(held) == grown


def test_open_files_are_counted(tmp_path):
    before = open_files()
    with (tmp_path / "a").open("w"), (tmp_path / "b").open("w"):
        assert open_files() == before + 2
    assert open_files() == before


def test_what_may_grow_is_recorded_and_what_may_not_is_warned_of():
    floor = LEAK_FLOOR["cpu"]
    fine = Held([100 * MIB, 100 * MIB + floor], [5, 5 + OPEN_FILES])
    assert fine.warning("cpu") is None
    record = fine.record("cpu")
    assert record["open_files"] == {"first": 5, "last": 13, "growth": 8, "allowed": 8, "segments": 2}
    assert record["memory_mib"]["growth"] == record["memory_mib"]["allowed"] == 64
    worse = Held([100 * MIB, 101 * MIB + floor], [5, 6 + OPEN_FILES])
    line = "what is held between meta-steps grew along training: memory by 65 MiB (allowed: 64), open files by 9 "
    assert worse.warning("cpu") == worse.record("cpu")["warning"] == line + "(allowed: 8)"
    json.dumps(record)
    assert Held([], []).record("cpu") == {"memory_mib": None, "open_files": None, "warning": None}


@pytest.mark.parametrize(
    ("memory", "leaks"),
    [
        ([100 * MIB + 20 * MIB * n for n in range(61)], True),  # no three segments grow beyond the allowance
        ([100 * MIB + 20 * MIB * n - 30 * MIB * (n % 3 == 0) for n in range(61)], True),  # a dip in three
        ([100 * MIB + 20 * MIB * n for n in range(7)], False),  # too few to tell
        ([700 * MIB, *[900 * MIB] * 60], False),  # what was taken once
    ],
)
def test_memory_that_grows_steadily_is_a_leak(memory, leaks):
    assert bool(Held(memory, [5] * len(memory)).leak("cpu")) is leaks


def test_other_errors_are_not_taken_for_want_of_memory():
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert is_out_of_memory(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    assert is_out_of_memory(MemoryError())


def test_peak_memory_sees_what_training_held_and_not_what_came_before():
    ballast = torch.ones(40 * MIB // 4)
    memory = Memory(CPU)
    memory.open()
    held = torch.ones(100 * MIB // 4)
    memory.close()
    assert 90 < memory.peak_mib < 200
    del held
    memory.open()
    memory.close()
    assert 90 < memory.peak_mib < 200
    assert memory.reserved_mib is None
    continued = Memory(CPU, memory.state)
    assert continued.peak_mib == memory.peak_mib
    assert ballast.sum() > 0


@pytest.mark.parametrize(
    ("held", "leaks"),
    [
        ([100 + 30 * i for i in range(LEAK_SAMPLES + 1)], True),
        ([100 + 60 * i for i in range(LEAK_SAMPLES)], False),  # too few to tell
        ([100] * (LEAK_SAMPLES + 1), False),
        ([100 + i for i in range(LEAK_SAMPLES + 1)], False),  # an allocator's noise
        ([100, 300, 250, 400, 350], False),  # falls in between
    ],
)
def test_memory_that_grows_segment_by_segment_is_a_leak(held, leaks):
    memory = Memory(CPU)
    memory.held = [h * MIB for h in held]
    assert bool(memory.leak()) is leaks


def test_the_memory_of_a_replay_counts(monkeypatch):
    """100 MiB are allocated, the graph uses 50 more, and the allocator saw a peak of 120."""
    memory = Memory(CPU, replay=50)
    memory.device = torch.device("cuda")
    for name, value in (("memory_allocated", 100), ("max_memory_allocated", 120), ("max_memory_reserved", 200)):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda device, value=value: value)
    memory.close()
    assert (memory.peak, memory.reserved) == (150, 200)
    memory.replay = 0
    memory.peak = None
    memory.close()
    assert memory.peak == 120


def test_a_run_that_loses_a_file_at_every_step_says_so(toy_images, tmp_path, monkeypatch):
    training = make_training(toy_images, tmp_path, "fomaml", meta_steps=40, val_points=8, meta_batch=2)
    estimate, lost = training.step.estimate, []

    def losing() -> MetaGrad:
        lost.append((tmp_path / "lost").open("w"))
        return estimate()

    training.run()
    assert training.held.warning("cpu") is None
    assert len(training.held.files) == 8

    leaky = make_training(toy_images, tmp_path / "leaky", "fomaml", meta_steps=40, val_points=8, meta_batch=2)
    estimate = leaky.step.estimate
    monkeypatch.setattr(leaky.step, "estimate", losing)
    leaky.run()
    for file in lost:
        file.close()
    assert "open files by" in leaky.held.warning("cpu")


def census():
    """Return tensors that Python knows of, blocks that its allocator gave out, open files and the resident size."""
    gc.collect()
    tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return tensors, sys.getallocatedblocks(), open_files(), resident


def courses(images, folder, name, network, steps, looks=10):
    """Train for ``steps`` meta-steps of a small network and return ``looks`` censuses along the way."""
    training = make_training(
        images, folder, name, meta_steps=steps, meta_batch=1, val_points=4, val_tasks=2, backbone=network,
        backbone_options={"filters": 4} if network == "conv4" else {}, meta_lr=1e-3,
    )  # fmt: skip
    seen, numbers = [], count()

    def advance(done):
        if next(numbers) % (steps // looks) == 0:
            seen.append(census())

    training.run(advance)
    return [list(course) for course in zip(*seen[2:])]  # the first two hold what begins once


def judge(found, steps, resident_mib):
    tensors, blocks, files, size = found
    assert growth(tensors) <= 2
    assert growth(blocks) <= BLOCKS_PER_STEP * steps
    assert growth(files) == 0
    assert growth(size) <= resident_mib * MIB


@pytest.mark.uncounted
@pytest.mark.parametrize("name", ["reptile", "fomaml", "maml", "maml++", "imaml", "finetune"])  # a kind each; below all
def test_nothing_grows_over_some_hundred_steps(name, toy_images, tmp_path):
    judge(courses(toy_images, tmp_path, name, "one-layer", steps=300), 300, resident_mib=16)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["one-layer", "conv4"])
@pytest.mark.parametrize("name", OURS)
def test_nothing_grows_over_ten_thousand_steps(name, network, toy_images, tmp_path):
    """Prints the figures."""
    if (name, network) == ("boil", "one-layer"):
        pytest.skip("boil adapts all layers but one")
    found = courses(toy_images, tmp_path, name, network, steps=10_000, looks=40)
    tensors, blocks, files, size = found
    print(
        f"\n{name}, {network}: 10,000 meta-steps: tensors {tensors[0]} -> {tensors[-1]},"
        f" blocks {blocks[0]:,} -> {blocks[-1]:,}, open files {files[0]} -> {files[-1]},"
        f" resident {size[0] / MIB:.1f} -> {size[-1] / MIB:.1f} MiB"
    )
    judge(found, 10_000, resident_mib=16)


def test_live_tensors_are_counted_as_on_paper():
    kept = torch.zeros(4 * 2**20, dtype=torch.uint8)

    def work():
        kept.view(2, -1).add_(1)  # no tensor of ours
        first = torch.empty(2**20, dtype=torch.uint8)
        second = torch.empty(3 * 2**20, dtype=torch.uint8)
        second.view(3, -1)[0].add_(1)  # views have no bytes of their own
        del first
        third = (torch.empty(2**19, dtype=torch.uint8), second)
        del second, third

    assert peak_of_tensors(work, torch.device("cpu")) == 4 * 2**20


def test_live_tensors_are_those_that_a_backward_pass_needs():
    x = torch.randn(100, 100, requires_grad=True)

    def work():
        y = x
        for _ in range(10):
            y = (y @ x).tanh()
        torch.autograd.grad(y.sum(), x)

    size = 100 * 100 * 4
    assert 10 * size < peak_of_tensors(work, torch.device("cpu")) < 14 * size, "ten activations and what is in flight"


def test_what_is_compiled_is_counted_as_written_and_compiled_otherwise():
    """In one piece, as a network may be: torch.compile refuses to do that under a mode."""
    compiled = []

    def doubled(x):
        return (2 * x).relu()

    call = torch.compile(
        doubled, fullgraph=True, dynamic=True, backend=lambda graph, inputs: compiled.append(graph) or graph.forward
    )
    call(torch.ones(3))
    with LiveTensors() as live:
        y = call(torch.ones(1, 3))
    assert (live.held, len(compiled)) == (y.nbytes, 1)
    call(torch.ones(1, 3))
    assert len(compiled) == 2
