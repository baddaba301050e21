"""The life of a run: chunks, resume, validation, what is timed, how it ends."""

import hashlib
import math

import pytest
import torch
from trainings import ADAM, Stopped, make_training, stop_after

from bench.api import BenchError, MetaGrad
from bench.training.contract import Diverged
from bench.training.evaluate import evaluate


@pytest.mark.parametrize(("name", "hyper"), [("reptile", ADAM), ("fomaml", {}), ("maml", {})])
def test_chunks_of_the_task_axis_give_the_same_run(name, hyper, toy_images, tmp_path):
    ends = []
    for chunk in (5, 2, 1):
        training = make_training(toy_images, tmp_path / str(chunk), name, hyper, task_chunk=chunk)
        training.run()
        ends.append(training.progress)
    for other in ends[1:]:
        for n, w in ends[0].slow.items():
            torch.testing.assert_close(other.slow[n], w, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other.carry, ends[0].carry, rtol=1e-4, atol=1e-6)


@pytest.mark.uncounted
@pytest.mark.parametrize(("name", "hyper"), [("reptile", ADAM), ("maml", {})])
@pytest.mark.parametrize("stop", [0, 1, 3, 4])
def test_a_run_stopped_anywhere_and_continued_ends_with_the_same_bits(name, hyper, stop, toy_images, tmp_path):
    whole = make_training(toy_images, tmp_path / "whole", name, hyper)
    whole.run()
    first = make_training(toy_images, tmp_path / "parts", name, hyper)
    with pytest.raises(Stopped):
        first.run(stop_after(stop))
    first.save()
    second = make_training(toy_images, tmp_path / "parts", name, hyper)
    assert second.resumed
    assert second.progress.meta_step == stop + 1
    second.run()
    assert all(torch.equal(second.progress.slow[n], w) for n, w in whole.progress.slow.items())
    assert all(torch.equal(second.progress.carry[n], c) for n, c in whole.progress.carry.items())
    outcome = [
        [(p.meta_step, p.tasks_seen, p.val_acc, p.query_loss) for p in t.progress.curve] for t in (whole, second)
    ]
    assert outcome[0] == outcome[1]
    assert second.stream_sha256() == whole.stream_sha256()
    assert len(second.progress.step_ms) == 6
    assert second.progress.parts == 2
    assert second.memory.peak_mib >= first.memory.peak_mib


def test_validating_more_often_changes_neither_tasks_nor_weights(toy_images, tmp_path):
    seldom = make_training(toy_images, tmp_path / "a", val_points=1)
    often = make_training(toy_images, tmp_path / "b", val_points=6)
    seldom.run()
    often.run()
    assert [p.meta_step for p in often.progress.curve] == [0, 1, 2, 3, 4, 5, 6]
    assert all(torch.equal(often.progress.slow[n], w) for n, w in seldom.progress.slow.items())
    assert often.stream_sha256() == seldom.stream_sha256()


def test_what_learns_nothing_is_validated_once(toy_images, tmp_path, monkeypatch):
    """``scratch`` takes a hundred steps of everything in each validation, and they would all give the same."""
    asked = []
    monkeypatch.setattr("bench.training.train.evaluate", lambda *a, **k: asked.append(1) or evaluate(*a, **k))
    training = make_training(toy_images, tmp_path, "scratch", {"inner_steps": 1}, val_points=3)
    training.run()
    curve = training.progress.curve
    assert [point.meta_step for point in curve] == [0, 2, 4, 6]
    assert len({point.val_acc for point in curve}) == 1
    assert len(asked) == 1


def test_a_validation_that_is_stopped_is_begun_anew(toy_images, tmp_path):
    """Stopped in the middle of the second: after four calls with no step done in it, each with 66 of 200 tasks."""
    whole = make_training(toy_images, tmp_path / "a", val_points=2, val_tasks=200)
    whole.run()
    training, calls = make_training(toy_images, tmp_path / "b", val_points=2, val_tasks=200), []

    def advance(steps):
        calls.append(steps)
        if training.progress.meta_step == 3 and calls[-2:] == [0, 0]:
            raise Stopped

    with pytest.raises(Stopped):
        training.run(advance)
    assert [point.meta_step for point in training.progress.curve] == [0]
    training.progress.setup_s = 1.5
    training.save()
    again = make_training(toy_images, tmp_path / "b", val_points=2, val_tasks=200)
    assert again.progress.setup_s == 1.5
    again.run()
    curves = [[(p.meta_step, p.val_acc, p.query_loss) for p in t.progress.curve] for t in (whole, again)]
    assert curves[0] == curves[1]
    assert all(torch.equal(again.progress.slow[n], w) for n, w in whole.progress.slow.items())


def test_the_stream_hash_is_that_of_the_tasks_that_were_trained_on(toy_images, tmp_path, monkeypatch):
    training = make_training(toy_images, tmp_path, task_chunk=2)
    used, consumed = [], []
    batch, apply = training.step.window.batch, training.step.apply
    monkeypatch.setattr(training.step.window, "batch", lambda number: used.append(number.tolist()) or batch(number))

    def counted(result):
        consumed.extend(number for part in used[-3:] for number in part)  # chunks of 2, 2 and 1
        apply(result)

    monkeypatch.setattr(training.step, "apply", counted)
    training.run()
    assert consumed == list(range(30))
    rows = [training.stream.draw(training.stream.numbers(number, 1)).rows for number in consumed]
    plain = torch.cat(rows).numpy().astype("<i4").tobytes()
    assert hashlib.sha256(plain).hexdigest() == training.stream_sha256()


