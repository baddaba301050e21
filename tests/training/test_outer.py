"""The meta-optimizer: its rate on the device, and the schedules."""

import sys

import pytest
import torch

from bench.settings.config import SCHEDULES, RunConfig
from bench.training.outer import MetaOptimizer


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


def test_gradients_come_to_a_fused_kernel_in_the_memory_order_of_their_weights(monkeypatch, rng):
    """A card's takes nothing else, and says so; a CPU's walks memory and asks nothing."""
    monkeypatch.setattr(sys.modules["torch.optim.adam"], "_get_capturable_supported_devices", lambda **kwargs: ["cpu"])
    last, first = torch.channels_last, torch.contiguous_format
    grad, ends = torch.randn(4, 3, 2, 2, generator=rng), []
    for order in (last, first):
        slow = {"w": torch.ones(4, 3, 2, 2).contiguous(memory_format=last)}
        rule = MetaOptimizer(RunConfig(algo="maml", meta_optimizer="adam", meta_lr=0.1, meta_steps=2), slow, True)
        for done in range(2):
            rule.step({"w": (done + grad).contiguous(memory_format=order)}, torch.tensor([done]))
        assert slow["w"].is_contiguous(memory_format=last)
        ends.append(slow["w"])
    assert torch.equal(*ends)


def test_schedules_start_at_one_and_fall_to_zero():
    assert [SCHEDULES["linear"](p) for p in (0, 0.25, 1)] == [1, 0.75, 0]
    assert [round(SCHEDULES["cosine"](p), 9) for p in (0, 0.5, 1)] == [1, 0.5, 0]
    assert {SCHEDULES["constant"](p) for p in (0, 0.5, 1)} == {1}
