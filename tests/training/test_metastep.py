"""The meta-step over static tensors: against a plain loop, and replayed by a stand-in for CUDA graphs."""

import gc
import logging
import sys

import pytest
import torch
from trainings import ADAM, CPU, FakeRecorder, Stopped, make_training, same, stop_after

from bench.api import BenchError, Episode, MetaGrad, TaskBatch
from bench.settings.config import SCHEDULES, RunConfig
from bench.tasks.images import ImagePool
from bench.tasks.stream import TaskStream
from bench.training.capture import CannotCapture, Replay, capture
from bench.training.measure import AHEAD, Memory, StepTimes
from bench.training.outer import MetaOptimizer


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


class Waiting(FakeRecorder):
    def capture(self, step):
        step()  # half done, say
        raise RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing")


class Forgetful(FakeRecorder):
    """Replays something else: the losses are right, the weights do not move."""

    def capture(self, step):
        def run():
            slow = {n: w.clone() for n, w in step.slow.items()}
            step()
            for n, w in step.slow.items():
                w.copy_(slow[n])

        return Replay(run)


@pytest.mark.parametrize(
    ("recorder", "words"),
    [
        (Waiting(), "RuntimeError: CUDA error: operation not permitted when stream is capturing"),
        (Forgetful(), "differ after 2 meta-steps"),
    ],
)
def test_a_step_that_cannot_be_captured_runs_line_by_line_and_says_why(recorder, words, toy_images, tmp_path, caplog):
    eager = make_training(toy_images, tmp_path / "eager", hyper=ADAM)
    fallen = make_training(toy_images, tmp_path / "fallen", hyper=ADAM, recorder=recorder)
    eager.run()
    fallen.run()
    assert same(eager, fallen), "the attempt left something behind"
    assert fallen.mode == "eager"
    assert words in fallen.reason
    assert [r.getMessage().count(words) for r in caplog.records] == [1]
    assert "\n" not in caplog.text.strip()


def test_a_failed_capture_leaves_no_trace_after_a_resume_either(toy_images, tmp_path):
    for folder in ("eager", "fallen"):
        with pytest.raises(Stopped):
            make_training(toy_images, tmp_path / folder, hyper=ADAM).run(stop_after(2))
    # the checkpoints at point 3 of the curve
    eager = make_training(toy_images, tmp_path / "eager", hyper=ADAM)
    fallen = make_training(toy_images, tmp_path / "fallen", hyper=ADAM, recorder=Waiting())
    before = [t.clone() for t in fallen.step.optimizer.tensors()]
    fallen.warm_up()
    assert all(torch.equal(a, b) for a, b in zip(before, fallen.step.optimizer.tensors()))
    eager.run()
    fallen.run()
    assert same(eager, fallen)


def test_capture_leaves_the_state_as_it_was(toy_images, tmp_path):
    step = make_training(toy_images, tmp_path, hyper=ADAM).step
    step.go_to(3)
    before = [t.clone() for t in step._state()]
    replay = capture(step, FakeRecorder())
    after = [*step.slow.values(), *step.carry.values(), step.done, step.losses]
    assert all(torch.equal(a, b) for a, b in zip(before, after))
    assert not any(t.count_nonzero() for t in step.optimizer.tensors()), "Adam's state begins at zero"
    step.hold(3)
    replay.run()
    assert step.done.item() == 4
    with pytest.raises(CannotCapture):
        capture(step, Forgetful())


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


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_rate_on_the_device_steps_as_the_one_on_the_host_does(optimizer, rng, monkeypatch):
    """On the CPU, which torch's capturable Adam has to be told to accept."""
    monkeypatch.setattr(sys.modules["torch.optim.adam"], "_get_capturable_supported_devices", lambda **kwargs: ["cpu"])
    config = RunConfig(algo="maml", meta_optimizer=optimizer, meta_lr=0.1, meta_lr_schedule="linear", meta_steps=5)
    ends = []
    for captured in (False, True):
        slow = {"w": torch.ones(4), "v": torch.zeros(3, 2)}
        rule = MetaOptimizer(config, slow, captured)
        generator = torch.Generator().manual_seed(0)
        for done in range(5):
            grads = {n: torch.randn(w.shape, generator=generator) for n, w in slow.items()}
            if done == 3:  # as on a resume: what was saved comes back, the rate's tensor stays ours
                saved, rule = rule.torch.state_dict(), MetaOptimizer(config, slow, captured)
                rule.load(saved)
            rule.step(grads, torch.tensor([done]))
            assert all(w.grad is None for w in slow.values())
        ends.append(slow)
        if captured:
            assert rule._rate.item() == pytest.approx(0.1 * (1 - 4 / 5))
            assert sum(len(list(s)) for s in rule.torch.state.values()) == (6 if optimizer == "adam" else 0)
    torch.testing.assert_close(ends[1], ends[0])
    assert not torch.equal(ends[0]["w"], torch.ones(4))


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


