"""The cache of prepared images: what is kept, where, and what is never believed."""

import hashlib
import multiprocessing
import stat

import numpy as np
import pytest

from bench.tasks.imagecache import cached, prepare, writable


def make():
    return prepare(np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4), ["first", "second"])


def refuse():
    raise AssertionError("prepared anew although the file is good")


def the_file(folder):
    (file,) = folder.iterdir()  # one file, and no temporary one
    return file


def test_kept_images_are_read_back_without_preparing_them(tmp_path):
    made = cached("toy", "steps", (tmp_path,), make)
    found = cached("toy", "steps", (tmp_path,), refuse)
    np.testing.assert_array_equal(found.images, np.arange(96, dtype=np.uint8).reshape(2, 3, 4, 4))
    assert found.class_names == made.class_names == ("first", "second")
    assert found.sha256 == hashlib.sha256(bytes(range(96))).hexdigest()


def test_another_pipeline_is_another_file(tmp_path):
    cached("toy", "steps", (tmp_path,), make)
    other = cached("toy", "other steps", (tmp_path,), lambda: prepare(np.zeros((1, 1, 2, 2), np.uint8), ["x"]))
    assert other.class_names == ("x",)
    assert cached("toy", "steps", (tmp_path,), refuse).class_names == ("first", "second")


def test_a_file_of_another_pipeline_under_this_name_is_replaced(tmp_path):
    cached("toy", "steps", (tmp_path,), make)
    name = the_file(tmp_path).name
    the_file(tmp_path).unlink()
    cached("toy", "other steps", (tmp_path,), lambda: prepare(np.zeros((1, 1, 2, 2), np.uint8), ["x"]))
    the_file(tmp_path).rename(tmp_path / name)
    assert cached("toy", "steps", (tmp_path,), make).class_names == ("first", "second")


def cut(data):
    return data[: len(data) // 2]


def flipped(data):
    at = data.index(bytes(range(96))) + 50
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def renamed(data):
    return data.replace("first".encode("utf-32-le"), "FIRST".encode("utf-32-le"))


@pytest.mark.parametrize("damage", [cut, flipped, renamed, lambda data: b"", lambda data: b"PK\x03\x04 no zip"])
def test_a_damaged_file_is_replaced(tmp_path, damage):
    cached("toy", "steps", (tmp_path,), make)
    whole = the_file(tmp_path).read_bytes()
    the_file(tmp_path).write_bytes(damage(whole))
    assert damage(whole) != whole
    np.testing.assert_array_equal(cached("toy", "steps", (tmp_path,), make).images, make().images)
    assert cached("toy", "steps", (tmp_path,), refuse).class_names == ("first", "second")


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f | {"images": f["images"][::-1]},
        lambda f: f | {"class_names": f["class_names"][::-1]},
        lambda f: f | {"images": f["images"].astype(np.int32)},
        lambda f: f | {"images": f["images"].view(np.int8)},
        lambda f: f | {"images": f["images"].reshape(2, 3, 16)},
        lambda f: f | {"seal": f["seal"].astype("U32")},
        lambda f: f | {"images": np.array([None])},
        lambda f: {"images": f["images"]},
    ],
    ids=["pixels", "names", "dtype", "sign", "shape", "seal", "pickle", "fields"],
)
def test_an_altered_file_with_good_check_sums_is_replaced(tmp_path, change):
    """The zip's CRCs are right here; only our own hashes can tell."""
    cached("toy", "steps", (tmp_path,), make)
    file = the_file(tmp_path)
    with np.load(file) as fields:
        changed = change({name: fields[name] for name in fields})
    np.savez(file, **changed)
    again = cached("toy", "steps", (tmp_path,), make)
    np.testing.assert_array_equal(again.images, make().images)
    assert again.images.dtype == np.uint8
    assert again.class_names == ("first", "second")


def test_a_file_whose_members_are_compressed_is_not_unpacked_but_replaced(tmp_path):
    """Ours are stored; a small file could otherwise fill the memory."""
    cached("toy", "steps", (tmp_path,), make)
    whole = the_file(tmp_path).read_bytes()
    with np.load(the_file(tmp_path)) as fields:
        np.savez_compressed(the_file(tmp_path), **fields)
    made = []
    cached("toy", "steps", (tmp_path,), lambda: made.append(1) or make())
    assert made
    assert the_file(tmp_path).read_bytes() == whole


def test_a_file_that_is_whole_but_not_the_known_data_is_replaced(tmp_path):
    cached("toy", "steps", (tmp_path,), lambda: prepare(np.zeros((1, 1, 2, 2), np.uint8), ["forged"]))
    assert cached("toy", "steps", (tmp_path,), make, sha256=make().sha256).class_names == ("first", "second")


def test_the_second_folder_is_used_where_the_first_is_read_only(tmp_path):
    first, second = tmp_path / "first", tmp_path / "deep" / "second"
    first.mkdir()
    first.chmod(stat.S_IRUSR | stat.S_IXUSR)
    cached("toy", "steps", (first, second), make)
    assert list(first.iterdir()) == []
    assert the_file(second).suffix == ".npz"
    cached("toy", "steps", (first, second), refuse)


def test_what_cannot_be_kept_is_returned_with_a_warning(tmp_path):
    cached("toy", "steps", (tmp_path,), make)
    name = the_file(tmp_path).name
    (tmp_path / "taken" / name).mkdir(parents=True)
    with pytest.warns(UserWarning, match="prepared anew on every start"):
        assert cached("toy", "steps", (tmp_path / "taken",), make).class_names == ("first", "second")


def test_an_error_of_the_preparation_leaves_nothing(tmp_path):
    def fail():
        raise ValueError("no images")

    with pytest.raises(ValueError, match="no images"):
        cached("toy", "steps", (tmp_path / "new",), fail)
    assert not (tmp_path / "new").exists()


def _work(folder, seen):
    seen.put(cached("toy", "steps", (folder,), make).sha256)


def test_processes_may_prepare_at_once(tmp_path):
    context = multiprocessing.get_context("forkserver")
    seen = context.SimpleQueue()
    workers = [context.Process(target=_work, args=(tmp_path, seen)) for _ in range(3)]
    for worker in workers:
        worker.start()
    results = [seen.get() for _ in workers]
    for worker in workers:
        worker.join()
    assert results == [make().sha256] * 3
    assert cached("toy", "steps", (tmp_path,), refuse).sha256 == make().sha256
    the_file(tmp_path)


def test_writable_asks_the_permission_bits_and_the_nearest_folder_that_is_there(tmp_path):
    assert writable(tmp_path)
    assert writable(tmp_path / "not" / "there")
    (tmp_path / "file").touch()
    assert not writable(tmp_path / "file" / "below")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    assert not writable(closed)
    assert not writable(closed / "below")
