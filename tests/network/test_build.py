"""Where initial weights come from, what cannot be built, and on which inputs a network is asked how it is to run."""

import pytest
import torch

from bench.api import BenchError
from bench.network import build as building
from bench.network.build import asked_shape, build_network, way_of
from bench.registry import BACKBONES, create_backbone, load_plugin
from bench.settings.config import RunConfig

CPU = torch.device("cpu")


def build(seed=0):
    return build_network(create_backbone("conv4"), (1, 28, 28), 5, seed)


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    first = build().state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    assert all(torch.equal(w, first[n]) for n, w in build().state_dict().items())
    assert not torch.equal(build(seed=1).state_dict()["0.weight"], first["0.weight"])


@pytest.mark.parametrize(
    ("name", "shape", "accepted"),
    [
        ("resnet12", (3, 84, 15), "images of 16 x 16 pixels or more"),
        ("resnet12", (1,), "images of 16 x 16 pixels or more"),
        ("vit", (3, 28, 6), "images of 7 x 7 pixels or more"),
    ],
)
def test_inputs_that_a_network_cannot_take_are_refused_in_one_line(name, shape, accepted):
    config = RunConfig(algo="maml", dataset="made-up", backbone=name)
    with pytest.raises(BenchError) as refused:
        way_of(config, shape, 5, CPU)
    assert str(refused.value) == f"backbone {name!r}: inputs of {' x '.join(map(str, shape))}; accepted: {accepted}"


def test_whatever_else_a_build_raises_names_the_backbone(monkeypatch):
    def broken(*args):
        raise IndexError("list index out of range")

    monkeypatch.setattr(building, "build_network", broken)
    with pytest.raises(
        BenchError, match=r"^backbone 'mlp' cannot be built .* \(1, 13, 17\): IndexError: list index out of range$"
    ):
        way_of(RunConfig(algo="maml", dataset="made-up", backbone="mlp"), (1, 13, 17), 5, CPU)


@pytest.mark.parametrize(
    ("name", "shape", "asked"),
    [
        ("resnet12", (3, 84, 84), (3, 21, 21)),
        ("resnet12", (3, 28, 28), (3, 28, 28)),
        ("resnet12", (3, 17, 400), (3, 17, 400)),  # half of it is too small
        ("conv4-gap", (1, 105, 105), (1, 26, 26)),
        ("conv4", (3, 84, 84), (3, 84, 84)),  # its head has other parameters for other images
        ("vit", (3, 84, 84), (3, 84, 84)),
        ("sine-mlp", (1,), (1,)),
    ],
)
def test_a_network_is_asked_on_small_images_where_it_is_the_same_for_them(name, shape, asked):
    assert asked_shape(create_backbone(name), shape, 5) == asked


def test_a_network_is_asked_again_once_its_code_is_another(tmp_path, monkeypatch):
    plugin = tmp_path / "asked_again.py"
    plugin.write_text(
        "from bench.backbones.mlp import MLP\nfrom bench.registry import register_backbone\n"
        "@register_backbone('asked-again')\nclass Again(MLP):\n    pass\n"
    )
    load_plugin(plugin)
    asked, choose = [], building.choose_way
    monkeypatch.setattr(building, "KNOWN", {})
    monkeypatch.setattr(building, "choose_way", lambda *args: asked.append(1) or choose(*args))
    config = RunConfig(algo="maml", dataset="made-up", backbone="asked-again")
    try:
        for text, times in (("", 1), ("", 1), ("# edited\n", 2), ("", 2)):
            plugin.write_text(plugin.read_text() + text)
            assert way_of(config, (1, 8, 8), 5, CPU).name == "stacked"
            assert len(asked) == times
        way_of(config, (1, 8, 9), 5, CPU)
        way_of(config, (1, 8, 8), 6, CPU)
        assert len(asked) == 4, "another network"
    finally:
        del BACKBONES._classes["asked-again"]


def test_a_network_without_a_file_is_asked_each_time(monkeypatch):
    """As one of a notebook, of which a second version has the first one's name."""
    asked, choose = [], building.choose_way
    monkeypatch.setattr(building, "KNOWN", {})
    monkeypatch.setattr(building, "choose_way", lambda *args: asked.append(1) or choose(*args))
    config = RunConfig(algo="maml", dataset="made-up", backbone="of-a-notebook")
    for time in (1, 2):
        version = type("Network", (type(create_backbone("mlp")),), {"__module__": "notebook", "version": time})
        monkeypatch.setitem(BACKBONES._classes, "of-a-notebook", version)
        assert way_of(config, (1, 8, 8), 5, CPU).name == "stacked"
        assert len(asked) == time
