"""Omniglot: found in every layout, verified by its pixels, every kind of damage named.

Most tests use a miniature, so that they run where the real set is not.
"""

import hashlib
import io
import json
import shutil
import socket
import threading
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import FIRST, NAMES, picture, png
from PIL import Image

from bench.api import SPLITS, DataError, DataMissing
from bench.registry import DATASETS
from bench.settings.code import data_code
from datasets import omniglot
from datasets.omniglot import Omniglot, by_alphabet, read_split, shrink
from datasets.omniglot_files import HALVES
from datasets.omniglot_search import find

# What is found, and what comes back.


@pytest.mark.parametrize("base", [".", "omniglot-py"])
@pytest.mark.parametrize("layout", ["archives", "folders"])
def test_every_layout_gives_the_same_images(mini, layout, base):
    getattr(mini, layout)(base)
    images = mini.load()
    assert images.images.shape == (5, 20, 28, 28)
    assert images.images.dtype == torch.uint8
    assert images.class_names == (*NAMES["images_background"], *NAMES["images_evaluation"])
    assert dict(images.splits) == {"meta_train": (1, 2, 4), "meta_val": (0,), "meta_test": (3,)}
    assert images.sha256 == hashlib.sha256(images.images.numpy().tobytes()).hexdigest()
    np.testing.assert_array_equal(images.images[3, 6], shrink(picture(3 * 20 + 6)))  # Angelic, drawer 7


def test_layouts_may_be_mixed_and_archives_come_before_folders(mini):
    mini.folders("omniglot-py").archives()
    (mini.root / "omniglot-py" / FIRST).write_bytes(b"damaged, but not read")
    (mini.root / "images_evaluation.zip").unlink()
    assert mini.load().images.shape == (5, 20, 28, 28)


def test_other_files_do_not_matter(mini):
    mini.archives(also=[("__MACOSX/images_background/._x", b""), ("images_background/Greek/.DS_Store", b"x"),
                        ("LICENSE", b"MIT"), ("images_background/Greek/strokes.txt", b"")])  # fmt: skip
    assert mini.load().images.shape == (5, 20, 28, 28)


def test_nothing_is_unpacked_and_one_cache_file_is_written_to_the_root(mini):
    mini.archives().load()
    first, *rest = sorted(path.name for path in mini.root.iterdir())
    assert rest == ["images_evaluation.zip", "omniglot-" + rest[-1][9:21] + ".npz"]
    assert first == "images_background.zip"
    assert not mini.cache.exists()


def test_a_read_only_root_is_left_alone_and_the_cache_folder_used(mini):
    mini.archives()
    mini.root.chmod(0o555)
    mini.load()
    assert sorted(path.name for path in mini.root.iterdir()) == ["images_background.zip", "images_evaluation.zip"]
    assert len(list(mini.cache.iterdir())) == 1


def test_a_good_cache_file_stands_in_for_archives_that_are_gone(mini):
    whole = mini.archives().load()
    (mini.root / "images_background.zip").unlink()
    (mini.root / "images_evaluation.zip").write_bytes(b"damaged")
    again = mini.load()
    assert torch.equal(again.images, whole.images)
    assert again.class_names == whole.class_names
    assert again.splits == whole.splits


def test_a_cache_elsewhere_does_not_stand_in_for_a_root_that_is_not_there(mini):
    """A mistyped --data-root, say; what was prepared under --out is of another one."""
    mini.archives()
    mini.root.chmod(0o555)
    mini.load()
    assert list(mini.cache.iterdir())
    mini.root.rename(mini.root.with_name("elsewhere"))
    with pytest.raises(pytest.fail.Exception, match="tried to download"):
        mini.load()


def test_a_cut_cache_file_is_made_anew(mini):
    whole = mini.archives().load()
    (file,) = mini.root.glob("*.npz")
    file.write_bytes(file.read_bytes()[:1000])
    assert torch.equal(mini.load().images, whole.images)
    assert file.stat().st_size > 1000


