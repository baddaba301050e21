"""Captured steps: refused with a reason where a replay would not do what the step does, and no trace of the attempt."""

import logging
from typing import ClassVar

import pytest
import torch
from trainings import ADAM, FakeRecorder, Stopped, make_training, same, stop_after

from bench.training.capture import CannotCapture, Replay, capture

GPU = torch.device("cuda")


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


class Frozen(FakeRecorder):
    """Replays the phase in which the step was captured, whatever is due, as a graph does."""

    captured: ClassVar[list[int]] = []

    def capture(self, step):
        self.captured.append(phase := step.phase)

        def run():
            step.phase = phase
            step()

        return Replay(run)


def test_a_step_is_captured_anew_where_its_phase_changes(toy_images, tmp_path):
    """MAML++ goes from several losses in first order to the last loss in first order to second order."""
    hyper = {"multi_step": 0.2, "first_order": 0.6, "inner_steps": 2}
    eager, replayed = (
        make_training(toy_images, tmp_path / name, "maml++", hyper, recorder=recorder)
        for name, recorder in (("eager", None), ("replayed", Frozen()))
    )
    eager.run()
    replayed.run()
    assert same(eager, replayed)
    assert Frozen.captured == [3, 2, 0]
    assert len(replayed.progress.step_ms) == 6, "every step was on the clock, and no capture"
    assert replayed.progress.setup_s > eager.progress.setup_s == 0
    assert replayed.mode == "graph"


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
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
