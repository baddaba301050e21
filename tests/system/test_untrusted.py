"""What somebody else put under a name: pipes, devices and endless files end in one line, and at once."""

import os

import pytest
from made_runs import make_run
from places import TOY

from bench.api import DataError
from bench.cli.command import main
from bench.records.run import load_runs
from bench.settings.config import RunConfig
from bench.system.untrusted import check_inside, read_regular
from bench.training.checkpoint import read_checkpoint
from datasets.omniglot_files import HALVES
from datasets.omniglot_search import find, listed


def as_pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def test_a_regular_file_is_read_up_to_a_size_and_nothing_else_is(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == read_regular(path, None) == b"12345"
    with pytest.raises(OSError, match="5 bytes are more than such a file has"):
        read_regular(path, 4)
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path)
    for other in (as_pipe(path), "/dev/zero"):
        with pytest.raises(OSError, match="Not a regular file"):
            read_regular(other)


@pytest.mark.parametrize("name", ["run.json", "curve.csv", "test_tasks.csv", "examples.npz"])
def test_a_pipe_in_place_of_a_file_of_a_run_costs_that_file(tmp_path, name):
    make_run(tmp_path, run_id="a", tasks=3)
    make_run(tmp_path, run_id="b", tasks=3)
    as_pipe(tmp_path / "runs" / "a" / name)
    warnings = []
    runs = load_runs(tmp_path, warnings.append)
    assert [run.row.run_id for run in runs] == (["b"] if name == "run.json" else ["a", "b"])
    for run in runs:
        assert run.curve or name == "curve.csv"
        assert len(run.test_tasks) == 3 or name == "test_tasks.csv"
        assert run.examples is None
    (line,) = warnings
    assert "Not a regular file" in line


@pytest.mark.parametrize("path", ["pipe", "/dev/zero"])
def test_a_configuration_that_is_no_regular_file_is_one_line(tmp_path, path, capsys):
    as_pipe(tmp_path / "pipe")
    assert main(["--config", str(tmp_path / path), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"run_bench.py: --config '{tmp_path / path}': Not a regular file; accepted: a TOML file"


def test_a_checkpoint_or_an_archive_that_is_a_pipe_is_one_line(tmp_path):
    with pytest.raises(OSError, match="Not a regular file"):
        read_checkpoint(as_pipe(tmp_path / "checkpoint.pt"))
    archive = as_pipe(tmp_path / f"{HALVES[0].name}.zip")
    assert find(tmp_path, HALVES[:1]).halves == {HALVES[0].name: archive}
    with pytest.raises(DataError, match=r"not a whole zip archive .*Not a regular file"):
        listed(archive, HALVES[0], tmp_path)


def test_folders_of_results_that_are_links_are_refused_and_the_folder_of_all_may_be_one(tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (out / "plots").mkdir(parents=True)
    (tmp_path / "link").symlink_to(out)
    check_inside(tmp_path / "link")
    for name in ("runs", "plots/slides", "cache"):
        (out / name).symlink_to(elsewhere)
        with pytest.raises(OSError, match="A folder of results may not be a symbolic link") as error:
            check_inside(tmp_path / "link")
        assert error.value.filename == str(tmp_path / "link" / name)
        (out / name).unlink()


TOY_RUN = ["--plugin", str(TOY), "--dataset", "toy", "--backbone", "one-layer", "--algos", "maml", "--device", "cpu"]
LINKS = {
    "cache": [],
    "plots/slides": ["--report"],
    "tensorboard/a": ["--report", "--tensorboard"],
    "study-cost": ["--study", "cost"],
    "runs/RUN_ID": TOY_RUN,
    "runs/RUN_ID/profile": [*TOY_RUN, "--profile"],
}


@pytest.mark.parametrize("name", LINKS)
def test_nothing_is_written_where_a_link_in_the_folder_leads(tmp_path, name, monkeypatch, capsys):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    make_run(out, run_id="a", tasks=3)
    monkeypatch.setattr("bench.report.drawing.pictures.png", lambda *_: b"")
    monkeypatch.setattr("bench.cli.compare.warn_if_busy", lambda *given: None)
    monkeypatch.setattr(RunConfig, "run_id", "RUN_ID")
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).symlink_to(elsewhere)
    assert main([*LINKS[name], "--out", str(out)]) == (1 if name.startswith("runs/") else 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("run_bench.py: A folder of results may not be a symbolic link: ")
    assert line.split("; ")[0].endswith(f"/out/{name}")
    assert not list(elsewhere.iterdir())
