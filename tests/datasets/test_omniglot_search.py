"""Omniglot in the layouts that people have: found and equal to the last pixel, or refused with what was seen."""

import shutil
import zipfile

import pytest
import torch
from miniature import FIRST, NAMES, picture, png

from bench.api import DataError, DataMissing
from datasets import omniglot_search
from datasets.omniglot import PREPARED_SHA256, Omniglot
from datasets.omniglot_files import ALPHABETS, HALVES
from datasets.omniglot_search import find


def below(folder):
    return lambda name: f"{folder}/{name}"


def topless(name):
    return name.partition("/")[2]


def half(name):
    return name.partition("/")[0]


def windows(name):
    return name.replace("/", "\\").replace(".png", ".PNG")


LAYOUTS = {
    "a folder deeper": below("x"),
    "three folders deeper": below("a/b/c"),
    "torchvision's a folder deeper": below("data/omniglot-py"),
    "a clone of the repository, unpacked": below("omniglot/python"),
    "a clone of the repository": lambda name: f"omniglot/python/{half(name)}.zip!{name}",
    "dragen1860": lambda name: f"omniglot/processed/{name}",
    "dragen1860, never unpacked": lambda name: f"omniglot/raw/{half(name)}.zip!{name}",
    "MAML++": below("datasets/omniglot_dataset"),
    "both halves in one folder": topless,
    "both halves in one folder, deeper": lambda name: f"omniglot/data/{topless(name)}",
    "one half merged, the other named": lambda name: topless(name) if "background" in name else name,
    "one archive, the other a folder": lambda name: f"{half(name)}.zip!{name}" if "background" in name else name,
    "top folder twice": lambda name: f"{half(name)}/{name}",
    "archive in a folder of its name": lambda name: f"{half(name)}/{half(name)}.zip!{name}",
    "archives without a top folder": lambda name: f"{half(name)}.zip!{topless(name)}",
    "archives with another top folder": lambda name: f"{half(name)}.zip!some/thing/{topless(name)}",
    "archives with ./": lambda name: f"{half(name)}.zip!./{name}",
    "archives downloaded again": lambda name: f"{half(name)} (1).zip!{name}",
    "archives in capitals": lambda name: f"{half(name).upper()}.ZIP!{name.upper()}",
    "one archive of all": lambda name: f"archive.zip!{name}",
    "one archive of all, merged": lambda name: f"x/omniglot.zip!omniglot/{topless(name)}",
    "one archive of all, top folders twice": lambda name: f"archive.zip!{half(name)}/{name}",
    "archives made on Windows": lambda name: f"{half(name)}.zip!{windows(name)}",
    "one archive made on Windows": lambda name: f"omniglot.zip!{windows('data/' + topless(name))}",
    "a Windows archive unpacked into names": windows,
    "Windows archives unpacked into names": lambda name: f"{half(name)}/{windows(name)}",
    "pictures in capitals": lambda name: name.replace(".png", ".PNG"),
    "folders in capitals": lambda name: f"data/{topless(name).upper()}",
    "two folders": lambda name: f"{'train' if 'background' in name else 'test'}/{topless(name)}",
}


@pytest.fixture
def whole(mini, tmp_path):
    """The images as they are from the archives."""
    images = mini.archives().load()
    shutil.rmtree(mini.root)
    mini.root.mkdir()
    return images


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_images_and_names(mini, whole, layout):
    images = mini.lay(LAYOUTS[layout]).load()
    assert torch.equal(images.images, whole.images)
    assert images.class_names == whole.class_names
    assert images.splits == whole.splits


def test_what_lies_around_does_not_matter(mini, whole):
    """Of macOS, of Windows, of the repository: among the pictures and beside them, in archives and in folders."""
    around = ["__MACOSX/images_background/Greek/character01/._0002_01.png", "__MACOSX/._x", ".DS_Store",
              "Greek/Thumbs.db", "images_background/.DS_Store", "matlab/demo.m",
              "images_background/Greek/character01/desktop.ini"]  # fmt: skip
    mini.files |= dict.fromkeys(around, b"x")
    mini.lay(below("x"))
    assert torch.equal(mini.load().images, whole.images)
    shutil.rmtree(mini.root)
    mini.lay(lambda name: f"all.zip!{name}")
    assert torch.equal(mini.load().images, whole.images)


