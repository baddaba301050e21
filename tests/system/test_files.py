"""Files: written whole or not at all, and read back to the last bit, whatever text and numbers they hold."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import make_row
from places import REPOSITORY

from bench.records.columns import CurvePoint, SummaryRow
from bench.records.run import read_rows, write_atomic, write_csv
from bench.system import files
from bench.system.files import plain, remove_leftovers

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


@pytest.mark.uncounted
@given(st.text("=+-@'\t\r\n ,\"a", max_size=6) | TEXT | st.sampled_from(["NA", "nan", "None"]))
@settings(max_examples=300, deadline=None)
def test_any_text_survives_csv_and_no_cell_is_a_formula(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    row = make_row(error=text, device_name=text)
    write_csv(path, [row], SummaryRow.columns())
    (back,) = read_rows(path, SummaryRow)
    assert back.error == (text or None)
    with path.open(newline="", encoding="utf-8") as file:
        (cells,) = csv.DictReader(file)
    assert not cells["error"].startswith(("=", "+", "-", "@", "\t", "\r"))


@given(st.floats(), st.integers(-(2**63) + 1, 2**63 - 1), st.floats(width=32))
@settings(max_examples=200, deadline=None)
def test_any_number_survives_csv_to_the_last_bit(tmp_path_factory, number, integer, single):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    point = CurvePoint(integer, np.int64(7), np.float64(number), np.float32(single), -0.0, None)
    write_csv(path, [point], CurvePoint.columns())
    (back,) = read_rows(path, CurvePoint)
    assert (back.meta_step, back.tasks_seen, back.query_loss) == (integer, 7, None)
    np.testing.assert_array_equal([back.train_s, back.val_acc, back.val_acc_ci95], [number, single, -0.0])
    assert math.copysign(1, back.val_acc_ci95) == -1


def test_negative_numbers_are_not_taken_for_formulas(tmp_path):
    write_csv(tmp_path / "x.csv", [{"a": -1.5, "b": -2, "c": "-2", "d": True, "e": None}], "abcde")
    assert (tmp_path / "x.csv").read_bytes() == b"a,b,c,d,e\n-1.5,-2,'-2,1,\n"


def test_a_file_and_then_the_folder_that_names_it_reach_the_disk(tmp_path, monkeypatch):
    synced = []

    def noted(fd: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        if len(synced) == 2:
            raise OSError("a file system that syncs no folders")

    monkeypatch.setattr(files.os, "fsync", noted)
    write_atomic(tmp_path / "new" / "x", "content")
    assert synced[0].endswith(".tmp")
    assert synced[1:] == [str((tmp_path / "new").resolve())]
    assert (tmp_path / "new" / "x").read_text() == "content"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_atomic(tmp_path / "x", "old")

    def full(fd: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(tmp_path / "x", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_what_killed_writers_left_goes_after_an_hour_and_nothing_else_does(tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)

    def killed(*_: object, **__: object) -> None:
        raise SystemExit

    for old in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(files.Path, "unlink", killed)
            patch.setattr(files.os, "fsync", killed)
            with pytest.raises(SystemExit):
                write_atomic(folder / "run.json", "{}")
        for path in folder.iterdir():
            if old:
                os.utime(path, (0, 0))
    for name in (".mine.tmp", "run.json", ".run.json.12-abcd.tmp"):
        (folder / name).touch()
        os.utime(folder / name, (0, 0))
    assert len(list(folder.iterdir())) == 5
    remove_leftovers(tmp_path)
    kept = [path for path in folder.iterdir() if path.stat().st_mtime > 0]
    assert len(kept) == 1
    assert sorted(path.name for path in folder.iterdir() if path not in kept) == [
        ".mine.tmp",
        ".run.json.12-abcd.tmp",
        "run.json",
    ]
    remove_leftovers(tmp_path / "nowhere")


def test_written_files_have_the_users_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    write_atomic(tmp_path / "deep" / "x", b"\x00")
    assert (tmp_path / "deep" / "x").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("place", ["", "cache", "plots", "plots/slides", "runs/a"])
def test_leftovers_go_from_every_folder_that_files_are_written_to(tmp_path, place):
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".x.12-0123abcd.tmp").touch()
    os.utime(folder / ".x.12-0123abcd.tmp", (0, 0))
    remove_leftovers(tmp_path)
    assert [path for path in folder.iterdir() if path.is_file()] == []


def test_an_error_of_writing_names_the_file_that_was_asked_for(tmp_path, monkeypatch):
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space") as caught:
        write_atomic(tmp_path / "x", "new")
    assert caught.value.filename == str(tmp_path / "x")


def test_whole_numbers_stay_whole_beside_empty_cells_and_a_return_is_quoted(tmp_path):
    write_csv(tmp_path / "x.csv", [{"a": 2**62 + 1, "b": "x\ry"}, {"a": None, "b": None}], "ab")
    assert (tmp_path / "x.csv").read_bytes() == b'"a","b"\n"%d","x\ry"\n"",""\n' % (2**62 + 1)


def test_sets_have_one_order_in_json_and_lists_keep_theirs():
    assert plain({"b", "a", 3, "c", 20}) == plain(frozenset([20, 3, "c", "b", "a"])) == [20, 3, "a", "b", "c"]
    assert plain(["b", "a"]) == plain(("b", "a")) == ["b", "a"]
    assert plain({1: np.bool_(True), "x": math.nan, "y": [np.float32(0.5), Path("z")]}) == {
        "1": True,
        "x": "nan",
        "y": [0.5, "z"],
    }


WRITER = """
import sys, pathlib
from bench.system.files import write_atomic
for _ in range(50):
    write_atomic(pathlib.Path(sys.argv[1]), sys.argv[2] * 200_000 + "\\n")
"""


def test_readers_see_whole_files_while_processes_write_the_same_one(tmp_path):
    path = tmp_path / "x"
    root = REPOSITORY
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, letter], cwd=root) for letter in "ab"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            seen.add(path.read_text())
    for writer in writers:
        assert writer.wait() == 0
    assert seen <= {"a" * 200_000 + "\n", "b" * 200_000 + "\n"}
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_threads_may_write_one_file_too(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: write_atomic(tmp_path / "x", f"{i}\n" * 1000), range(200)))
    assert len(set((tmp_path / "x").read_text().split())) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
