"""The meta-step over static tensors: against a plain loop, and replayed by a stand-in for CUDA graphs."""

import gc

import pytest
import torch
from trainings import ADAM, CPU, FakeRecorder, Stopped, make_training, same, stop_after

from bench.api import BenchError, Episode, MetaGrad, TaskBatch
from bench.settings.config import SCHEDULES, RunConfig
from bench.tasks.drawing import ImagePool
from bench.tasks.stream import TaskStream


@pytest.fixture(scope="module", autouse=True)
def _frozen():
    """Keep what was there before out of the collections that every run begins with: they take longer than the run."""
    gc.freeze()
    yield
    gc.unfreeze()


DRAWN = {"inner_batch": 6, "tail": "shared", "replacement": True}
ALGORITHMS = [("reptile", ADAM), ("fomaml", {}), ("maml", {}), ("foml", DRAWN)]
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def on_gpu(test):
    for mark in needs_gpu:
        test = mark(test)
    return test


@pytest.mark.parametrize(("name", "hyper"), ALGORITHMS)
@pytest.mark.parametrize(("optimizer", "lr", "schedule"), [("sgd", 0.5, "linear"), ("adam", 0.01, "cosine")])
def test_a_run_equals_the_plain_loop_to_the_last_bit(name, hyper, optimizer, lr, schedule, toy_images, tmp_path):
    settings = {"meta_optimizer": optimizer, "meta_lr": lr, "meta_lr_schedule": schedule}
    training = make_training(toy_images, tmp_path, name, hyper, **settings)
    slow = {n: w.clone() for n, w in training.progress.slow.items()}
    algorithm, stream = training.algorithm, training.stream
    carry, losses = algorithm.initial_carry(slow), []
    rule = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer](list(slow.values()))
    for step in range(6):
        tasks = stream.batch(5 * step, 5)
        result = algorithm.meta_grad(training.task_loss, slow, TaskBatch(tasks.support, tasks.query, carry))
        for n, w in slow.items():
            w.grad = result.grads[n]
        rule.param_groups[0]["lr"] = lr * SCHEDULES[schedule](step / 6)
        rule.step()
        carry = result.carry
        losses.append(result.query_loss.mean().item())
    training.run()
    assert all(torch.equal(training.progress.slow[n], w) for n, w in slow.items())
    assert all(torch.equal(training.progress.carry[n], c) for n, c in carry.items())
    assert training.step.losses.tolist() == losses
    assert training.mode == "eager"
    assert training.reason == "CPU"


@pytest.mark.parametrize(("name", "hyper"), ALGORITHMS)
def test_a_replayed_run_equals_the_one_that_runs_line_by_line(name, hyper, toy_images, tmp_path, monkeypatch):
    """With a window of ten tasks, two meta-steps, so that it moves between replays, in segments of one or two steps."""
    monkeypatch.setattr("bench.tasks.stream._BLOCK", {"cpu": 10})
    recorder, settings = FakeRecorder(), {"meta_lr_schedule": "linear", "task_chunk": 2, "val_points": 4}
    eager = make_training(toy_images, tmp_path / "eager", name, hyper, **settings)
    replayed = make_training(toy_images, tmp_path / "graph", name, hyper, recorder=recorder, **settings)
    eager.run()
    replayed.run()
    assert same(eager, replayed)
    assert recorder.replays == 2 + 6  # held against the step itself, then the run
    assert (replayed.mode, replayed.reason) == ("graph", "")
    assert len(replayed.progress.step_ms) == 6


@pytest.mark.parametrize("stop", [0, 2, 4])
def test_a_replayed_run_is_continued_to_the_same_bits(stop, toy_images, tmp_path):
    whole = make_training(toy_images, tmp_path / "whole", hyper=ADAM)
    whole.run()
    first = make_training(toy_images, tmp_path / "parts", hyper=ADAM, recorder=FakeRecorder())
    with pytest.raises(Stopped):
        first.run(stop_after(stop))
    first.save()
    second = make_training(toy_images, tmp_path / "parts", hyper=ADAM, recorder=FakeRecorder())
    assert second.progress.meta_step == stop + 1
    second.run()
    assert same(whole, second)


def test_a_finished_run_that_is_opened_again_is_captured_without_harm(toy_images, tmp_path):
    """Its meta-step count points behind the last learning rate."""
    first = make_training(toy_images, tmp_path)
    first.run()
    again = make_training(toy_images, tmp_path, recorder=FakeRecorder())
    again.run()
    assert same(first, again)


@pytest.mark.parametrize("swap", [True, False])
def test_a_carry_may_be_made_of_the_last_one(swap, toy_images, tmp_path):
    """Exchanged names, or the very tensors that were handed in."""
    training = make_training(toy_images, tmp_path, "fomaml", meta_steps=3)
    training.step.carry |= {"a": torch.zeros(2), "b": torch.ones(2)}
    names = {"a": "b", "b": "a"} if swap else {"a": "a", "b": "b"}
    algorithm = training.algorithm

    class Carrying(type(algorithm)):
        def meta_grad(self, task_loss, slow, tasks):
            result = algorithm.meta_grad(task_loss, slow, tasks)
            return MetaGrad(result.grads, result.query_loss, {n: tasks.carry[names[n]] for n in names})

    training.step.algorithm = Carrying()
    training.run()
    assert training.progress.carry["a"].tolist() == ([1, 1] if swap else [0, 0])
    assert training.progress.carry["b"].tolist() == ([0, 0] if swap else [1, 1])


