"""What a run leaves to adapt with: the network's weights, and what an algorithm has besides."""

import pytest
import torch
from places import REPOSITORY

from bench.api import BenchError
from bench.cli.adapt import _beyond_the_network, adapt
from bench.registry import ALGORITHMS, BACKBONES, create_algorithm
from bench.training.checkpoint import write_checkpoint
from bench.training.weights import STATE_FILE, write_inner_state

NETWORK = {"0.weight": torch.ones(2, 3), "0.bias": torch.zeros(2)}


def reptile():
    return create_algorithm("reptile", inner_optimizer="adam")


def test_the_second_moment_of_an_inner_adam_lies_beside_the_weights(tmp_path):
    carry = {name: c + 3 for name, c in reptile().initial_carry(NETWORK).items()}
    write_inner_state(tmp_path / STATE_FILE, NETWORK, {**NETWORK, "rate/0.bias": torch.full((2,), 0.5)}, carry)
    extra, found = _beyond_the_network(tmp_path, reptile(), NETWORK)
    assert {name: w.tolist() for name, w in extra.items()} == {"rate/0.bias": [0.5, 0.5]}
    assert {name: c.tolist() for name, c in found.items()} == {name: c.tolist() for name, c in carry.items()}
    assert carry["second_moment/0.bias"].tolist() == [3, 3]


def test_an_algorithm_without_more_than_a_network_leaves_and_asks_for_nothing(tmp_path):
    write_inner_state(tmp_path / STATE_FILE, NETWORK, NETWORK, {})
    assert not list(tmp_path.iterdir())
    assert _beyond_the_network(tmp_path, create_algorithm("maml"), NETWORK) == ({}, {})


def test_a_run_of_the_first_version_has_it_in_its_checkpoint_alone(tmp_path):
    carry = reptile().initial_carry(NETWORK)
    with pytest.raises(BenchError, match=r"checkpoint\.pt: .*accepted: what a run that finished left"):
        _beyond_the_network(tmp_path, reptile(), NETWORK)
    write_checkpoint(tmp_path / "checkpoint.pt", {"slow": NETWORK, "carry": carry})
    extra, found = _beyond_the_network(tmp_path, reptile(), NETWORK)
    assert (extra, set(found)) == ({}, set(carry))


@pytest.mark.parametrize(("registry", "name"), [(ALGORITHMS, "maml"), (BACKBONES, "conv4")])
def test_a_plugin_that_the_run_had_and_that_is_not_here_is_asked_for(registry, name, tmp_path, monkeypatch):
    (run,) = (REPOSITORY / "results" / "reference" / "quick-cpu" / "runs").glob("maml-*")
    classes = {other: registry.get(other) for other in registry.names() if other != name}
    monkeypatch.setattr(registry, "_classes", classes)
    with pytest.raises(BenchError, match=f"the {registry.kind} of the run, '{name}', is not known here; --plugin"):
        adapt(run, tmp_path)


def test_a_file_of_something_else_is_one_line_and_nothing_of_it_is_executed(tmp_path):
    for content in (b"", b"no archive", b"cos\nsystem\n(S'touch executed'\ntR."):
        (tmp_path / STATE_FILE).write_bytes(content)
        with pytest.raises(BenchError, match=STATE_FILE.replace(".", r"\.")):
            _beyond_the_network(tmp_path, reptile(), NETWORK)
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]
