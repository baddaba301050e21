"""The miniature of Omniglot in place of the real one."""

import functools
import hashlib
import json

import numpy as np
import pytest
from miniature import NAMES, Miniature, picture, png

from datasets import omniglot
from datasets.omniglot import shrink, split_sha256
from datasets.omniglot_files import Half


@functools.cache
def made():
    """Return the files, the two halves and the hash of the prepared images."""
    files, expected, halves, seed = {}, [], [], 0
    for half, names in NAMES.items():
        digest = hashlib.sha256()
        for number, name in enumerate(names):
            for drawer in range(1, 21):
                pixels = picture(seed)
                seed += 1
                files[f"{half}/{name}/{number:04}_{drawer:02}.png"] = png(pixels)
                digest.update(bytes(int(p) for p in pixels.flatten().tolist()))
                expected.append(pixels)
        alphabets = frozenset(name.split("/")[0] for name in names)
        halves.append(Half(half, len(names), digest.hexdigest(), alphabets))
    prepared = np.stack([shrink(pixels) for pixels in expected]).reshape(5, 20, 28, 28)
    return dict(sorted(files.items(), reverse=True)), tuple(halves), hashlib.sha256(prepared.tobytes()).hexdigest()


@pytest.fixture
def mini(tmp_path, monkeypatch):
    files, halves, prepared = made()
    split = {"meta_train": ["Tengwar/character25", "Greek/character01", "Futurama/character02"],
             "meta_val": ["Futurama/character01"], "meta_test": ["Angelic/character01"]}  # fmt: skip
    (tmp_path / "split.json").write_text(json.dumps(split | {"sha256": split_sha256(split)}))
    monkeypatch.setattr(omniglot, "HALVES", halves)
    monkeypatch.setattr(omniglot, "SPLIT_FILE", tmp_path / "split.json")
    monkeypatch.setattr(omniglot, "PREPARED_SHA256", prepared)
    # A check that did not hold would try the network; here that is an error at once.
    monkeypatch.setattr(omniglot, "download", lambda *args: pytest.fail("tried to download"))
    (tmp_path / "root").mkdir()
    return Miniature(tmp_path / "root", tmp_path / "cache", dict(files))
