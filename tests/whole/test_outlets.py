"""One command from a configuration file, and what it leaves for other tools: log, events, weights, JSON, LaTeX."""

import csv
import dataclasses
import json
import os
import re
import sys
import tomllib
import warnings

import numpy as np
import pytest
import torch
from commands import run_bench
from made_runs import make_run
from PIL import Image, ImageOps
from places import TOY
from torch import nn

from bench.cli import adapt
from bench.cli.command import main
from bench.records.run import load_runs
from bench.registry import create_backbone
from bench.report.tables import tensorboard as events


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs, quiet but for the log file, made from a file beside which everything lies."""
    folder = tmp_path_factory.mktemp("outlets")
    (folder / "grid.toml").write_text(
        f'algos = ["fomaml", "reptile"]\nplugin = ["{TOY}"]\ndataset = "toy"\nbackbone = "mlp"\ndevice = "cpu"\n'
        "meta_steps = 40\nmeta_batch = 4\ntest_tasks = 20\nval_tasks = 20\nval_points = 2\nadaptation_tasks = 4\n"
        'out = "out"\nlog_file = "log"\nquiet = true\ntensorboard = true\nset = ["reptile.inner_optimizer=adam"]\n'
    )
    done = run_bench("--config", folder / "grid.toml")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return folder


def test_the_log_follows_the_grid(made):
    """A line per run begun and per run ended with its number, the time gone and what is left; nothing redrawn."""
    text = (made / "log").read_bytes().decode()
    assert "\r" not in text
    assert "\033" not in text
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d "
    assert all(re.match(stamp, line) for line in text.splitlines())
    time = r"(\d+ h )?(\d+ min )?(\d+ s)?"
    what = r"5-way 1-shot seed 0 on toy: "
    for line in (
        rf"\[1/2\] fomaml {what}started; {time} gone",
        rf"\[1/2\] fomaml {what}[01]\.\d+ plain, .*; {time} gone, about {time} left",
        rf"\[2/2\] reptile {what}started; {time} gone, about {time} left",
        rf"\[2/2\] reptile {what}[01]\.\d+ plain, .*; {time} gone",
        r"toy, protocol quick",
    ):
        assert re.search(rf"^{stamp}{line}$", text, re.MULTILINE), line


def test_the_saved_file_finds_everything_done(made, monkeypatch, capsys):
    monkeypatch.setattr("bench.runs.launchers.local.start_process", None)  # nothing is run
    before = [run.row for run in load_runs(made / "out")]
    assert main(["--no-quiet", "--config", str(made / "out" / "config.toml")]) == 0
    assert len(re.findall(r"\(kept; --fresh runs it again\)$", capsys.readouterr().out, re.MULTILINE)) == 2
    assert [run.row for run in load_runs(made / "out")] == before
    saved = tomllib.loads((made / "out" / "config.toml").read_text())
    assert (saved["format"], saved["out"], saved["meta_steps"], saved["quiet"]) == (1, ".", 40, False)
    assert saved["log_file"] == str((made / "log").resolve())
    assert "reptile.inner_optimizer=adam" in saved["set"]


def test_events_hold_the_curve_and_the_hyperparameters(made):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.plugins.hparams import plugin_data_pb2
    for run in load_runs(made / "out"):
        found = EventAccumulator(str(made / "out" / "tensorboard" / run.row.run_id)).Reload()
        points = found.Scalars("val/accuracy")
        assert [p.step for p in points] == [p.meta_step for p in run.curve] == [0, 20, 40]
        np.testing.assert_allclose([p.value for p in points], [p.val_acc for p in run.curve], rtol=1e-6)
        gone = [p.wall_time - points[0].wall_time for p in points]
        np.testing.assert_allclose(gone, [p.train_s - run.curve[0].train_s for p in run.curve], atol=1e-3)
        (result,) = found.Scalars("result/test_acc")
        assert result.value == pytest.approx(run.row.test_acc)
        content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        hparams = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
        assert hparams["algo"].string_value == run.row.algo
        assert hparams["inner_lr"].number_value == run.row.inner_lr


def test_without_the_package_it_is_one_line_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main(["--tensorboard", "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("run_bench.py: --tensorboard: the package tensorboard cannot be imported")
    assert line.endswith("; pip install tensorboard")
    assert not (tmp_path / "out").exists()


def test_events_of_a_kept_run_are_written_once(tmp_path):
    make_run(tmp_path)
    (run,) = load_runs(tmp_path)
    write = events.writer(tmp_path)
    write(run)
    (first,) = (tmp_path / "tensorboard" / run.row.run_id).iterdir()
    write(run)
    assert list(first.parent.iterdir()) == [first]
    os.utime(first, (1, 1))  # older than the record
    write(run)
    (second,) = first.parent.iterdir()
    assert second.stat().st_mtime > 1


def test_no_text_of_a_record_says_which_folder_gets_events_and_other_files_there_stay(tmp_path):
    make_run(tmp_path)
    (run,) = load_runs(tmp_path)
    for run_id in (str(tmp_path / "mine"), "../mine", "alpha-5w1s-s0"):
        for folder in (tmp_path / "mine", tmp_path / "tensorboard" / run.folder.name):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "notes.txt").write_text("of the user")
        edited = dataclasses.replace(run, row=dataclasses.replace(run.row, run_id=run_id))
        os.utime(run.folder / "run.json")
        events.writer(tmp_path)(edited)
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
        kept, written = sorted(path.name for path in (tmp_path / "tensorboard" / run.folder.name).iterdir())[::-1]
        assert (kept, written[:7]) == ("notes.txt", "events.")


@pytest.fixture(scope="module")
def own_images(tmp_path_factory):
    """Pictures of bars drawn dark on white in three ways, four each to adapt on and two to predict."""
    folder, rng = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    boxes = {"left": (5, 5, 15, 65), "right": (55, 5, 65, 65), "top": (5, 5, 65, 15)}
    for name, box in boxes.items():
        (folder / name).mkdir()
        for i in range(6):
            picture = Image.new("RGB", (70, 70), "white")
            shift = rng.integers(-3, 4, size=2).tolist() * 2
            picture.paste((0, 0, 90), tuple(np.add(box, shift).tolist()))
            picture.save(folder / name / f"{i}.png" if i < 4 else folder / f"{name}-{i}.png")
    return folder


@pytest.mark.parametrize("mode", ["plain", "transductive"])
@pytest.mark.parametrize("algo", ["fomaml", "reptile"])
def test_a_run_adapts_to_a_folder_and_predicts(made, own_images, algo, mode):
    """Reptile's inner Adam, hardly trained here, is asked only whether it finds what it carries."""
    (run,) = (made / "out" / "runs").glob(f"{algo}-*")
    found = adapt.adapt(run, own_images, steps=5, mode=mode)
    assert len(found) == 6
    if algo == "fomaml":
        assert [p.label for p in found] == [p.path.name.split("-")[0] for p in found]
    assert all(0 < p.probability <= 1 for p in found)


