"""The protocol ``smoke`` as a whole command: all outputs are there, and all of them say that they mean nothing."""

import json

import pytest
from commands import run_bench, table
from places import TOY

from bench.report.outputs import outputs
from bench.settings.protocols import load_protocol


@pytest.fixture(scope="module")
def smoked(tmp_path_factory):
    out = tmp_path_factory.mktemp("smoke")
    toy = ("--plugin", TOY, "--dataset", "toy", "--backbone", "one-layer", "--device", "cpu", "--tensorboard")
    done = run_bench("--protocol", "smoke", "--algos", "reptile,fomaml,maml", *toy, "--out", out, drawn=True)
    assert done.returncode == 0, done.stderr
    return out, done


def test_everything_is_made_once(smoked):
    out, _ = smoked
    assert [(row["algo"], row["status"]) for row in table(out / "summary.csv")] == [
        (algo, "ok") for algo in ("reptile", "fomaml", "maml")
    ]
    for one in outputs():
        if one.when == "always" and "only where there is" not in one.says:
            assert list(out.glob(f"{one.name}*")), one.name
    assert len(table(out / "curves.csv")) == 9, "three points for each"
    assert list(out.glob("tensorboard/**/events*"))
    for folder in (out / "runs").iterdir():
        assert {"run.json", "curve.csv", "test_tasks.csv", "adaptation.csv"} <= {path.name for path in folder.iterdir()}


def test_the_files_that_are_told_are_those_that_were_made(smoked):
    out, done = smoked
    told = " ".join(done.stdout.split()).partition(f"In {out}: ")[2].partition(" runs/")[0]
    assert "summary.csv" in told
    assert [name for name in told.split(", ") if name.endswith(".csv") and not (out / name).exists()] == []


def test_it_says_that_no_accuracy_means_anything(smoked):
    out, done = smoked
    caution = load_protocol("smoke").caution
    assert "no accuracy of it means anything" in caution
    assert caution in " ".join(done.stdout.split())
    assert f"**{caution}**" in (out / "summary.md").read_text()
    assert caution in (out / "report.html").read_text()


def test_runs_record_what_others_used(smoked):
    """Of this machine, whatever it does besides; nothing of it is more than there is."""
    out, _ = smoked
    for row in table(out / "summary.csv"):
        assert row["load"] != ""
        assert 0 <= float(row["load"]) <= 1024
        record = json.loads((out / "runs" / row["run_id"] / "run.json").read_text())
        assert record["row"]["load"] == float(row["load"])
