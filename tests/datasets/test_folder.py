"""Folders of pictures: their forms, what of them is left out or refused, what is written and when it is made again."""

import csv
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from bench.api import SPLITS, BenchError, DataError, DataMissing, Episode
from bench.check import dataset
from bench.check.verdicts import Status, ask_all
from bench.registry import DATASETS, create_dataset
from datasets.folder_layout import by_hash, find

N = 12


def picture(path, seed, colour=True, size=(10, 10)):
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (*size, 3) if colour else size, np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    """Twelve classes of 6 colour pictures each, ``c03`` of 2 only."""
    root = tmp_path / "pictures"
    for c in range(N):
        for i in range(2 if c == 3 else 6):
            picture(root / f"c{c:02}" / f"{i}.png", 100 * c + i)
    return root


def load(root, **options):
    return create_dataset("folder", **{"image_size": 10, **options}).load(root, root.parent / "cache")


def names(source, split):
    return {source.class_names[c] for c in source.splits[split]}


def moved(root, split_of):
    """Put the classes into one folder for each split."""
    for c in range(N):
        target = root / split_of(c)
        target.mkdir(exist_ok=True)
        (root / f"c{c:02}").rename(target / f"c{c:02}")


def test_a_folder_per_class_is_split_by_a_hash_of_the_names(root):
    source = load(root)
    assert source.class_names == tuple(f"c{c:02}" for c in range(N))
    assert source.counts == tuple(2 if c == 3 else 6 for c in range(N))
    assert {split: len(source.splits[split]) for split in SPLITS} == {"meta_train": 8, "meta_val": 2, "meta_test": 2}
    assert set.union(*(names(source, split) for split in SPLITS)) == set(source.class_names)
    with Image.open(root / "c05" / "4.png") as image:
        np.testing.assert_array_equal(source.of_class(5)[4], np.asarray(image).transpose(2, 0, 1))
    assert source.notes == ()


