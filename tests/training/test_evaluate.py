"""Both test modes against predictions made by hand, and an untrained network against chance."""

import numpy as np
import pytest
import torch

from bench.api import Episode
from bench.network.build import build_network
from bench.network.model import Classifier
from bench.records.intervals import mean_ci95
from bench.registry import create_algorithm, create_backbone
from bench.tasks.drawing import ImagePool
from bench.tasks.images import Classification
from bench.tasks.stream import TaskStream
from bench.training.evaluate import PLAIN, TRANSDUCTIVE, evaluate

CPU = torch.device("cpu")


def test_stream(images, episode):
    return TaskStream(ImagePool(images, "meta_test", "none", CPU), episode, seed=0)


test_stream.__test__ = False


def network(n_way=5):
    return Classifier(build_network(create_backbone("conv4"), (1, 28, 28), n_way, seed=0))


def test_both_modes_are_what_they_say(toy_images):
    """Plain: support and one query image in a batch. Transductive: all query images in one."""
    task_loss, algorithm = network(), create_algorithm("fomaml", inner_steps=2)
    stream = test_stream(toy_images, Episode(5, 1, 3))
    got = evaluate(algorithm, task_loss, task_loss.weights, {}, stream, 3, steps=2)
    for i in range(3):
        task = stream.batch(i, 1)
        fast = algorithm.adapt(task_loss, task_loss.weights, task.support)
        with torch.no_grad():
            together = task_loss.outputs(fast, task.query.x)[0].argmax(dim=1)
            alone = [
                task_loss.outputs(fast, torch.cat([task.support.x, task.query.x[:, q : q + 1]], dim=1))[0, -1].argmax()
                for q in range(15)
            ]
        y = task.query.y[0]
        assert got.final(TRANSDUCTIVE)[i] == (together == y).double().mean()
        assert got.final(PLAIN)[i] == (torch.stack(alone) == y).double().mean()


def test_accuracy_along_the_way_ends_where_adapting_that_far_ends(toy_images):
    task_loss, algorithm = network(), create_algorithm("maml", inner_lr=0.2)
    stream = test_stream(toy_images, Episode(5, 1, 2))
    path = evaluate(algorithm, task_loss, task_loss.weights, {}, stream, 8, steps=7, at=(0, 3, 5, 50))
    assert {mode: sorted(by_step) for mode, by_step in path.measure.items()} == {
        PLAIN: [0, 3, 5, 7],
        TRANSDUCTIVE: [0, 3, 5, 7],
    }
    for steps in (0, 3, 7):
        end = evaluate(algorithm, task_loss, task_loss.weights, {}, stream, 8, steps=steps, at=())
        for mode in (PLAIN, TRANSDUCTIVE):
            assert np.array_equal(end.final(mode), path.measure[mode][steps])


def test_without_batch_normalisation_the_modes_agree(toy_images):
    task_loss = Classifier(build_network(create_backbone("conv4-gap"), (1, 28, 28), 5, seed=0))
    stream = test_stream(toy_images, Episode(5, 1, 2))
    got = evaluate(create_algorithm("fomaml"), task_loss, task_loss.weights, {}, stream, 4, steps=1)
    assert np.array_equal(got.final(PLAIN), got.final(TRANSDUCTIVE))


@pytest.mark.parametrize("n_way", [2, 5])
def test_untrained_accuracy_before_adaptation_is_one_in_n(toy_images, n_way):
    task_loss = network(n_way)
    stream = test_stream(toy_images, Episode(n_way, 1, 1))
    got = evaluate(create_algorithm("fomaml"), task_loss, task_loss.weights, {}, stream, 800, steps=0)
    for mode in (PLAIN, TRANSDUCTIVE):
        mean, ci95 = mean_ci95(got.final(mode))
        assert abs(mean - 1 / n_way) < 2 * ci95  # twice the interval: wrong once in 10,000
        assert ci95 < 0.04


def test_scores_that_ran_away_are_no_answer_and_not_right_by_chance():
    outputs = torch.tensor([[[1.0, 2.0], [torch.nan, torch.nan], [torch.inf, 0.0], [3.0, 1.0]]])
    score = Classification().score(outputs, torch.tensor([[1, 0, 0, 1]]))
    assert score.isnan().tolist() == [[False, True, True, False]]
    assert score[0, [0, 3]].tolist() == [1, 0]


def test_progress_counts_every_task_once(toy_images):
    done = []
    task_loss = network()
    stream = test_stream(toy_images, Episode(5, 1, 1))
    evaluate(create_algorithm("fomaml"), task_loss, task_loss.weights, {}, stream, 130, steps=0, advance=done.append)
    assert sum(done) == 130
    assert len(done) > 1
