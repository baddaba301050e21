"""Which layer is taken for the head, and networks in which that would be wrong."""

import pytest
import torch
from helpers import image_tasks, small_classifier

from algorithms.head import check_head, head
from bench.api import BenchError, Examples
from bench.network.build import build_network
from bench.network.model import Classifier
from bench.registry import BACKBONES, create_algorithm, create_backbone
from datasets.navigation import Navigation, NegativeReturn


@pytest.mark.parametrize("name", [n for n in BACKBONES.names() if n in ("conv4", "mlp", "resnet12", "vit", "sine-mlp")])
def test_the_last_layer_is_the_one_that_gives_the_scores(name):
    shape = (1,) if name == "sine-mlp" else (1, 28, 28)
    network = create_backbone(name).build(shape, 7)
    last = head(dict(network.named_parameters()))
    assert len(last) == 2
    assert {network.get_parameter(n).shape[0] for n in last} == {7}


@pytest.mark.parametrize("name", ["anil", "boil"])
def test_a_network_that_names_its_head_first_is_refused_and_not_adapted_elsewhere(name, rng):
    task_loss, tasks = small_classifier(rng), image_tasks(rng, n_tasks=3, size=8)
    slow = task_loss.weights
    last = head(slow)
    turned = {n: slow[n] for n in (*last, *(n for n in slow if n not in last))}
    with pytest.raises(BenchError, match=r"taken for its head, and has not 5 outputs \(4.weight"):
        create_algorithm(name).meta_grad(task_loss, turned, tasks)


def test_anil_adapts_the_last_layer_of_a_policy_whose_world_shows_its_return_alone(rng):
    """Its head has two outputs, a velocity, where the harness sees one number for each try."""
    network = build_network(Navigation().around(create_backbone("sine-mlp", hidden=8)), (21, 2), 1, seed=0)
    support = Examples(torch.rand(2, 3, 21, 2, generator=rng), torch.zeros(2, 3), n_way=1)
    slow = Classifier(network, objective=NegativeReturn()).weights
    check_head(slow, support)
    turned = dict(reversed(slow.items()))
    with pytest.raises(BenchError, match="not 2 outputs, the fewest of any layer"):
        check_head(turned, support)
    with pytest.raises(BenchError, match="the return of its walk, one number, and not with 64"):
        Navigation().around(create_backbone("sine-mlp")).build((21, 2), 64)
