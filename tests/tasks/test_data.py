"""Which data set ``auto`` takes, and what it says."""

import os

import pytest
from commands import run_bench, table

from bench.api import BenchError, DataError, DataMissing
from bench.registry import DATASETS
from bench.tasks import data


def fake(name, auto_rank, result):
    class Fake:
        def load(self, root, cache):
            if isinstance(result, Exception):
                raise result
            return result

    Fake.auto_rank = auto_rank
    return Fake


@pytest.fixture
def choose(monkeypatch, toy_images, tmp_path):
    """Load ``auto`` from data sets given as {name: (rank, images or exception)}; returns images and warnings."""

    def load(**sets):
        found = {name: fake(name, rank, toy_images if r is None else r) for name, (rank, r) in sets.items()}
        monkeypatch.setattr(DATASETS, "names", lambda: sorted(found))
        monkeypatch.setattr(DATASETS, "get", found.__getitem__)
        warnings = []
        return data.load_data("auto", tmp_path, tmp_path, warnings.append), warnings

    return load


def test_auto_takes_the_first_that_can_be_had_without_a_word(choose):
    images, warnings = choose(later=(1, None), zeroth=(0, None))
    assert images.name == "toy"
    assert not warnings


def test_auto_falls_back_with_a_warning_that_says_why(choose):
    _, warnings = choose(zeroth=(0, DataMissing("nothing under data")), later=(1, None), never=(None, None))
    (line,) = warnings
    assert line.startswith("NOT zeroth: running on 'toy'")
    assert "nothing under data" in line


def test_auto_does_not_hide_damage_behind_another_data_set(choose):
    with pytest.raises(DataError, match=r"a\.zip is cut short"):
        choose(zeroth=(0, DataError("a.zip is cut short")), later=(1, None))


def test_auto_with_nothing_to_be_had_is_missing_data(choose):
    with pytest.raises(DataMissing, match=r"no network; no fonts"):
        choose(zeroth=(0, DataMissing("no network")), later=(1, DataMissing("no fonts")))


def test_a_named_data_set_is_loaded_or_its_name_answered(tmp_path):
    with pytest.raises(BenchError, match="Did you mean 'glyphs'"):
        data.load_data("glyhps", tmp_path, tmp_path)


@pytest.mark.parametrize("dataset", ["omniglot", "glyphs"])
def test_the_whole_command_runs_on_both_data_sets_and_names_them(dataset, request, tmp_path):
    root = request.getfixturevalue(f"prepared_{dataset}")
    budget = [
        "--meta-steps",
        3,
        "--meta-batch",
        2,
        "--test-tasks",
        10,
        "--val-tasks",
        10,
        "--val-points",
        1,
        "--adaptation-tasks",
        0,
    ]
    environment = {name: value for name, value in os.environ.items() if name != "BENCH_DATA"}
    flags = ["--algos", "reptile,maml", "--dataset", dataset, "--device", "cpu", "--data-root", root]
    done = run_bench(*flags, *budget, "--out", tmp_path / "out", env=environment)
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "out" / "summary.csv")
    assert {r["dataset"] for r in rows} == {dataset}
    assert len({r["stream_sha256"] for r in rows}) == 1
    assert f"on {dataset}" in done.stdout
    assert dataset in (tmp_path / "out" / "summary.md").read_text()
    assert {r["tasks_seen"] for r in rows} == {"6"}
