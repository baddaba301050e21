"""Where initial weights come from."""

import torch

from bench.network.build import build_network
from bench.registry import create_backbone


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