def test_originals_come_before_small_sets_and_resized_copies_beside_them(mini, whole):
    """Names sort the others first; cbfinn's code keeps its resized copies beside the originals."""
    for name, data in list(mini.files.items()):
        mini.files[f"a_resized/{topless(name)}"] = png(picture(1, size=28))
        mini.files[f"originals/{topless(name)}"] = data
        if "Greek" in name:
            mini.files[f"images_background_small1/{topless(name)}"] = data
        del mini.files[name]
    assert torch.equal(mini.lay(lambda name: name).load().images, whole.images)


def test_halves_named_as_such_come_first_and_archives_before_folders(mini):
    mini.lay(lambda name: f"b/{half(name)}.zip!{name}").lay(below("a")).lay(lambda name: f"merged/{topless(name)}")
    found = find(mini.root, HALVES).halves
    assert found == {name: mini.root / "b" / f"{name}.zip" for name in NAMES}
    (mini.root / "b" / "images_background.zip").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"b/images_background\.zip: not a whole zip archive"):
        mini.load()


# Refusals. Each is (where every file lies, what the line says).

REFUSED = {
    "small set only": (
        lambda name: f"python/images_background_small1/{topless(name)}" if "Greek" in name else "y/z",
        r"images_evaluation is missing; seen: python/images_background_small1 \(1 of the 3 characters.*\); accepted: ",
    ),
    "small set in place of a half": (
        lambda name: name.replace("images_background/", "images_background_small1/") if "Greek" in name
        else name if "evaluation" in name else "y/z",
        r"images_background_small1: holds 1 characters; Omniglot's images_background has 3",
    ),
    "small set under the name of a half": (
        lambda name: f"images_background.zip!images_background_small1/{topless(name)}" if "Greek" in name
        else name if "evaluation" in name else "y/z",
        r"images_background\.zip/images_background_small1: holds 1 characters",
    ),
    "one half merged": (
        lambda name: topless(name) if "background" in name else "y/z",
        r"images_evaluation is missing; seen: .*root \(3 of the 3 characters of images_background\)",
    ),
    "one half, merged and a folder deeper": (
        lambda name: f"x/{topless(name)}" if "evaluation" in name else "y/z",
        r"images_background is missing; seen: x \(2 of the 2 characters of images_evaluation\)",
    ),
    "a character missing": (
        lambda name: "y/z" if "Futurama/character02" in name else f"x/{topless(name)}",
        r"root/x: holds 2 characters; Omniglot's images_background has 3",
    ),
    "a picture missing": (
        lambda name: "y/z" if name == FIRST else f"omniglot.zip!{topless(name)}",
        r"omniglot\.zip: 'Futurama/character01' has 19 images",
    ),
    "there twice, in two spellings": (
        lambda name: f"x.zip!{name}" if name != FIRST.replace("_01.png", "_02.png") else f"x.zip!{FIRST[:-4]}.PNG",
        r"x\.zip: member .* is there twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", REFUSED)
def test_what_cannot_be_omniglot_is_refused_with_what_was_seen(mini, layout):
    place, says = REFUSED[layout]
    with pytest.raises(DataError, match=says) as caught:
        mini.lay(place).load()
    assert "\n" not in str(caught.value)
    assert not list(mini.root.glob("*.npz"))


@pytest.mark.parametrize("layout", [topless, below("omniglot_resized"), lambda name: f"all.zip!{name}"])
def test_resized_copies_are_refused_by_their_size(mini, layout):
    mini.files = {name: png(picture(1, size=28), mode="L") for name in mini.files}
    with pytest.raises(DataError, match="is 28 x 28, not 105 x 105; a resized copy does not do"):
        mini.lay(layout).load()


def test_rotated_copies_are_refused_by_their_number_and_size(mini):
    """As oscarknagg/few-shot prepares them: alphabets of four times the number, 28 x 28."""
    small = png(picture(1, size=28), mode="L")
    mini.files = {name.replace("/char", f".{turn}/char"): small for name in mini.files for turn in (0, 90, 180, 270)}
    says = r"images_background: holds 12 characters of 28 x 28 pixels \(Omniglot's own have 105 x 105\)"
    with pytest.raises(DataError, match=says):
        mini.lay(below("Omniglot")).load()


def missing(mini, monkeypatch):
    """Return what is said where nothing is found and nothing can be downloaded."""

    def offline(*args):
        raise DataMissing("no network")

    monkeypatch.setattr("datasets.omniglot.download", offline)
    with pytest.raises(DataMissing) as caught:
        mini.load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["omniglot.npy", "omniglot/data.hdf5", "omniglot_dataset.tar.bz2", "x/omniglot.mat",
                                  "images_background.tar.gz", "omniglot-master/README.md"])  # fmt: skip
