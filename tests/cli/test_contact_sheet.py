"""The contact sheet: the right pictures in the right places, and a command that says what is wrong."""

import matplotlib.image
import numpy as np
import pytest
import torch
from places import TOY

from bench.cli import contact_sheet as module
from bench.cli.contact_sheet import _sheet, contact_sheet, main


def test_a_sheet_holds_evenly_spread_classes_with_dark_ink(toy_images):
    sheet = _sheet(toy_images, toy_images.splits["meta_test"], rows=3, variants=4)
    assert sheet.shape == (3 * 30, 4 * 30)
    owned = toy_images.splits["meta_test"]  # 15 classes: thirds have their middles at 2, 7 and 12
    for row, position in enumerate((2, 7, 12)):
        for column in range(4):
            cell = sheet[row * 30 + 1 : row * 30 + 29, column * 30 + 1 : column * 30 + 29]
            np.testing.assert_array_equal(cell, 255 - toy_images.images[owned[position], column].numpy())


def test_a_split_with_fewer_classes_than_rows_shows_each_once(toy_images):
    sheet = _sheet(toy_images, (7, 9), rows=3, variants=1)
    np.testing.assert_array_equal(sheet[1:29, 1:29], 255 - toy_images.images[7, 0].numpy())
    np.testing.assert_array_equal(sheet[31:59, 1:29], 255 - toy_images.images[9, 0].numpy())
    assert (sheet[60:] == sheet[60, 0]).all()


def test_the_same_images_give_the_same_file(toy_images, tmp_path):
    for name in ("a.png", "b.png"):
        contact_sheet(toy_images, tmp_path / "new" / name, splits=["meta_val"], rows=2, variants=3)
    assert (tmp_path / "new" / "a.png").read_bytes() == (tmp_path / "new" / "b.png").read_bytes()
    assert matplotlib.image.imread(tmp_path / "new" / "a.png").shape[0] > 100


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"variants": 0}, {"splits": ["meta_tset"]}, {"splits": []}])
def test_wrong_arguments_are_refused_and_write_nothing(toy_images, tmp_path, wrong):
    with pytest.raises(ValueError, match=r"rows|split"):
        contact_sheet(toy_images, tmp_path / "a.png", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_the_file_or_one_line(toy_images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "load_data", lambda name, root, cache, warn: toy_images)
    assert main(["--dataset", "toy", "--out", str(tmp_path / "sheet.png")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'sheet.png'}\n"
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.undo()
    assert main(["--dataset", "omniglto", "--out", str(tmp_path / "other.png")]) == 2
    assert "Did you mean 'omniglot'?" in capsys.readouterr().err
    assert not (tmp_path / "other.png").exists()


def test_a_data_set_of_a_plugin_is_drawn(tmp_path):
    sheet = tmp_path / "sheet.png"
    assert main(["--plugin", str(TOY), "--dataset", "toy", "--out", str(sheet)]) == 0
    assert sheet.exists()


def test_images_are_not_changed(toy_images, tmp_path):
    before = toy_images.images.clone()
    contact_sheet(toy_images, tmp_path / "a.png", rows=1, variants=1)
    assert torch.equal(toy_images.images, before)