class FakeEvent:
    waited: list[int] = []  # noqa: RUF012

    def __init__(self, enable_timing):
        self.number = None

    def record(self):
        FakeEvent.recorded = getattr(FakeEvent, "recorded", -1) + 1
        self.number = FakeEvent.recorded

    def synchronize(self):
        FakeEvent.waited.append((FakeEvent.recorded, self.number))

    def elapsed_time(self, other):
        return float(other.number - self.number)


def test_the_host_runs_only_so_far_ahead_of_a_card(monkeypatch):
    monkeypatch.setattr("torch.cuda.Event", FakeEvent)
    times = StepTimes(torch.device("cuda"))
    for _ in range(AHEAD + 3):
        times.mark()
    times.close()
    assert {recorded - waited for recorded, waited in FakeEvent.waited} == {AHEAD - 1}
    assert times.ms == [1.0] * (AHEAD + 2)


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


class Asking:
    """Asks the device for a value in the middle of a step, and draws random numbers there."""

    def __init__(self, algorithm, recorder=None):
        self.algorithm = algorithm

    def __getattr__(self, name):
        return getattr(self.algorithm, name)

    def meta_grad(self, task_loss, slow, tasks):
        torch.rand(3, device=tasks.support.x.device)
        result = self.algorithm.meta_grad(task_loss, slow, tasks)
        assert result.query_loss.sum().item() > 0
        return result


@on_gpu
@pytest.mark.parametrize("found", ["before", "while capturing"])
def test_on_a_gpu_a_step_that_waits_for_the_device_falls_back(found, toy_images, tmp_path, caplog, monkeypatch):
    """Found by torch's debug mode before the capture, or, with that off, by the capture itself."""
    if found != "before":
        monkeypatch.setattr("torch.cuda.set_sync_debug_mode", lambda mode: None)
    eager = make_training(toy_images, tmp_path / "eager", "maml", device=GPU, cuda_graph="off")
    fallen = make_training(toy_images, tmp_path / "fallen", "maml", device=GPU)
    fallen.step.algorithm = Asking(fallen.algorithm)
    with caplog.at_level(logging.WARNING):
        fallen.run()
    eager.run()
    assert fallen.mode == "eager"
    assert "RuntimeError" in fallen.reason or "AcceleratorError" in fallen.reason
    assert caplog.text.count("is not captured") == 1
    for n, w in eager.progress.slow.items():
        torch.testing.assert_close(fallen.progress.slow[n], w, rtol=1e-6, atol=1e-6)
    torch.cuda.empty_cache()
    again = make_training(toy_images, tmp_path / "again", "maml", device=GPU)  # the device can still capture
    again.run()
    assert again.mode == "graph"


@on_gpu
def test_on_a_gpu_the_chunk_follows_the_free_memory(toy_images, tmp_path, monkeypatch):
    settings = {"backbone": "conv4", "meta_batch": 32}
    roomy = make_training(toy_images, tmp_path / "roomy", "maml", device=GPU, **settings)
    roomy.warm_up()
    assert roomy.progress.chunk == 32
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (int(roomy.memory.replay / 2), 0))
    tight = make_training(toy_images, tmp_path / "tight", "maml", device=GPU, **settings)
    tight.warm_up()
    assert 1 < tight.progress.chunk < 20
    assert tight.mode == "graph"
    tight.run()
    assert tight.memory.peak_mib < 0.7 * (roomy.memory.replay + torch.cuda.memory_allocated()) / 2**20 + 50