# Damage. Each is (what to do to the files, what the message must say besides naming the archive or folder).


def replace(name, data):
    return lambda files: files.update({name: data})


def remove(part):
    return lambda files: [files.pop(name) for name in list(files) if part in name]


def tinted():
    return png(picture(0), mode="L")


def flip_pixel():
    pixels = picture(0)
    pixels[50, 50] ^= True
    return png(pixels)


def huge():
    """A few bytes that claim to be a picture of 60,000 x 60,000."""
    data = png(picture(0))
    header = data[12:16] + (60000).to_bytes(4, "big") * 2 + data[24:29]
    return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]


DAMAGE = {
    "image missing": (remove("character02/0001_07"), "'Futurama/character02' has 19 images"),
    "image too many": (replace("images_background/Futurama/character01/0000_21.png", b"x"), "has 21 images"),
    "character missing": (remove("Futurama/character02"), "holds 2 characters; Omniglot's images_background has 3"),
    "all missing": (remove("character"), "holds 0 characters"),
    "another pixel": (replace(FIRST, flip_pixel()), "not the pixels of Omniglot's images_background"),
    "wrong size": (replace(FIRST, png(picture(0, 104))), "is 104 x 104, not 105 x 105"),
    "claims to be huge": (replace(FIRST, huge()), "is 60000 x 60000"),
    "wrong mode": (replace(FIRST, tinted()), "is of mode 'L'"),
    "no picture": (replace(FIRST, b"GIF89a"), "not a PNG picture"),
    "empty": (replace(FIRST, b""), "not a PNG picture"),
    "cut": (replace(FIRST, png(picture(0))[:200]), "Futurama/character01/0000_01.png"),
    "padded": (replace(FIRST, png(picture(0)) + bytes(70000)), "no image of Omniglot has more than 65536"),
}  # fmt: skip