def _deep(picture):
    return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 200 + 900)


def _fractions(picture):
    return Image.fromarray(np.asarray(picture.convert("L")).astype(np.float32) / 255)


def _white_ink(picture):
    """Return the bars in white on a ground that is clear, and white where one does not look at that."""
    ink = Image.new("RGBA", picture.size, "white")
    ink.putalpha(ImageOps.invert(picture.convert("L")))
    return ink


@pytest.mark.parametrize("kind", [_deep, _fractions, _white_ink], ids=lambda kind: kind.__name__)
def test_scans_of_other_kinds_are_taken_for_what_they_show(made, own_images, tmp_path, kind):
    suffix = ".tiff" if kind is _fractions else ".png"
    for path in own_images.rglob("*.png"):
        copy = (tmp_path / path.relative_to(own_images)).with_suffix(suffix)
        copy.parent.mkdir(exist_ok=True)
        with Image.open(path) as picture:
            kind(picture).save(copy)
    (run,) = (made / "out" / "runs").glob("fomaml-*")
    found = adapt.adapt(run, tmp_path, steps=5)
    assert [p.label for p in found] == [p.path.name.split("-")[0] for p in found]


def test_the_command_prints_a_line_per_image_or_what_is_wrong(made, own_images, tmp_path, capsys):
    (run,) = (made / "out" / "runs").glob("fomaml-*")
    assert adapt.main([str(run), str(own_images)]) == 0
    assert len(re.findall(r"^\w+-\d\.png +(left|right|top) +[01]\.\d{3}$", capsys.readouterr().out, re.MULTILINE)) == 6
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_text("no image")
    empty, one = tmp_path / "empty", tmp_path
    for where, folder, words in (
        (empty, own_images, "is no finished run"),
        (run, empty, "is no folder"),
        (run, one, "has 1 subfolders with images; accepted: 2 to 5"),
    ):
        assert adapt.main([str(where), str(folder)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    (tmp_path / "b").mkdir()
    for name in ("b/x.png", "y.png"):
        Image.new("L", (9, 9)).save(tmp_path / name)
    for name, words in (("a/x.png", "is no picture of a kind that Pillow knows"), ("b/x.png", "is blank")):
        assert adapt.main([str(run), str(tmp_path)]) == 2
        assert f"{name}: {words}" in capsys.readouterr().err
        (tmp_path / name).write_bytes((own_images / "left" / "0.png").read_bytes())


def test_weights_are_a_state_dict_of_the_plain_network(made):
    (run,) = (made / "out" / "runs").glob("fomaml-*")
    state = torch.load(run / "weights.pt", weights_only=True)
    network = create_backbone("mlp").build((1, 28, 28), 5)
    assert isinstance(network, nn.Module)
    network.load_state_dict(state)  # strict: every name, every shape
    trained = torch.load(run / "checkpoint.pt", weights_only=True)["slow"]
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, trained[name])


def strict(text):
    def refuse(constant):
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


def test_json_holds_what_the_csv_files_hold(made):
    for name in ("summary", "curves", "comparisons", "time_to_accuracy", "anchors"):
        rows = strict((made / "out" / f"{name}.json").read_text())
        with (made / "out" / f"{name}.csv").open(newline="") as file:
            reader = csv.DictReader(file)
            lines = list(reader)
        assert len(rows) == len(lines)
        for row, line in zip(rows, lines):
            assert list(row) == list(line)
            for column, value in row.items():
                text = line[column]
                assert (value is None) == (text in ("", "nan"))
                assert value is None or (float(text) == value if isinstance(value, int | float) else text == value)
