"""Results: made once, never changed, with frames that say what the tables say."""

import dataclasses

import pandas as pd
import pytest
from made_runs import make_run, reported

from bench.analysis.results import Results, load, results_of


@pytest.fixture
def folder(tmp_path, blank_pictures):
    for i, algo in enumerate(("a", "b", "c")):
        for seed in range(2):
            make_run(tmp_path, algo, seed, 0.7 + 0.1 * i, 30, run_id=f"{algo}-{seed}")
    make_run(tmp_path, "c", 5, status="failed", run_id="broken")
    return reported(tmp_path)


@pytest.mark.parametrize(
    ("frame", "name"),
    [
        ("curves", "curves"),
        ("differences", "comparisons"),
        ("anchors", "anchors"),
        ("time_to_accuracy", "time_to_accuracy"),
    ],
)
def test_frames_hold_the_numbers_of_the_csv_files(folder, frame, name):
    found, written = getattr(load(folder), frame), pd.read_csv(folder / f"{name}.csv")
    assert list(found.columns) == list(written.columns)
    numbers = [c for c in written.columns if pd.api.types.is_numeric_dtype(written[c])]
    pd.testing.assert_frame_equal(
        found[numbers].astype("float64").reset_index(drop=True), written[numbers].astype("float64"), check_exact=True
    )


def test_results_cannot_be_changed_and_damage_is_named_in_them(folder):
    (folder / "runs" / "a-0" / "run.json").write_text("{")
    (folder / "runs" / "b-0" / "curve.csv").write_text("half a li")
    results = load(folder)
    assert [problem.split("/runs/")[1].split(":")[0] for problem in results.problems] == [
        "a-0/run.json",
        "b-0/curve.csv",
    ]
    with pytest.raises(dataclasses.FrozenInstanceError):
        results.runs = ()
    assert all(isinstance(getattr(results, f.name), tuple) for f in dataclasses.fields(Results))


def test_the_short_table_has_a_line_per_arm_and_the_words_of_the_verdicts(folder):
    results = load(folder)
    assert list(results.table.algorithm) == ["a", "b", "c"]
    text = repr(results)
    for outcome in results.outcomes:
        assert " ".join(outcome.sentences) in text
    assert "<table" in results._repr_html_()


def test_nothing_makes_results_of_nothing():
    results = results_of([])
    assert repr(results) == "no finished run"
    assert results._repr_html_() == "<p>no finished run</p>"
    assert results.compared == []
    assert [len(f) for f in (results.summary, results.curves, results.differences, results.anchors)] == [0] * 4
