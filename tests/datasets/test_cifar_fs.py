"""CIFAR-FS from generated files of CIFAR-100's form: classes, splits, archives, and what is refused."""

import hashlib
import pickle
import tarfile

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR100

from bench.api import SPLITS, DataError, DataMissing
from bench.registry import create_dataset
from datasets.cifar_fs import ARCHIVE, FOLDER, META_TEST, META_VAL

# The 64 others, in no order.
META_TRAIN = [
    "apple",
    "aquarium_fish",
    "bear",
    "bee",
    "bottle",
    "bowl",
    "boy",
    "bridge",
    "bus",
    "can",
    "castle",
    "caterpillar",
    "chair",
    "clock",
    "cloud",
    "cockroach",
    "couch",
    "cup",
    "dinosaur",
    "dolphin",
    "elephant",
    "forest",
    "girl",
    "hamster",
    "house",
    "kangaroo",
    "keyboard",
    "lawn_mower",
    "lion",
    "lizard",
    "lobster",
    "mountain",
    "mouse",
    "mushroom",
    "oak_tree",
    "orange",
    "orchid",
    "palm_tree",
    "pear",
    "pine_tree",
    "plate",
    "porcupine",
    "possum",
    "rabbit",
    "raccoon",
    "ray",
    "road",
    "seal",
    "shrew",
    "skunk",
    "skyscraper",
    "snake",
    "spider",
    "squirrel",
    "streetcar",
    "sunflower",
    "tank",
    "tiger",
    "train",
    "trout",
    "tulip",
    "turtle",
    "willow_tree",
    "wolf",
]


def made(folder, monkeypatch, per_class=600):
    """Write CIFAR-100 as torchvision reads it, of noise, with its sums in place of the real ones."""
    rng = np.random.default_rng(0)
    names = sorted({*META_TRAIN, *META_VAL, *META_TEST})
    home = folder / FOLDER
    home.mkdir(parents=True)
    labels = rng.permutation(np.repeat(np.arange(len(names)), per_class))
    data = rng.integers(0, 256, (len(labels), 3072), np.uint8)
    sums = {}
    for part, of in (("train", slice(0, 50000)), ("test", slice(50000, None))):
        content = {"data": data[of], "fine_labels": labels[of].tolist()}
        (home / part).write_bytes(pickle.dumps(content))
    (home / "meta").write_bytes(pickle.dumps({"fine_label_names": names}))
    for part in ("train", "test", "meta"):
        sums[part] = hashlib.md5((home / part).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": sums["meta"]})
    return names, labels, data


def load(root):
    return create_dataset("cifar-fs").load(root, root / "cache")


def test_the_split_is_the_published_one():
    assert [len(META_TRAIN), len(META_VAL), len(META_TEST)] == [64, 16, 20]
    assert len({*META_TRAIN, *META_VAL, *META_TEST}) == 100


def test_classes_hold_their_images_in_colour_whatever_their_order(tmp_path, monkeypatch):
    names, labels, data = made(tmp_path, monkeypatch)
    source = load(tmp_path)
    assert source.shape == (3, 32, 32)
    assert source.counts == (600,) * 100
    assert {s: sorted(source.class_names[c] for c in source.splits[s]) for s in SPLITS} == {
        "meta_train": sorted(META_TRAIN), "meta_val": sorted(META_VAL), "meta_test": sorted(META_TEST)
    }  # fmt: skip
    for c in (0, 57, 99):
        own = data[labels == names.index(source.class_names[c])]
        np.testing.assert_array_equal(source.of_class(c), own.reshape(600, 3, 32, 32))
    assert source.rotations == ("none",)
    monkeypatch.setattr("datasets.cifar_fs._prepare", lambda root: pytest.fail("was prepared already"))
    assert torch.equal(load(tmp_path).pixels, source.pixels)


def test_the_archive_is_unpacked_without_a_network(tmp_path, monkeypatch):
    made(tmp_path / "made", monkeypatch)
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / ARCHIVE, "w:gz", compresslevel=1) as archive:
        archive.add(tmp_path / "made" / FOLDER, FOLDER)
    monkeypatch.setattr(CIFAR100, "tgz_md5", hashlib.md5((root / ARCHIVE).read_bytes()).hexdigest())
    assert load(root).counts == (600,) * 100


def test_damaged_or_partial_files_are_refused(tmp_path, monkeypatch):
    made(tmp_path, monkeypatch)
    with (tmp_path / FOLDER / "test").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match="is not CIFAR-100 as torchvision has it"):
        load(tmp_path)


def test_too_few_images_are_refused(tmp_path, monkeypatch):
    made(tmp_path, monkeypatch, per_class=510)
    with pytest.raises(DataError, match="holds 100 classes of 510 to 510 images; CIFAR-100 has 100 of 600"):
        load(tmp_path)


def test_nothing_there_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR100, "url", "http://127.0.0.1:9/none")
    with pytest.raises(DataMissing, match=f"CIFAR-100 is not under .*put {ARCHIVE} from"):
        load(tmp_path / "none")