def test_other_forms_are_named_where_there_is_no_network(mini, monkeypatch, name):
    (mini.root / name).parent.mkdir(exist_ok=True)
    (mini.root / name).write_bytes(b"x")
    seen = name.removesuffix("README.md").removesuffix("data.hdf5")
    assert f"; seen: {seen}; accepted: " in missing(mini, monkeypatch)


def test_archives_in_an_archive_are_to_be_unpacked(mini, monkeypatch):
    mini.files = dict.fromkeys((f"python/{name}.zip" for name in NAMES), b"x")
    mini.lay(lambda name: f"omniglot-master.zip!omniglot-master/{name}")
    assert "omniglot-master.zip (no pictures of characters in it; archives in it" in missing(mini, monkeypatch)


def test_nothing_to_be_seen_is_not_spoken_of(mini, monkeypatch):
    (mini.root / "photographs").mkdir()
    (mini.root / "others.zip").write_bytes(b"no archive, and none of our business")
    said = missing(mini, monkeypatch)
    assert "seen:" not in said
    assert "others.zip" not in said


def test_a_cut_archive_that_may_be_it_is_named(mini):
    (mini.root / "omniglot.zip").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"omniglot\.zip: not a whole zip archive"):
        mini.load()


@pytest.mark.parametrize("inside", ["images_background", "images_background/Futurama"])
def test_a_root_too_deep_is_told_the_folder_above(mini, inside, monkeypatch):
    mini.folders()
    home, mini.root = mini.root, mini.root / inside
    says = f"it is in {home}: give that as --data-root"
    if inside == "images_background":
        with pytest.raises(DataError, match=f"images_evaluation is missing .{says}"):
            mini.load()
    else:
        assert says in missing(mini, monkeypatch)


# Bounds.


def test_what_lies_too_deep_is_not_found(mini, monkeypatch):
    mini.lay(below("a/b/c/d"))
    missing(mini, monkeypatch)


def test_the_look_ends_in_a_home_of_many_files_and_says_so(mini, monkeypatch):
    """What lies at a usual place is found all the same."""
    monkeypatch.setattr(omniglot_search, "_MOST_ENTRIES", 60)
    monkeypatch.setattr(omniglot_search, "_MOST_IN_A_FOLDER", 20)
    listed = []
    for folder in range(10):
        (mini.root / f"photographs{folder}").mkdir()
        for number in range(30):
            (mini.root / f"photographs{folder}" / f"{number}.jpg").touch()
    scandir = omniglot_search.os.scandir
    monkeypatch.setattr(omniglot_search.os, "scandir", lambda path: (listed.append(path), scandir(path))[1])
    said = missing(mini, monkeypatch)
    assert "20 files or more in " in said
    assert "more than 60 files" in said
    assert len(listed) < 10
    mini.archives()
    listed.clear()
    assert mini.load().images.shape == (5, 20, 28, 28)
    assert not listed


def test_a_folder_of_loose_pictures_does_not_hide_what_lies_deeper(mini, whole):
    (mini.root / "imagenet").mkdir()
    for number in range(1200):
        (mini.root / "imagenet" / f"{number}.jpg").touch()
    assert torch.equal(mini.lay(below("zoo/omniglot")).load().images, whole.images)


