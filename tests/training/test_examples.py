"""Example tasks: what was asked and answered, kept beside a run."""

import numpy as np
import pytest
import torch
from made_runs import make_examples

from bench.api import Episode
from bench.network.build import build_network
from bench.network.model import Classifier
from bench.registry import create_algorithm, create_backbone
from bench.tasks.stream import TaskStream
from bench.training import examples
from bench.training.evaluate import evaluate
from bench.training.examples import ExampleTasks, example_tasks


def test_examples_are_the_first_test_tasks_with_the_answers_that_were_scored(toy_images):
    stream = TaskStream(toy_images.pool("meta_test", "none", torch.device("cpu")), Episode(5, 1, 1), 0)
    algorithm = create_algorithm("reptile")
    network = build_network(create_backbone("one-layer"), toy_images.shape, 5, 0)
    loss = Classifier(network, objective=toy_images.objective)
    slow = loss.weights
    kept = example_tasks(algorithm, loss, slow, {}, stream, 3)
    tasks = stream.batch(0, 3)
    assert np.array_equal(kept.support, (tasks.support.x[:, :, 0] * 255).round().numpy().astype(np.uint8))
    scored = evaluate(algorithm, loss, slow, {}, stream, 3, 3)
    for mode in ("plain", "transductive"):
        right = (getattr(kept, mode) == np.arange(5)).mean(axis=1)
        np.testing.assert_allclose(right, scored.final(mode))
    again = ExampleTasks.from_bytes(kept.to_bytes())
    assert again.to_bytes() == kept.to_bytes()


@pytest.mark.parametrize("data", [b"", b"PK no", ExampleTasks(*make_examples().__dict__.values()).to_bytes()[:-30]])
def test_damaged_examples_are_no_examples(data):
    with pytest.raises(ValueError, match="no example tasks"):
        ExampleTasks.from_bytes(data)


def test_examples_that_would_fill_the_memory_are_not_unpacked(monkeypatch):
    data = make_examples().to_bytes()
    monkeypatch.setattr(examples, "_LARGEST", 1000)
    with pytest.raises(ValueError, match=r"^no example tasks: .* bytes unpacked$"):
        ExampleTasks.from_bytes(data)