def test_the_hash_knows_names_alone():
    import hashlib

    order = sorted("abcdefgh", key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    cut = by_hash(list("hgfedcba"))
    assert cut == {
        "meta_train": tuple(sorted(order[:5])), "meta_val": (order[5],), "meta_test": tuple(sorted(order[6:]))
    }  # fmt: skip
    assert [len(part) for part in by_hash(list("abc")).values()] == [1, 1, 1]
    assert [len(part) for part in by_hash([str(i) for i in range(100)]).values()] == [64, 16, 20]


def test_the_split_is_written_down_beside_the_cache(root):
    source = load(root)
    file = root.parent / "cache" / f"folder-{source.sha256[:12]}-splits.csv"
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    assert {row["class"] for row in rows if row["split"] == "meta_val"} == names(source, "meta_val")
    assert {row["class"]: row["images"] for row in rows}["c03"] == "2"
    assert sorted(p.name for p in root.iterdir()) == [f"c{c:02}" for c in range(N)]  # nothing of ours among theirs


@pytest.mark.parametrize("val", ["val", "valid", "validation", "VAL"])
def test_folders_of_splits_say_which_class_is_where(root, val):
    moved(root, lambda c: "train" if c < 6 else val if c < 9 else "test")
    source = load(root)
    assert names(source, "meta_train") == {f"c{c:02}" for c in range(6)}
    assert names(source, "meta_val") == {f"c{c:02}" for c in range(6, 9)}
    assert names(source, "meta_test") == {f"c{c:02}" for c in range(9, 12)}


@pytest.mark.parametrize("header", ["filename,label", "class,n,file", ""])
@pytest.mark.parametrize("place", ["images", "beside", "class"])
def test_lists_say_which_file_is_of_which_class(root, header, place):
    """As mini-ImageNet ships: all pictures in images/, named in train.csv, val.csv and test.csv."""
    flat = root / "images"
    for c in range(N):
        for file in sorted((root / f"c{c:02}").iterdir()):
            target = {"images": flat, "beside": root, "class": root / f"c{c:02}"}[place] / f"c{c:02}-{file.name}"
            target.parent.mkdir(exist_ok=True)
            file.rename(target)
    for split, classes in (("train", range(6)), ("val", range(6, 9)), ("test", range(9, 12))):
        rows = [(f"c{c:02}-{i}.png", f"c{c:02}") for c in classes for i in range(2 if c == 3 else 5)]
        lines = [f"{name},7,{file}" if header.startswith("class") else f"{file},{name}" for file, name in rows]
        (root / f"{split}.csv").write_text("\n".join(filter(None, [header, *lines])) + "\n")
    source = load(root)
    assert names(source, "meta_val") == {"c06", "c07", "c08"}
    assert source.counts == tuple(2 if c == 3 else 5 for c in range(N))  # the sixth is in no list


def test_classes_may_lie_deeper_and_one_folder_too_deep(root):
    """Alphabets of characters: a class is every folder that holds pictures, by its path."""
    deep = root.parent / "outer" / "data"
    for c in range(N):
        shutil.copytree(root / f"c{c:02}", deep / ("greek" if c % 2 else "latin") / f"c{c:02}")
    assert set(find(deep.parent).classes) == {f"{'greek' if c % 2 else 'latin'}/c{c:02}" for c in range(N)}
    assert load(deep.parent).split_sha256 == load(deep).split_sha256


def test_loose_pictures_beside_split_folders_are_left_out_and_told(root):
    moved(root, lambda c: "training" if c < 6 else "validation" if c < 9 else "testing")
    picture(root / "training" / "montage.bmp", 1)
    picture(root / "testing" / "montage.bmp", 2)
    source = load(root)
    assert names(source, "meta_test") == {"c09", "c10", "c11"}
    assert len(source.notes) == 2


def test_pictures_of_kinds_that_are_not_read_are_told(root):
    (root / "c00" / "photo.HEIC").write_bytes(b"x")
    (root / "c01" / "notes.txt").write_bytes(b"x")
    assert load(root).notes == (f"{root}: pictures of kinds that are not read are left out: 1 .heic",)


def test_names_that_are_no_unicode_are_names(root):
    (root / "c00").rename(root / os.fsdecode(b"\xff\xfe"))
    assert len(load(root).class_names) == N
    assert load(root).split_sha256


def test_two_roots_with_the_same_names_sizes_and_times_are_two(root):
    other = root.parent / "other" / "pictures"
    shutil.copytree(root, other)
    for c in range(N):
        (other / f"c{c:02}" / "0.png").unlink()
        picture(other / f"c{c:02}" / "0.bmp", 7 + c)
        picture(root / f"c{c:02}" / "0.bmp", 900 + c)
        (root / f"c{c:02}" / "0.png").unlink()
    for base in (root, other):
        for path in base.rglob("*.*"):
            os.utime(path, (5, 5))
    cache = root.parent / "cache"
    first, second = (create_dataset("folder", image_size=10).load(base, cache) for base in (root, other))
    assert first.sha256 != second.sha256
    (root / "c00").rename(root / "x")
    (root / "c01").rename(root / "c00")
    (root / "x").rename(root / "c01")
    assert torch.equal(load(root).of_class(0), first.of_class(1))


def test_a_class_may_be_called_train(root):
    (root / "c00").rename(root / "train")
    (root / "c01").rename(root / "test")
    assert {"train", "test"} <= set(load(root).class_names)


def test_what_is_hidden_or_no_picture_does_not_count(root):
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "__MACOSX/a.png", ".git/b.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("x")
    (root / "empty").mkdir()
    assert len(load(root).class_names) == N
    picture(root / "overview.jpg", 1)
    assert load(root).notes == (f"{root}: beside the folders of the classes 1 picture left out",)


def test_grey_pictures_have_one_channel_unless_asked(root):
    grey = root.parent / "grey"
    for c in range(3):
        for i in range(3):
            picture(grey / f"g{c}" / f"{i}.png", 9 * c + i, colour=False)
    assert load(grey).shape == (1, 10, 10)
    assert load(grey, channels=3).shape == (3, 10, 10)
    assert load(root).shape == (3, 10, 10)
    assert load(root, channels=1).shape == (1, 10, 10)
    picture(grey / "g0" / "9.png", 5)
    assert load(grey).shape == (3, 10, 10)


def test_small_pictures_that_are_enlarged_are_told(root):
    (note,) = load(root, image_size=20).notes
    assert "half of the pictures are 10 pixels high or wide, or less, and are enlarged to 20" in note
    assert "--set image_size=10" in note


def test_prepared_once_and_again_when_a_file_changes(root, monkeypatch):
    first = load(root)
    read = "datasets.folder.read_picture"
    monkeypatch.setattr(read, lambda *_: pytest.fail("was prepared already"))
    again = load(root)
    assert torch.equal(first.pixels, again.pixels)
    assert (first.sha256, first.pipeline, first.split_sha256) == (again.sha256, again.pipeline, again.split_sha256)
    monkeypatch.undo()
    picture(root / "c00" / "0.png", 4321)
    os.utime(root / "c00" / "0.png", (1, 1))
    assert load(root).sha256 != first.sha256
    assert load(root, fit="pad").pipeline != first.pipeline


def test_the_same_pictures_elsewhere_are_the_same_data(root):
    other = root.parent / "elsewhere" / "copy"
    shutil.copytree(root, other)
    a, b = load(root), load(other)
    assert (a.sha256, a.pipeline, a.split_sha256) == (b.sha256, b.pipeline, b.split_sha256)


def test_a_picture_in_another_class_is_other_data(root):
    """Sorted, the pixels are the same; which class they belong to is not."""
    before = load(root).sha256
    (root / "c04" / "0.png").rename(root / "c03" / "zz.png")
    assert load(root).sha256 != before


def test_classes_with_too_few_pictures_are_left_out_by_name(root):
    source = load(root)
    split = next(split for split in SPLITS if "c03" in names(source, split))
    (line,) = source.remarks(split, Episode(2, 1, 2))
    assert line.endswith("c03 (2)")
    assert source.remarks(split, Episode(2, 1, 1)) == []


def test_all_broken_and_blank_files_are_named(root):
    (root / "c01" / "1.png").write_bytes(b"no picture")
    Image.new("L", (10, 10), 200).save(root / "c02" / "2.png")
    with pytest.raises(DataError) as caught:
        load(root)
    for words in ("c01/1.png: is no picture", "c02/2.png: is blank", "Mend these files"):
        assert words in str(caught.value)
    assert not list((root.parent / "cache").glob("*.npz"))


REFUSED = {
    "not there": (lambda r: shutil.rmtree(r), DataMissing, "is not there"),
    "a file": (lambda r: (shutil.rmtree(r), r.write_text("x")), DataMissing, "is a file"),
    "empty": (lambda r: (shutil.rmtree(r), r.mkdir()), DataMissing, "0 pictures and 0 folders"),
    "loose pictures": (lambda r: (shutil.rmtree(r), picture(r / "a.png", 0)), DataError, "1 pictures and 0 folders"),
    "two classes": (lambda r: [shutil.rmtree(r / f"c{c:02}") for c in range(2, N)], DataError, "three classes or more"),
    "no val folder": (lambda r: moved(r, lambda c: "train" if c < 6 else "test"), DataError, "but not val"),
    "no val list": (lambda r: [(r / f"{s}.csv").write_text("c00/0.png,a\n") for s in ("train", "test")], DataError,
                    "train.csv, test.csv but not val"),
    "a class in two": (
        lambda r: (moved(r, lambda c: "train" if c < 6 else "val" if c < 9 else "test"),
                   shutil.copytree(r / "train" / "c00", r / "test" / "c00")), DataError, "class 'c00' is in"),
    "a file that is not there": (
        lambda r: [(r / f"{s}.csv").write_text(f"file,class\nc00/{s}.png,{s}\n") for s in ("train", "val", "test")],
        DataError, "train.csv, line 2: 'c00/train.png' is not there; looked for"),
    "a path that leaves": (
        lambda r: [(r / f"{s}.csv").write_text(f"../{s}.png,{s}\n") for s in ("train", "val", "test")], DataError,
        "leaves"),
    "half a line": (
        lambda r: [(r / f"{s}.csv").write_text("c00/0.png\n") for s in ("train", "val", "test")], DataError,
        "accepted: .file, class."),
    "a class by two names": (
        lambda r: (r / "alias").symlink_to(r / "c05"), DataError, "is in class 'c05' and in 'alias'"),
    "a file in two lists": (
        lambda r: [(r / f"{s}.csv").write_text(f"c00/0.png,{s}\n") for s in ("train", "val", "test")], DataError,
        "0.png: is in class 'val' and in 'train'"),
    "a link to nothing": (lambda r: (r / "c00" / "gone.png").symlink_to(r / "gone"), DataError, "gone.png"),
    "a circle": (lambda r: (r / "c00" / "loop").symlink_to(r), DataError, "a folder that it is in"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(root, case):
    spoil, error, words = REFUSED[case]
    spoil(root)
    with pytest.raises(error, match=words) as caught:
        load(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"image_size": 1}, {"image_size": 5000}, {"channels": 2}, {"size": 3}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(BenchError, match=next(iter(options))):
        create_dataset("folder", **options)


def test_it_passes_the_checks_of_plugins(root):
    root.joinpath("c03", "2.png").write_bytes((root / "c02" / "2.png").read_bytes())
    verdicts = list(ask_all(dataset.CHECKS, dataset.Data("folder", DATASETS.get("folder"), root)))
    assert [v for v in verdicts if v.status != Status.OK] == []
