"""Downloads that fail in every way leave nothing, and give up in time."""

import fcntl
import os
import socket
import sys
import threading
import time

import pytest

from bench.api import DataMissing
from bench.tasks.download import download


def fetch(folder):
    (folder / "set").mkdir()
    (folder / "set" / "a.zip").write_bytes(b"whole")


def test_what_was_fetched_is_moved_into_place(tmp_path):
    root = tmp_path / "new" / "root"
    download(fetch, root, "set")
    assert [path.relative_to(root).as_posix() for path in root.rglob("*")] == ["set", "set/a.zip"]


def test_files_in_the_users_folder_of_that_name_stay(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "notes").write_text("mine")
    (tmp_path / "set" / "a.zip").write_text("mine too")
    download(fetch, tmp_path, "set")
    assert (tmp_path / "set" / "notes").read_text() == "mine"
    assert (tmp_path / "set" / "a.zip").read_text() == "mine too"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_download_that_breaks_off_leaves_nothing_and_prints_nothing(tmp_path, capfd):
    def breaks(folder):
        fetch(folder)
        print("Failed download. Trying https -> http instead.")
        print("37%|####", file=sys.stderr)
        raise OSError("connection reset\nby peer")

    with pytest.raises(DataMissing, match=r"^connection reset by peer$"):
        download(breaks, tmp_path, "set")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataMissing):
        download(breaks, tmp_path / "new", "set")
    assert not (tmp_path / "new").exists()
    assert capfd.readouterr() == ("", "")


def test_a_downloader_that_makes_nothing_is_an_error(tmp_path):
    with pytest.raises(DataMissing, match="made no set"):
        download(lambda folder: None, tmp_path, "set")


def test_a_hanging_download_is_given_up_and_socket_timeouts_are_put_back(tmp_path):
    go = threading.Event()
    start = time.monotonic()
    with pytest.raises(DataMissing, match=r"no answer from the network within 0\.3 s"):
        download(lambda folder: go.wait(30), tmp_path, "set", patience_s=0.3)
    assert time.monotonic() - start < 5
    assert socket.getdefaulttimeout() is None
    assert list(tmp_path.iterdir()) == []
    go.set()


def test_a_slow_download_is_not_given_up_once_bytes_arrive(tmp_path):
    def slow(folder):
        fetch(folder)
        time.sleep(1)
        (folder / "set" / "b.zip").write_bytes(b"late")

    download(slow, tmp_path, "set", patience_s=0.3)
    assert (tmp_path / "set" / "b.zip").read_bytes() == b"late"


def test_what_a_killed_attempt_left_is_cleared_away(tmp_path):
    (tmp_path / ".download-killed" / "set").mkdir(parents=True)
    (tmp_path / ".download-killed" / "set" / "a.zip").write_bytes(b"hal")
    download(fetch, tmp_path, "set")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_one_attempt_at_a_time(tmp_path):
    """Who finds another at work waits, and does not repeat what the other has just tried."""
    lock = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    timer = threading.Timer(0.5, os.close, [lock])
    timer.start()
    start = time.monotonic()
    download(lambda folder: pytest.fail("must not run"), tmp_path, "set")
    assert time.monotonic() - start > 0.4
    timer.join()


def test_a_read_only_root_is_not_written(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with pytest.raises(DataMissing, match="cannot be written"):
        download(fetch, closed, "set")
    assert list(closed.iterdir()) == []
