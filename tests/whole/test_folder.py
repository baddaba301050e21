"""The command on a folder of colour pictures: three algorithms, what is told, and adapting to more of them."""

import csv

import numpy as np
import pytest
from commands import run_bench
from PIL import Image
from places import TOY

from bench.cli import adapt
from bench.cli.command import main
from bench.registry import load_plugin
from datasets.folder_layout import by_hash

SMALL = [
    *("--plugin", TOY, "--backbone", "one-layer", "--device", "cpu", "--meta-steps", "30", "--meta-batch", "4"),
    *("--test-tasks", "60", "--val-tasks", "20", "--val-points", "1", "--adaptation-tasks", "5"),
]


FEW = by_hash([f"c{c:02}" for c in range(25)])["meta_train"][3]


def photograph(rng, colour):
    """Return 14 x 10 pixels of one colour, with noise and a darker corner."""
    pixels = np.full((14, 10, 3), colour) + rng.normal(0, 25, (14, 10, 3))
    pixels[:4, :4] /= 2
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twenty-five classes, each a colour of its own, of 13 photographs; one that trains of 5."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for c in range(25):
        colour = rng.integers(40, 215, 3)
        (root / f"c{c:02}").mkdir()
        for i in range(4 if f"c{c:02}" == FEW else 12):
            photograph(rng, colour).save(root / f"c{c:02}" / f"{i}.jpg", quality=95)
        photograph(rng, colour).save(root / f"c{c:02}" / "0.png")
    return root


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("folder")
    flags = ["--dataset", "folder", "--data-root", pictures, "--set", "image_size=10", "--n-way", "4", "--out", out]
    return out, flags, run_bench(*SMALL, *flags)


def rows(out):
    with (out / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_three_algorithms_learn_colours(finished):
    out, _, done = finished
    assert done.returncode == 0, done.stderr
    found = {row["algo"]: row for row in rows(out)}
    assert set(found) == {"reptile", "fomaml", "maml"}
    for row in found.values():
        assert (row["status"], row["dataset"], row["train_rotation"]) == ("ok", "folder", "none")
    for algo in ("reptile", "fomaml"):  # by chance 0.25
        assert float(found[algo]["test_acc"]) > 0.6


def test_a_class_with_too_few_pictures_is_named(finished):
    said = " ".join(finished[2].stderr.split())
    assert "1 of 16 classes have fewer images than the 10 of a task and are left out" in said
    assert f"{FEW} (5)" in said


def test_the_same_command_keeps_all_and_another_size_is_another_run(finished):
    out, flags, _ = finished
    again = run_bench(*SMALL, *flags)
    assert again.returncode == 0
    assert again.stdout.count("kept") == 3
    other = run_bench(*SMALL, *flags, "--algos", "fomaml", "--set", "image_size=12")
    assert other.returncode == 2
    assert "image_size is given twice" in other.stderr
    other = run_bench(*SMALL, *(f for f in flags if f not in ("--set", "image_size=10")), "--algos", "fomaml",
                      "--set", "image_size=8")  # fmt: skip
    assert other.returncode == 0
    assert len(rows(out)) == 4


def test_a_run_adapts_to_more_pictures_read_as_it_was_trained(finished, pictures, tmp_path):
    load_plugin(TOY)
    (run,) = (finished[0] / "runs").glob("reptile-*")
    for name in ("c00", "c01", "c02"):
        (tmp_path / name).mkdir()
        for i in range(5):
            (tmp_path / name / f"{i}.jpg").write_bytes((pictures / name / f"{i}.jpg").read_bytes())
        (tmp_path / f"{name}.jpg").write_bytes((pictures / name / "9.jpg").read_bytes())
    found = adapt.adapt(run, tmp_path)
    assert [p.label for p in found] == ["c00", "c01", "c02"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--set", "image_size=abc"], "image_size"),
        (["--set", "fit=round"], "fit 'round'; accepted: crop, pad, stretch"),
        (["--set", "maml.image_size=10"], "the same for all algorithms; accepted: --set image_size=10"),
        (["--set", "imagesize=10"], "Did you mean 'image_size'"),
        (["--k-query", "40"], "accepted: a sum of at most 13"),
    ],
)
def test_what_cannot_be_is_one_line_before_training(pictures, tmp_path, capsys, flags, words):
    given = [*SMALL, "--dataset", "folder", "--data-root", pictures, "--out", tmp_path, *flags]
    assert main([str(word) for word in given]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.glob("runs/*"))


def test_options_of_other_data_are_refused(tmp_path, capsys):
    given = [*SMALL, "--dataset", "toy", "--out", tmp_path, "--set", "image_size=10"]
    assert main([str(word) for word in given]) == 2
    assert "no such option of the backbone (one-layer) or the data set (toy)" in capsys.readouterr().err