def test_warm_up_leaves_no_trace(toy_images, tmp_path):
    cold, warm = make_training(toy_images, tmp_path / "a"), make_training(toy_images, tmp_path / "b")
    warm.warm_up()
    cold.run()
    warm.run()
    assert all(torch.equal(warm.progress.slow[n], w) for n, w in cold.progress.slow.items())


def test_reptile_with_the_official_outer_step_moves_to_the_mean_of_the_adapted_weights(toy_images, tmp_path):
    training = make_training(toy_images, tmp_path, meta_steps=1, val_points=1, meta_optimizer="sgd", meta_lr=1.0)
    before = {n: w.clone() for n, w in training.progress.slow.items()}
    together = training.stream.batch(0, 5).together()
    expected = training.algorithm.adapt(training.task_loss, before, together)
    training.run()
    for n, w in training.progress.slow.items():
        torch.testing.assert_close(w, expected[n].detach().mean(dim=0))


def test_the_learning_rate_follows_its_schedule(toy_images, tmp_path):
    training = make_training(toy_images, tmp_path, meta_lr=0.6, meta_lr_schedule="linear", meta_optimizer="sgd")
    rates = []
    training.run(lambda steps: rates.append(training.step.optimizer.torch.param_groups[0]["lr"]) if steps else None)
    assert rates == pytest.approx([0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


def test_divergence_ends_the_run_with_a_reason(toy_images, tmp_path):
    with pytest.raises(Diverged, match="at meta-step 2; try a lower"):
        make_training(toy_images, tmp_path, "fomaml", meta_lr=1e38, meta_optimizer="sgd").run()


def test_a_gradient_that_is_nan_in_the_last_step_is_caught(toy_images, tmp_path, monkeypatch):
    training = make_training(toy_images, tmp_path, meta_steps=1, val_points=1, meta_optimizer="sgd")
    training.warm_up()
    estimate = training.step.estimate

    def broken():
        result = estimate()
        return MetaGrad({n: g * math.nan for n, g in result.grads.items()}, result.query_loss)

    monkeypatch.setattr(training.step, "estimate", broken)
    with pytest.raises(Diverged, match=r"gradient of 1\.weight .*not finite at meta-step 1"):
        training.run()


def changed_after(training, calls, change):
    """Have ``meta_grad`` return ``change`` of its result from a later call on."""
    algorithm, numbers = training.algorithm, iter(range(10**6))

    class Later(type(algorithm)):
        def meta_grad(self, task_loss, slow, tasks):
            result = algorithm.meta_grad(task_loss, slow, tasks)
            return change(result) if next(numbers) >= calls else result

    training.step.algorithm = Later()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: MetaGrad({**r.grads, "1.bias": None}, r.query_loss), "gradient of 1.bias is None"),
        (lambda r: MetaGrad(r.grads, r.query_loss[:1]), r"query_loss has shape \(1,\)"),
    ],
)
def test_a_later_breach_of_the_contract_is_named_too(change, words, toy_images, tmp_path):
    training = make_training(toy_images, tmp_path, "fomaml", task_chunk=3)
    changed_after(training, 6, change)
    with pytest.raises(BenchError, match=words):
        training.run()


def test_a_gradient_that_turns_bad_is_named_with_its_meta_step(toy_images, tmp_path):
    training = make_training(toy_images, tmp_path, "fomaml", val_points=1)
    changed_after(training, 5, lambda r: MetaGrad({**r.grads, "1.bias": r.grads["1.bias"] * math.inf}, r.query_loss))
    with pytest.raises(Diverged, match=r"'fomaml': gradient of 1.bias is not finite at meta-step 4; try a lower"):
        training.run()


def test_a_large_gradient_is_not_a_bad_one(toy_images, tmp_path):
    training = make_training(toy_images, tmp_path, "fomaml")
    training.step._note_bad({n: torch.full_like(w, 3e38) for n, w in training.step.slow.items()})
    assert training.step.bad_gradients() == (0, [])


def test_training_time_covers_the_steps_and_not_the_validation(toy_images, tmp_path, monkeypatch):
    """With a clock that counts its own readings, and validation that reads it a hundred times."""
    ticks = iter(range(10**6))
    monkeypatch.setattr("bench.training.train.now", lambda device: float(next(ticks)))
    monkeypatch.setattr(
        "bench.training.train.evaluate", lambda *a, **k: [next(ticks) for _ in range(100)] and FakeEvaluation()
    )
    training = make_training(toy_images, tmp_path)
    training.run()
    segments, validations = 2, 3
    assert training.progress.train_s == segments
    assert training.progress.eval_s >= 100 * validations
    assert [p.train_s for p in training.progress.curve] == [0, 1, 2]


class FakeEvaluation:
    def final(self, mode):
        return [0.5, 0.5]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("name", "hyper"), [("reptile", ADAM), ("fomaml", {}), ("maml", {})])
def test_a_gpu_run_ends_near_the_cpu_run_continues_and_records_its_memory(name, hyper, toy_images, tmp_path):
    gpu = torch.device("cuda")
    on_cpu = make_training(toy_images, tmp_path / "cpu", name, hyper)
    on_cpu.run()
    first = make_training(toy_images, tmp_path / "gpu", name, hyper, device=gpu)
    with pytest.raises(Stopped):
        first.run(stop_after(2))
    first.save()
    second = make_training(toy_images, tmp_path / "gpu", name, hyper, device=gpu)
    assert second.resumed
    second.run()
    for n, w in on_cpu.progress.slow.items():
        torch.testing.assert_close(second.progress.slow[n].cpu(), w, rtol=1e-3, atol=1e-4)
    assert second.stream_sha256() == on_cpu.stream_sha256()
    assert 0 < second.memory.peak_mib <= second.memory.reserved_mib
    assert len(second.progress.step_ms) == 6
    assert all(ms > 0 for ms in second.progress.step_ms)