@pytest.mark.parametrize("layout", ["archives", "folders"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_in_one_line(mini, layout, damage):
    change, says = DAMAGE[damage]
    change(mini.files)
    if damage == "all missing" and layout == "folders":
        mini.files["images_background/note"] = mini.files["images_evaluation/note"] = b""
    getattr(mini, layout)()
    with pytest.raises(DataError) as caught:
        mini.load()
    message = str(caught.value)
    assert str(mini.root / "images_background") + (".zip" if layout == "archives" else "") in message
    assert says in message
    assert "\n" not in message
    assert not isinstance(caught.value, DataMissing)
    assert not list(mini.root.glob("*.npz"))
    assert not mini.cache.exists()


def test_another_name_for_a_character_is_named(mini):
    """The pixels are right and in the right order, so only the list of characters can tell."""
    mini.files = {name.replace("Greek", "Groek"): data for name, data in mini.files.items()}
    mini.archives()
    with pytest.raises(DataError, match="'Groek/character01' is not the name of a character"):
        mini.load()


def complaint(mini, whole):
    """Return what is said about the files as they are now, or None if they still give the right pixels."""
    for file in mini.root.glob("*.npz"):
        file.unlink()
    try:
        images = mini.load().images
    except DataError as error:
        return str(error)
    assert torch.equal(images, whole.images)
    return None


def flips(data, positions):
    return [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in positions]


def decodes_to_others(data, pixels):
    try:
        with Image.open(io.BytesIO(data)) as image:
            return not np.array_equal(np.asarray(image.convert("L")) > 0, pixels)
    except Exception:  # whatever the decoder says, it noticed
        return False


def test_a_flipped_byte_in_a_folder_names_the_picture_or_is_harmless(mini):
    """Some wrong pixels decode without complaint, check sums being ignored; the picture is named all the same."""
    whole = mini.folders().load()
    path, data = mini.root / FIRST, mini.files[FIRST]
    quiet = [flipped for flipped in flips(data, range(33, len(data))) if decodes_to_others(flipped, picture(0))]
    caught = 0
    for flipped in [*flips(data, [*range(45), *range(45, len(data), 97)]), *quiet[:5]]:
        path.write_bytes(flipped)
        message = complaint(mini, whole)
        assert message is None or str(path) in message
        caught += message is not None
    assert caught > 50
    assert quiet


@pytest.mark.parametrize("size", [0, 1, 100, -1, -30, -2000])
def test_a_truncated_archive_is_named(mini, size):
    mini.archives()
    path = mini.root / "images_evaluation.zip"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"images_evaluation\.zip: not a whole zip archive"):
        mini.load()


def test_every_flipped_byte_of_an_archive_is_an_error_or_harmless(mini):
    """Headers, names, sizes, pixels: whatever is hit, no traceback of zipfile and no wrong pixel."""
    whole = mini.archives().load()
    path = mini.root / "images_evaluation.zip"
    data = path.read_bytes()
    positions = np.random.default_rng(0).choice(len(data), 30, replace=False).tolist()
    caught = 0
    for at in [*positions, *range(len(data) - 90, len(data))]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        message = complaint(mini, whole)
        assert message is None or (str(path) in message and "\n" not in message)
        caught += message is not None
    assert caught > 40


def test_a_member_whose_pixels_are_hit_is_named(mini):
    mini.archives()
    path = mini.root / "images_background.zip"
    data = bytearray(path.read_bytes())
    data[data.index(mini.files[FIRST]) + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"images_background\.zip: member 'Futurama/character01/0000_01\.png': Bad CRC"):
        mini.load()


def test_a_compression_bomb_is_refused_unread(mini):
    mini.archives()
    with zipfile.ZipFile(mini.root / "images_background.zip", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images_background/Bomb/character01/0000_01.png", bytes(1 << 24))
    with pytest.raises(DataError, match="has 16777216 bytes"):
        mini.load()


def test_a_member_that_is_there_twice_is_refused(mini):
    mini.archives()
    with (
        zipfile.ZipFile(mini.root / "images_background.zip", "a") as archive,
        pytest.warns(UserWarning, match="Duplicate"),
    ):
        archive.writestr(FIRST, b"which one?")
    with pytest.raises(DataError, match="is there twice"):
        mini.load()


def test_members_that_climb_out_are_ignored_and_nothing_is_written(mini):
    climbing = ["../evil.png", "images_background/../character01/0000_01.png", "/etc/character01/0000_01.png",
                "images_background/a\\..\\b/character01/0000_01.png"]  # fmt: skip
    before = set(mini.root.parent.rglob("*"))
    mini.archives(also=[(name, b"x") for name in climbing]).load()
    assert {path.suffix for path in set(mini.root.parent.rglob("*")) - before} == {".zip", ".npz"}


def test_links_that_leave_the_folder_are_refused(mini, tmp_path):
    mini.folders()
    away = tmp_path / "away"
    shutil.move(mini.root / "images_background" / "Greek", away)
    (mini.root / "images_background" / "Greek").symlink_to(away)
    with pytest.raises(DataError, match="a symbolic link that leaves"):
        mini.load()


def test_the_data_root_and_its_folders_may_themselves_be_links(mini, tmp_path):
    mini.folders()
    shutil.move(mini.root, tmp_path / "elsewhere")
    mini.root.mkdir()
    for half in NAMES:
        (mini.root / half).symlink_to(tmp_path / "elsewhere" / half)
    assert mini.load().images.shape == (5, 20, 28, 28)


@pytest.mark.parametrize("gone", NAMES)
def test_half_of_the_data_is_an_error_that_says_what_is_missing_and_what_is_there_before_that_is_read(mini, gone):
    mini.archives()
    (mini.root / f"{gone}.zip").unlink()
    (there,) = mini.root.iterdir()
    there.write_bytes(b"damaged, but not read")
    with pytest.raises(
        DataError, match=f"incomplete, {gone} is missing; seen: {there.name} .{there.stem}.; accepted: "
    ):
        mini.load()


def test_a_damaged_first_find_is_not_passed_over(mini):
    mini.archives().folders("omniglot-py")
    (mini.root / "images_background.zip").write_bytes(b"cut")
    with pytest.raises(DataError, match=r"images_background\.zip: not a whole zip archive"):
        mini.load()


def test_a_root_that_cannot_be_looked_into_is_named(mini, monkeypatch):
    """Permissions do not stop root, as whom tests may run, so the system's answer is made here."""

    def denied(path, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(DataError, match=f"{mini.root}.*Permission denied"):
        mini.load()


# The download.


@pytest.fixture
def network(mini, monkeypatch):
    """The miniature with the real download, whose torchvision part copies what ``network.archives`` made."""
    import torchvision.datasets.omniglot as downloader

    from bench.tasks.download import download

    mini.archives("../server")

    def copy(url, download_root, filename, md5):
        Path(download_root).mkdir(exist_ok=True)
        shutil.copy(mini.root.parent / "server" / filename, Path(download_root) / filename)
        with zipfile.ZipFile(Path(download_root) / filename) as archive:
            archive.extractall(download_root)

    monkeypatch.setattr(omniglot, "download", download)
    monkeypatch.setattr(downloader, "download_and_extract_archive", copy)
    monkeypatch.setattr(downloader, "check_integrity", lambda path, md5: Path(path).is_file())
    return mini


def test_what_torchvision_downloads_is_put_in_place_and_used(network):
    assert network.load().images.shape == (5, 20, 28, 28)
    assert {path.name for path in network.root.iterdir() if path.is_dir()} == {"omniglot-py"}
    assert sorted(path.name for path in (network.root / "omniglot-py").iterdir()) == [
        "images_background", "images_background.zip", "images_evaluation", "images_evaluation.zip"
    ]  # fmt: skip


def test_a_download_that_breaks_off_leaves_nothing_and_says_what_to_do(network):
    (network.root.parent / "server" / "images_evaluation.zip").unlink()
    with pytest.raises(
        DataMissing, match=r"put images_background\.zip and images_evaluation\.zip .* glyphs$"
    ) as caught:
        network.load()
    assert "\n" not in str(caught.value)
    assert list(network.root.iterdir()) == []


def test_a_name_server_that_hangs_is_given_up_within_15_s(mini, monkeypatch, capfd):
    go = threading.Event()

    def hangs(*args, **kwargs):
        go.wait(30)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.undo()  # the real download and the real Omniglot
    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    start = time.monotonic()
    with pytest.raises(DataMissing, match="was not downloaded"):
        mini.load()
    assert time.monotonic() - start < 15
    assert list(mini.root.iterdir()) == []
    go.set()
    assert capfd.readouterr() == ("", "")


# The split.


def test_the_split_list_can_be_made_anew_from_the_names_alone():
    split = read_split(omniglot.SPLIT_FILE)
    assert {part: len(split[part]) for part in SPLITS} == {"meta_train": 1100, "meta_val": 100, "meta_test": 423}
    names = {name for part in SPLITS for name in split[part]}
    assert len(names) == 1623
    order = sorted(names, key=lambda name: hashlib.sha256(f"metabench omniglot split v1 {name}".encode()).hexdigest())
    assert [sorted(order[:1100]), sorted(order[1100:1200]), sorted(order[1200:])] == [split[part] for part in SPLITS]


def test_a_changed_split_list_is_refused(tmp_path):
    text = omniglot.SPLIT_FILE.read_text()
    moved = json.loads(text)
    moved["meta_train"].append(moved["meta_test"].pop())
    for damaged in (json.dumps(moved), text[:-100], "[]", "{}"):
        (tmp_path / "split.json").write_text(damaged)
        with pytest.raises(DataError, match=r"split\.json"):
            read_split(tmp_path / "split.json")


# The pixels.


def test_shrinking_is_pillows_nearest_neighbour():
    for seed in range(20):
        pixels = picture(seed)
        with Image.open(io.BytesIO(png(pixels))) as image:
            theirs = np.asarray(image.resize((28, 28)).convert("L"))
        np.testing.assert_array_equal(shrink(pixels), 255 - theirs)


@pytest.fixture(scope="module")
def real_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.omniglot
def test_the_real_set_is_whole_and_as_pillow_would_shrink_it(omniglot_root, real_cache):
    images = DATASETS.get("omniglot")().load(omniglot_root, real_cache)
    assert images.images.shape == (1623, 20, 28, 28)
    assert images.images.flatten().bincount().nonzero().flatten().tolist() == [0, 255]
    assert {part: len(images.splits[part]) for part in SPLITS} == {
        "meta_train": 1100,
        "meta_val": 100,
        "meta_test": 423,
    }
    assert sorted(i for part in SPLITS for i in images.splits[part]) == list(range(1623))
    assert list(images.class_names[:964]) == sorted(images.class_names[:964])
    assert list(images.class_names[964:]) == sorted(images.class_names[964:])
    source = find(omniglot_root, HALVES).halves[HALVES[1].name]
    if source.suffix != ".zip":
        pytest.skip("the pictures are compared with those of the archive")
    split = read_split(omniglot.SPLIT_FILE)
    with zipfile.ZipFile(source) as archive:
        for member in archive.namelist()[::97]:
            if not member.endswith(".png"):
                continue
            _, alphabet, character, file = member.split("/")
            with Image.open(io.BytesIO(archive.read(member))) as image:
                theirs = 255 - np.asarray(image.resize((28, 28)).convert("L"))
            number = images.class_names.index(f"{alphabet}/{character}")
            np.testing.assert_array_equal(images.images[number, int(file[5:7]) - 1], theirs)
            (part,) = (part for part in SPLITS if f"{alphabet}/{character}" in split[part])
            assert number in images.splits[part]


@pytest.mark.omniglot
def test_the_real_set_is_read_back_from_its_cache_in_under_a_second(omniglot_root, real_cache):
    first = Omniglot().load(omniglot_root, real_cache)
    start = time.monotonic()
    again = Omniglot().load(omniglot_root, real_cache)
    assert time.monotonic() - start < 1
    assert torch.equal(first.images, again.images)


@pytest.mark.omniglot
def test_one_flipped_byte_of_the_real_archive_is_named(omniglot_root, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for half in HALVES:
        source = find(omniglot_root, HALVES).halves[half.name]
        if source.suffix != ".zip":
            pytest.skip("needs the archives")
        data = bytearray(source.read_bytes())
        data[len(data) // 2] ^= 0x10
        (root / source.name).write_bytes(data)
    with pytest.raises(DataError, match=r"images_background\.zip: "):
        Omniglot().load(root, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_split_by_alphabet_is_disjoint_complete_and_made_from_names_alone():
    by_character = read_split(omniglot.SPLIT_FILE)
    names = [name for part in SPLITS for name in by_character[part]]
    split = by_alphabet(reversed(names))
    assert {part: len(split[part]) for part in SPLITS} == {"meta_train": 1111, "meta_val": 103, "meta_test": 409}
    assert sorted(name for part in SPLITS for name in split[part]) == sorted(names)
    alphabets = {part: {name.split("/")[0] for name in split[part]} for part in SPLITS}
    assert {part: len(found) for part, found in alphabets.items()} == {"meta_train": 35, "meta_val": 3, "meta_test": 12}
    assert len(set.union(*alphabets.values())) == 50


@pytest.mark.omniglot
def test_the_split_by_alphabet_is_an_option_that_changes_the_split_and_no_image(prepared_omniglot):
    by_character, by_letter = (
        Omniglot(split=split).load(prepared_omniglot, prepared_omniglot) for split in ("character", "alphabet")
    )
    assert by_letter.sha256 == by_character.sha256
    assert by_letter.split_sha256 != by_character.split_sha256
    assert data_code(by_letter) != data_code(by_character)
    split = by_alphabet(by_letter.class_names)
    assert {part: [by_letter.class_names[c] for c in by_letter.splits[part]] for part in SPLITS} == {
        part: sorted(split[part], key=by_letter.class_names.index) for part in SPLITS
    }
