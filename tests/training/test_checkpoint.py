"""Checkpoints come back to the bit or not at all, whatever happened to the file, and only to their own run."""

import dataclasses
import os
import pickle

import numpy as np
import pytest
import torch
from trainings import ADAM, Stopped, make_training, stop_after

from bench.training.checkpoint import read_checkpoint, seal, write_checkpoint

STATE = {
    "run_id": "maml-x",
    "slow": {"0.weight": torch.arange(24.0).view(2, 3, 2, 2).contiguous(memory_format=torch.channels_last)},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999)}]},
    "counters": {"meta_step": 7, "step_ms": [1.5, 2.25], "losses": [], "oom": None, "ok": True},
}


def same(a, b):
    """Whether two states are equal, independently of the seal."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_what_was_written_comes_back_and_torch_alone_can_read_it(tmp_path):
    write_checkpoint(tmp_path / "c.pt", STATE)
    assert same(read_checkpoint(tmp_path / "c.pt"), STATE)
    assert torch.load(tmp_path / "c.pt", weights_only=True)["run_id"] == "maml-x"


def test_a_file_with_a_flipped_bit_or_cut_anywhere_is_whole_or_refused(tmp_path):
    path = tmp_path / "c.pt"
    write_checkpoint(path, STATE)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = []
    for case in range(600):
        data = bytearray(whole)
        if case % 3:
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        else:
            del data[int(rng.integers(len(data))) :]
        path.write_bytes(data)
        try:
            assert same(read_checkpoint(path), STATE)
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 200, "all the cut ones at least"
    assert not any("\n" in line for line in refused)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, True), (1, 1.0), ("1", 1), ([1.0], (1.0,)), ([1, 2], [12]), ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (torch.zeros(2, 3), torch.zeros(3, 2)), (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (torch.tensor(0.0), torch.tensor(-0.0)), ([0.1, 0.2], [0.2, 0.1]), (["ab", "c"], ["a", "bc"]), ([], [None]),
    ],
)  # fmt: skip
def test_seals_tell_apart_what_is_not_the_same(a, b):
    assert seal(a) != seal(b)
    assert seal(a) == seal(a)


def test_what_a_pickle_would_do_is_not_done(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    (tmp_path / "a.pt").write_bytes(pickle.dumps({"sha256": Trap()}))
    torch.save({"sha256": Trap()}, tmp_path / "b.pt")
    for name in ("a.pt", "b.pt"):
        with pytest.raises(ValueError, match="not a whole checkpoint"):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_what_is_not_known_is_not_written(tmp_path):
    with pytest.raises(TypeError, match="cannot hold complex"):
        write_checkpoint(tmp_path / "c.pt", {"x": 1j})
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_run_is_not_continued(toy_images, tmp_path):
    make_training(toy_images, tmp_path).run()
    assert make_training(toy_images, tmp_path).resumed
    assert not make_training(toy_images, tmp_path, meta_lr=0.5).resumed


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_a_damaged_checkpoint_is_not_continued(content, toy_images, tmp_path, caplog):
    (tmp_path / "checkpoint.pt").write_bytes(content)
    training = make_training(toy_images, tmp_path)
    assert not training.resumed
    assert "starts anew" in caplog.text
    training.run()
    assert training.progress.meta_step == 6


def test_a_checkpoint_that_does_not_fit_the_configuration_is_not_continued(toy_images, tmp_path, caplog):
    """It is whole and its seal is right, but this run cannot have written it."""
    first = make_training(toy_images, tmp_path, "reptile", ADAM)
    first.save()
    path = tmp_path / "checkpoint.pt"
    state = read_checkpoint(path)
    weight, carried = next(iter(state["slow"])), next(iter(state["carry"]))
    for part, odd in (
        ("counters", {"meta_step": 7, "step_ms": [1.0] * 7}),
        ("counters", {"meta_step": -1}),
        ("counters", {"meta_step": 4}),
        ("counters", {"meta_step": "0"}),
        ("counters", {"step_ms": ["x"], "meta_step": 1}),
        ("counters", {"train_s": "x"}),
        ("counters", {"chunk": 0}),
        ("counters", {"chunk": 6}),
        ("slow", {weight: "text"}),
        ("slow", {weight: [1.0]}),
        ("carry", {carried: 3}),
    ):
        write_checkpoint(path, {**state, part: {**state[part], **odd}})
        caplog.clear()
        training = make_training(toy_images, tmp_path, "reptile", ADAM)
        assert not training.resumed, odd
        assert training.progress.chunk == 5
        assert "starts anew" in caplog.text
    write_checkpoint(path, state)
    assert make_training(toy_images, tmp_path, "reptile", ADAM).resumed


def test_a_run_is_not_continued_on_other_data(toy_images, tmp_path, caplog):
    training = make_training(toy_images, tmp_path)
    with pytest.raises(Stopped):
        training.run(stop_after(3))
    training.save()
    other = dataclasses.replace(toy_images, sha256="of other pixels")
    assert not make_training(other, tmp_path).resumed
    assert caplog.records[-1].getMessage().endswith("the run starts anew (it was trained on other data of that name)")
    assert make_training(toy_images, tmp_path).resumed


def test_a_leak_found_once_is_not_forgotten(toy_images, tmp_path):
    first = make_training(toy_images, tmp_path)
    first.run()
    first.memory.leaked = "grew"
    first.save()
    second = make_training(toy_images, tmp_path)
    second.run()
    assert second.memory.leak() == "grew"
    assert second.memory.peak_mib == first.memory.peak_mib
