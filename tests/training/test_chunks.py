"""Chunks of the task axis: how many tasks fit the memory, and what happens when they do not."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from trainings import ADAM, CPU, FakeRecorder, Stopped, make_training, same, stop_after

from bench.api import Episode
from bench.network.build import build, build_network
from bench.network.model import Classifier
from bench.registry import create_algorithm, create_backbone
from bench.settings.config import RunConfig
from bench.tasks.drawing import ImagePool
from bench.tasks.stream import TaskStream
from bench.training.chunks import (
    default_chunk,
    fitting_chunk,
    inputs_at_once,
    kept_of_an_input,
    measured_chunk,
    memory_for,
)
from bench.training.evaluate import batch_size, evaluate


def stream_of(*shape):
    """A stream that has nothing but the form of its tasks, 20-way 5-shot with 5 queries."""
    pool = SimpleNamespace(source=SimpleNamespace(shape=shape))
    return SimpleNamespace(device=CPU, episode=Episode(20, 5, 5), pool=pool)


class Hungry:
    """Runs out of memory where more than ``limit`` tasks come at once, ``after`` calls."""

    def __init__(self, algorithm, limit, after=0, message=None):
        self.algorithm, self.limit, self.after, self.message = algorithm, limit, after, message
        self.sizes = []

    def __getattr__(self, name):
        return getattr(self.algorithm, name)

    def eat(self, n):
        self.sizes.append(n)
        if len(self.sizes) > self.after and n > self.limit:
            if self.message:
                raise RuntimeError(self.message)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")

    def meta_grad(self, task_loss, slow, tasks):
        self.eat(tasks.support.n_tasks)
        return self.algorithm.meta_grad(task_loss, slow, tasks)

    def predictors(self, task_loss, slow, support, steps, carry):
        self.eat(support.n_tasks)
        return self.algorithm.predictors(task_loss, slow, support, steps, carry)


def starved(training, **kwargs):
    training.step.algorithm = Hungry(training.algorithm, **kwargs)
    return training


@pytest.mark.parametrize("message", [None, "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"])
@pytest.mark.parametrize("recorder", [None, FakeRecorder()])
def test_out_of_memory_at_warm_up_halves_the_chunk_once(message, recorder, toy_images, tmp_path, caplog):
    whole = make_training(toy_images, tmp_path / "a", "maml", task_chunk=2)
    whole.run()
    make = make_training(toy_images, tmp_path / "b", "maml", task_chunk=4, recorder=recorder)
    training = starved(make, limit=2, message=message)
    training.run()
    assert same(whole, training), "chunks of 2 from the first step on"
    assert (training.progress.chunk, training.progress.oom_retries) == (2, 1)
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith("out of memory with 4 tasks at once; going on with 2 (")
    assert "\n" not in line


def test_out_of_memory_in_training_redoes_the_step_and_a_resumed_run_remembers(toy_images, tmp_path):
    whole = make_training(toy_images, tmp_path / "a", hyper=ADAM)
    whole.run()
    # 1 warm-up, 1 before the segment, 2 meta-steps of chunks of 5, then the third
    training = starved(make_training(toy_images, tmp_path / "b", hyper=ADAM, task_chunk=5), limit=3, after=4)
    with pytest.raises(Stopped):
        training.run(stop_after(3))
    assert training.step.algorithm.sizes[:8] == [5, 5, 5, 5, 5, 2, 2, 1]
    training.save()
    again = starved(make_training(toy_images, tmp_path / "b", hyper=ADAM, task_chunk=5), limit=3)
    assert (again.progress.chunk, again.step.chunk, again.progress.oom_retries) == (2, 2, 1)
    again.run()
    for n, w in whole.progress.slow.items():
        torch.testing.assert_close(again.progress.slow[n], w, rtol=1e-4, atol=1e-5)
    assert again.stream_sha256() == whole.stream_sha256()


@pytest.mark.parametrize(("chunk", "limit"), [(4, 1), (1, 0)])
def test_a_second_time_out_of_memory_ends_the_run(chunk, limit, toy_images, tmp_path):
    with pytest.raises(torch.OutOfMemoryError):
        starved(make_training(toy_images, tmp_path, "maml", task_chunk=chunk), limit=limit).run()


def test_evaluation_out_of_memory_goes_on_with_fewer_tasks_and_counts_each_once(toy_images, caplog):
    config = RunConfig(algo="fomaml", dataset="toy", backbone="one-layer")
    algorithm = create_algorithm("fomaml")
    task_loss, slow = build(config, algorithm, toy_images, CPU)
    stream = TaskStream(ImagePool(toy_images, "meta_test", "none", CPU), Episode(5, 1, 1), 0)
    whole = evaluate(algorithm, task_loss, slow, {}, stream, 100, steps=2)
    done, hungry = [], Hungry(algorithm, limit=20)
    got = evaluate(hungry, task_loss, slow, {}, stream, 100, steps=2, advance=done.append)
    assert hungry.sizes == [66, 33, 16, 16, 16, 16, 16, 16, 4]
    assert sum(done) == 100
    for mode, by_step in whole.measure.items():
        for step, accuracy in by_step.items():
            assert accuracy.tolist() == got.measure[mode][step].tolist()
    assert len(caplog.records) == 2
    with pytest.raises(torch.OutOfMemoryError):
        evaluate(Hungry(algorithm, limit=0), task_loss, slow, {}, stream, 4, steps=2)


@pytest.mark.parametrize(
    ("budget", "meta_batch", "expected"),
    [
        (10_000, 32, 32),  # all of it
        (100 + 32 * 10, 32, 32),
        (100 + 31 * 10, 32, 16),  # two equal chunks rather than 31 and 1
        (100 + 10 * 10, 32, 8),  # 10 fit: four chunks
        (100 + 10 * 10, 25, 9),  # three chunks: 9, 9 and 7
        (0, 32, 1),  # nothing fits: the run will say so
        (10_000, 1, 1),
    ],
)
def test_the_chunk_is_what_fits_a_card_by_a_straight_line_through_two_peaks(budget, meta_batch, expected):
    assert fitting_chunk(lambda n: 100 + 10 * n, budget, meta_batch) == expected


def test_a_peak_that_does_not_grow_is_no_division_by_zero():
    assert fitting_chunk(lambda n: 100, 1000, 32) == 32


@pytest.mark.parametrize(
    ("runs", "free", "held", "expected"),
    [
        (1, 900, 0, 900),  # alone: all that is free
        (4, 1000, 0, 250),
        (4, 900, 100, 150),  # what the run holds already is of its part
        (4, 200, 0, 200),  # others hold the rest
        (4, 900, 300, 0),
    ],
)
def test_a_run_takes_its_part_of_a_card_and_no_more_than_is_free(runs, free, held, expected):
    assert memory_for(runs, free, total=1000, held=held) == expected


def test_runs_that_share_a_card_measure_chunks_that_fit_together_whoever_comes_first(monkeypatch):
    """A card of 8,000 bytes; each run holds 100, a chunk takes 100 and 10 for each task."""
    taken, peak = [], []
    cuda = {
        "memory_allocated": lambda device: 100,
        "reset_peak_memory_stats": lambda device: None,
        "max_memory_allocated": lambda device: 100 + peak[-1],
        "empty_cache": lambda: None,
        "mem_get_info": lambda device: (8_000 - sum(taken) - 100, 8_000),
        "memory_reserved": lambda device: 100,
    }
    for name, function in cuda.items():
        monkeypatch.setattr(torch.cuda, name, function)
    step = SimpleNamespace(
        done=torch.zeros(1),
        config=SimpleNamespace(meta_batch=1_000),
        estimate_of=lambda a, b: peak.append(100 + 10 * b),
    )
    alone = measured_chunk(step)
    assert alone == 500, "what fits of 0.8 of 7,900 bytes, in equal chunks"
    together = [measured_chunk(step, runs=4) for _ in range(4)]
    assert len(set(together)) == 1
    for chunk in together:  # one after the other
        assert measured_chunk(step, runs=4) == chunk
        taken.append(100 + 100 + 10 * chunk)
    assert sum(taken) <= 8_000


def test_a_run_measures_its_chunk_as_one_of_those_on_its_card(toy_images, tmp_path, monkeypatch):
    training = make_training(toy_images, tmp_path, card_runs=3)
    training.device = torch.device("cuda")  # of which no more is needed to come so far

    def measured(step, runs):
        raise Stopped(runs)

    monkeypatch.setattr("bench.training.train.measured_chunk", measured)
    with pytest.raises(Stopped, match="3"):
        training.warm_up()


def test_what_is_kept_of_an_input_is_counted_and_decides_how_many_are_held_at_once():
    """Two linear layers keep what each of them is given; what comes out is there too."""
    for hidden, at_once in ((50, 2_000), (200_000, 2_000 * 320_000 // 800_036)):
        network = nn.Sequential(nn.Flatten(), nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 5))
        task_loss = Classifier(network)
        stream = stream_of(1, 2, 2)
        assert kept_of_an_input(stream, task_loss, task_loss.weights) == 4 * (4 + hidden + 5)
        assert inputs_at_once(2_000, stream, task_loss, task_loss.weights) == at_once


def test_a_network_of_doubles_is_counted_with_inputs_of_its_kind(caplog):
    found = []
    for dtype in (torch.float32, torch.float64):
        task_loss = Classifier(build_network(create_backbone("conv4", filters=4), (1, 28, 28), 5, seed=0).to(dtype))
        found.append(kept_of_an_input(stream_of(1, 28, 28), task_loss, task_loss.weights))
    assert found[1] > 1.9 * found[0]
    assert not caplog.text


@pytest.mark.parametrize(
    ("name", "shape", "tasks", "at_test"),
    [
        ("conv4", (1, 28, 28), 9, 3),  # 200 images a task: 2,000 at once are two chunks of 18 tasks
        ("conv4", (3, 84, 84), 2, 1),
        ("resnet12", (3, 84, 84), 1, 1),
    ],
)
def test_deep_networks_and_large_images_come_in_smaller_chunks(name, shape, tasks, at_test):
    task_loss = Classifier(build_network(create_backbone(name), shape, 20, seed=0))
    stream = stream_of(*shape)
    assert default_chunk(stream, 18, task_loss, task_loss.weights) == tasks
    assert batch_size(stream, task_loss, task_loss.weights) == at_test


def test_a_network_that_cannot_be_counted_is_taken_for_a_usual_one(caplog):
    class Odd:
        def outputs(self, fast, x):
            raise NotImplementedError("no storage")

    assert default_chunk(stream_of(1, 28, 28), 18, Odd(), {}) == 9
    assert "memory of the network was not counted: no storage" in caplog.text
