"""A network of n_way outputs at test on tasks of more or fewer classes."""

from dataclasses import dataclass

import pytest
import torch
from places import PLUGINS, TOY
from torch import nn

from bench.api import Backbone, BenchError, Episode
from bench.network.build import build
from bench.network.trained import Trained
from bench.registry import BACKBONES, create_algorithm, load_plugin
from bench.settings.config import RunConfig
from bench.tasks.drawing import ImagePool
from bench.tasks.stream import TaskStream
from bench.training.evaluate import PLAIN, TRANSDUCTIVE, evaluate

CPU = torch.device("cpu")
load_plugin(TOY)
load_plugin(PLUGINS / "three_kinds.py")


def trained(images, algo="fomaml", backbone="conv4", **config):
    options = {"filters": 8} if backbone == "conv4" else {}
    config = RunConfig(algo=algo, dataset="toy", backbone=backbone, backbone_options=options, **config)
    algorithm = create_algorithm(algo)
    task_loss, slow = build(config, algorithm, images, CPU)
    return config, algorithm, Trained(task_loss, slow, algorithm.initial_carry(slow))


def at_test(images, **config):
    config, algorithm, before = trained(images, **config)
    return config, algorithm, before, before.at_test(config, algorithm, images, CPU)


def test_without_another_number_of_classes_nothing_changes(toy_images):
    _, _, before, after = at_test(toy_images, test_k_shot=3)
    assert after is before


@pytest.mark.parametrize("ways", [2, 3, 8, 12])
def test_outputs_are_cut_or_repeated_and_all_else_stays(toy_images, ways, rng):
    _, _, before, after = at_test(toy_images, test_n_way=ways)
    x = torch.rand(2, 7, 1, 28, 28, generator=rng)
    there = after.task_loss.outputs({n: w.expand(2, *w.shape) for n, w in after.slow.items()}, x)
    here = before.task_loss.outputs({n: w.expand(2, *w.shape) for n, w in before.slow.items()}, x)
    assert there.shape == (2, 7, ways)
    torch.testing.assert_close(there, here[..., torch.arange(ways) % 5])
    same = [name for name in before.slow if before.slow[name].shape == after.slow[name].shape]
    assert len(same) == len(before.slow) - 2
    assert all(torch.equal(before.slow[name], after.slow[name]) for name in same)


@pytest.mark.parametrize("ways", [2, 5, 12])
@pytest.mark.parametrize("steps", [0, 1])
def test_an_untrained_network_that_learns_nothing_is_right_by_chance(toy_images, ways, steps):
    """Labels are drawn at random, so that 1 in ``ways`` is right whatever the network says of an image."""
    _, algorithm, _, after = at_test(toy_images, test_n_way=ways)
    stream = TaskStream(ImagePool(toy_images, "meta_test", "none", CPU), Episode(ways, 1, 2), 0)
    slow = {name: torch.zeros_like(w) if w.dim() == 4 else w for name, w in after.slow.items()}  # sees no image
    found = evaluate(algorithm, after.task_loss, slow, after.carry, stream, 40, steps)
    for mode in (PLAIN, TRANSDUCTIVE):
        assert found.final(mode).mean() == pytest.approx(1 / ways, abs=1e-12 if steps == 0 else 0.12)


def test_weights_that_an_algorithm_learns_beside_the_network_are_cut_or_repeated_alike(toy_images):
    _, _, before, after = at_test(toy_images, algo="meta-sgd", test_n_way=7)
    rates = [name for name in after.slow if "/" in name]
    assert rates
    for name in rates:
        assert after.slow[name].shape == after.slow[name.split("/")[1]].shape
        assert torch.equal(after.slow[name].flatten()[:1], before.slow[name].flatten()[:1])


def test_a_method_whose_outputs_do_not_depend_on_the_classes_takes_any_number(toy_images):
    _, algorithm, before, after = at_test(toy_images, algo="protonet", test_n_way=12)
    assert after is before
    stream = TaskStream(ImagePool(toy_images, "meta_test", "none", CPU), Episode(12, 1, 1), 0)
    found = evaluate(algorithm, after.task_loss, after.slow, after.carry, stream, 20, None)
    assert found.final(PLAIN).mean() > 2 / 12


def test_a_network_of_which_more_than_its_outputs_depends_on_the_classes_is_refused(toy_images, monkeypatch):
    monkeypatch.setattr(BACKBONES, "_classes", dict(BACKBONES._classes))

    @BACKBONES.register("by-classes")
    @dataclass(frozen=True)
    class ByClasses(Backbone):
        def build(self, input_shape, output_size):
            hidden = 4 * output_size
            return nn.Sequential(nn.Flatten(), nn.Linear(784, hidden), nn.Linear(hidden, output_size))

    with pytest.raises(BenchError, match="test_n_way 7: in fomaml on backbone 'by-classes' more than outputs depends"):
        at_test(toy_images, backbone="by-classes", test_n_way=7)