# Links and names that lead elsewhere.


def test_no_link_is_followed_out_of_the_root_and_the_line_says_so(mini, monkeypatch, tmp_path):
    mini.lay(below("../away"))
    (mini.root / "omniglot").symlink_to(tmp_path / "away")
    (mini.root / "home").symlink_to(tmp_path)
    assert f"seen: omniglot (a symbolic link that leaves {mini.root})" in missing(mini, monkeypatch)


def test_a_merged_folder_of_links_is_followed_within_the_root_only(mini, whole, tmp_path):
    mini.lay(below("python/x/y/z/too/deep"))
    (mini.root / "merged").mkdir()
    for alphabet in (mini.root / "python/x/y/z/too/deep").glob("*/*"):
        (mini.root / "merged" / alphabet.name).symlink_to(alphabet)
    assert torch.equal(mini.load().images, whole.images)
    for cache in mini.root.glob("*.npz"):
        cache.unlink()
    (mini.root / "python").rename(tmp_path / "python")
    for link in (mini.root / "merged").iterdir():
        target = tmp_path / link.readlink().relative_to(mini.root)
        link.unlink()
        link.symlink_to(target)
    with pytest.raises(pytest.fail.Exception, match="tried to download"):  # nothing there is looked into
        mini.load()


def test_links_in_a_circle_end(mini, monkeypatch):
    (mini.root / "omniglot").symlink_to(mini.root)
    (mini.root / "Greek").symlink_to("Greek")
    (mini.root / "images_background").mkdir()
    (mini.root / "images_background" / "images_background").symlink_to(mini.root / "images_background")
    (mini.root / "images_evaluation").mkdir()
    with pytest.raises(DataError, match="images_background: holds 0 characters"):
        mini.load()


@pytest.mark.parametrize("name", ["..\\..\\{}", "C:\\{}", "\\{}", "/{}", "x\\..\\..\\{}", "images_background/../{}"])
def test_members_that_climb_out_do_not_count(mini, monkeypatch, name):
    mini.lay(lambda member: f"omniglot.zip!{name.format(topless(member))}")
    assert "omniglot.zip (no pictures of characters in it" in missing(mini, monkeypatch)
    assert [path.name for path in mini.root.iterdir()] == ["omniglot.zip"]


def test_a_bomb_in_an_archive_of_any_name_is_refused_unread(mini):
    mini.lay(lambda name: f"omniglot.zip!{topless(name)}")
    with zipfile.ZipFile(mini.root / "omniglot.zip", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Greek\\character02\\0003_01.PNG", bytes(1 << 24))
    with pytest.raises(DataError, match="has 16777216 bytes"):
        mini.load()


# The real set.


@pytest.mark.omniglot
def test_the_alphabets_of_each_half_are_those_of_its_archive(omniglot_root):
    for part in HALVES:
        source = find(omniglot_root, HALVES).halves[part.name]
        if source.suffix != ".zip":
            pytest.skip("needs the archives")
        with zipfile.ZipFile(source) as archive:
            members = [name.split("/") for name in archive.namelist() if name.endswith(".png")]
        assert {member[1] for member in members} == part.alphabets
        assert len({(member[1], member[2]) for member in members}) == part.characters
    assert len(ALPHABETS) == 50


@pytest.mark.omniglot
def test_the_real_set_in_one_archive_of_windows_a_folder_deeper(omniglot_root, tmp_path):
    root = tmp_path / "root"
    (root / "x").mkdir(parents=True)
    with zipfile.ZipFile(root / "x" / "Omniglot data.zip", "w") as both:
        for part in HALVES:
            source = find(omniglot_root, HALVES).halves[part.name]
            if source.suffix != ".zip":
                pytest.skip("needs the archives")
            with zipfile.ZipFile(source) as archive:
                for name in archive.namelist():
                    if name.endswith(".png"):
                        both.writestr(windows(f"data/{topless(name)}"), archive.read(name))
    assert Omniglot().load(root, tmp_path).sha256 == PREPARED_SHA256
