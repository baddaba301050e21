"""The command on a regression, sine waves: errors in place of accuracies, in every table and record."""

import csv
import json

import pytest
from waves import WAVES

from run_bench import main

SMALL = ["--meta-steps", "30", "--test-tasks", "40", "--val-tasks", "10", "--val-points", "1", "--device", "cpu"]


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    out = tmp_path_factory.mktemp("sine")
    flags = ["--dataset", "sine", "--backbone", "sine-mlp", "--n-way", "1", "--k-shot", "10", "--k-query", "20"]
    flags += ["--eval-k-query", "30", "--set", "fomaml.inner_lr=0.01"]
    code = main([*SMALL, *flags, "--algos", "fomaml", "--out", str(out)])
    return code, out


def test_the_ordinary_command_records_errors_and_leaves_accuracies_empty(ordinary):
    code, out = ordinary
    assert code == 0
    (row,) = table(out / "summary.csv")
    assert (row["status"], row["measure"], row["dataset"]) == ("ok", "mse", "sine")
    assert not any(row[c] for c in ("test_acc", "test_acc_ci95", "test_acc_transductive", "acc_before_adaptation"))
    assert float(row["test_error"]) > 0
    assert float(row["error_before_adaptation"]) > 0
    errors = [float(t["error"]) for t in table(out / "runs" / row["run_id"] / "test_tasks.csv")]
    assert float(row["test_error"]) == pytest.approx(sum(errors) / 40, rel=1e-12)
    assert row["test_error"] == row["test_error_transductive"]  # the network looks at one point at a time
    curve = table(out / "curves.csv")
    assert [(p["val_acc"], float(p["val_error"]) > 0) for p in curve] == [("", True), ("", True)]
    steps = table(out / "runs" / row["run_id"] / "adaptation.csv")
    assert [int(p["step"]) for p in steps if p["mode"] == "plain"] == [0, 1, 2, 3, 5, 10, 20, 50]
    assert not any(p["acc"] for p in steps)
    for name in ("summary.md", "comparisons.csv"):
        assert (out / name).exists()
    assert sorted(p.stem for p in (out / "plots").glob("*.png")) == ["peak_memory", "step_time"], "none of accuracies"


def test_the_ordinary_tables_name_the_measure(ordinary, capsys):
    _, out = ordinary
    assert main(["--report", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    (row,) = table(out / "summary.csv")
    shown = f"{float(row['test_error']):.4f}"
    assert "mse" in printed
    assert shown in printed
    text = (out / "summary.md").read_text()
    assert shown in text
    assert "## Mean squared error (mse) on meta-test" in text
    assert "## Mean squared error (mse) after adaptation steps" in text
    assert "query points in training" in text
    words = text.partition("Environment")[0].replace("made of accuracies only", "").lower()
    assert not any(word in words for word in ("accurac", "rotation", "image", "per class"))
    assert "Paired differences are made of accuracies only" in text


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dataset", "sine", "--backbone", "sine-mlp"], "n_way 5: sine is a regression of one target; accepted: 1"),
        (["--dataset", "sine", "--n-way", "1"], "backbone 'conv4' cannot be built for inputs of the shape (1,)"),
    ],
)
def test_what_does_not_fit_a_regression_is_one_line_before_anything_is_trained(flags, words, tmp_path, capsys):
    assert main([*flags, "--device", "cpu", "--out", str(tmp_path)]) == 2
    stderr = capsys.readouterr().err
    assert words in stderr
    assert len(stderr.strip().splitlines()) == 1


def test_record_of_a_regression_names_data_and_hash(ordinary):
    _, out = ordinary
    (path,) = out.glob("runs/*/run.json")
    data = json.loads(path.read_text())["data"]
    assert data["name"] == "sine"
    assert data["pipeline"].startswith("sine 1: y = a sin(x + b)")
    assert data["sha256"] == WAVES.sha256