def test_orders_drawn_for_the_whole_window_are_those_of_the_tasks(toy_images):
    stream = TaskStream(ImagePool(toy_images, "meta_train", "pooled", CPU), Episode(5, 1, 3), 0)
    window = make_window(stream, 64)
    window.hold(40, 4)
    batch = window.batch(torch.arange(41, 44))
    assert torch.equal(batch.support.orders(2, 20), stream.batch(41, 3).support.orders(2, 20))
    window.hold(200, 4)  # drawn anew, with the orders that were asked for before
    assert torch.equal(
        window.batch(torch.arange(201, 204)).query.orders(2, 20), stream.batch(201, 3).query.orders(2, 20)
    )
    with pytest.raises(RuntimeError, match="after the window had moved on"):
        batch.support.orders(2, 20)
    with pytest.raises(ValueError, match="65 tasks are wanted"):
        window.hold(0, 65)


def test_orders_are_drawn_once_a_window(toy_images, monkeypatch):
    stream = TaskStream(ImagePool(toy_images, "meta_train", "pooled", CPU), Episode(5, 1, 3), 0)
    window, drawn = make_window(stream, 64), []
    draw = stream.orders
    monkeypatch.setattr(
        stream, "orders", lambda number, passes, n: drawn.append(len(number)) or draw(number, passes, n)
    )
    for start in (0, 4, 60, 64, 68):
        window.hold(start, 4)
        window.batch(torch.arange(start, start + 4)).support.orders(1, 20)
    assert drawn == [64, 64]


def make_window(stream, size):
    from bench.tasks.stream import TaskWindow

    return TaskWindow(stream, size)


def test_tf32_is_refused_on_a_cpu():
    with pytest.raises(BenchError, match="precision 'tf32' is something only a GPU has; accepted on a CPU"):
        RunConfig(algo="maml", device="cpu", precision="tf32")
    RunConfig(algo="maml", device="cuda", precision="tf32")


GPU = torch.device("cuda")


@on_gpu
@pytest.mark.parametrize("backbone", ["one-layer", "conv4"])
@pytest.mark.parametrize(("name", "hyper"), ALGORITHMS)
@pytest.mark.parametrize("outer", [{"meta_optimizer": "adam"}, {"meta_optimizer": "sgd", "meta_lr": 0.5}])
def test_on_a_gpu_the_captured_run_equals_the_one_that_runs_line_by_line(
    name, hyper, outer, backbone, toy_images, tmp_path, monkeypatch
):
    monkeypatch.setattr("bench.tasks.stream._BLOCK", {"cpu": 32, "cuda": 32})  # the window moves every six meta-steps
    settings = {"meta_steps": 20, "backbone": backbone, "meta_lr_schedule": "linear", **outer}
    graph = make_training(toy_images, tmp_path / "graph", name, hyper, device=GPU, **settings)
    eager = make_training(toy_images, tmp_path / "eager", name, hyper, device=GPU, cuda_graph="off", **settings)
    graph.run()
    eager.run()
    assert (graph.mode, eager.mode) == ("graph", "eager"), graph.reason
    assert eager.reason == "--cuda-graph off"
    for n, w in eager.progress.slow.items():
        torch.testing.assert_close(graph.progress.slow[n], w, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(graph.progress.carry, eager.progress.carry, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(graph.step.losses, eager.step.losses, rtol=1e-5, atol=1e-6)
    assert graph.stream_sha256() == eager.stream_sha256()
    peaks = [t.memory.peak_mib for t in (graph, eager)]
    assert peaks[0] == pytest.approx(peaks[1], rel=0.25)


@on_gpu
def test_on_a_gpu_a_captured_run_is_continued(toy_images, tmp_path):
    whole = make_training(toy_images, tmp_path / "whole", hyper=ADAM, device=GPU, meta_steps=12)
    whole.run()
    first = make_training(toy_images, tmp_path / "parts", hyper=ADAM, device=GPU, meta_steps=12)
    with pytest.raises(Stopped):
        first.run(stop_after(7))
    first.save()
    second = make_training(toy_images, tmp_path / "parts", hyper=ADAM, device=GPU, meta_steps=12)
    assert second.resumed
    second.run()
    assert (whole.mode, first.mode, second.mode) == ("graph",) * 3
    for n, w in whole.progress.slow.items():
        torch.testing.assert_close(second.progress.slow[n], w, rtol=1e-6, atol=1e-6)


@on_gpu
def test_on_a_gpu_the_chunk_follows_the_free_memory(toy_images, tmp_path, monkeypatch):
    settings = {"backbone": "conv4", "meta_batch": 32}
    roomy = make_training(toy_images, tmp_path / "roomy", "maml", device=GPU, **settings)
    roomy.warm_up()
    assert roomy.progress.chunk == 32
    replay, held = roomy.memory.replay, torch.cuda.memory_allocated()
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (int(replay / 2), 0))
    tight = make_training(toy_images, tmp_path / "tight", "maml", device=GPU, **settings)
    tight.warm_up()
    took = f"32 tasks {replay / 2**20:.1f} MiB beside {held / 2**20:.1f}, {tight.progress.chunk} tasks"
    assert 1 < tight.progress.chunk < 20, took
    assert tight.mode == "graph", took
    tight.run()
    took = f"{took} {tight.memory.replay / 2**20:.1f} MiB, peak {tight.memory.peak_mib:.1f} MiB"
    assert tight.memory.replay < 0.7 * replay, took
    assert tight.memory.peak_mib < (held + 0.7 * replay) / 2**20 + 50, took
