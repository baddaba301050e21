"""``bench.load_results``: a frame with a type for every column, of what is there and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest
from made_runs import make_run, reported
from places import REPOSITORY

import bench
from bench.records.columns import SummaryRow


def test_results_are_a_table_of_typed_columns_and_the_same_as_summary_csv(tmp_path):
    make_run(tmp_path, seed=2**32 - 1, run_id="b", started_at="2026-01-02", images_seen=2**62 + 1, test_acc=0.1 + 0.2)
    make_run(tmp_path, run_id="a", started_at="2026-01-03", status="failed", meta_steps=None, error="-1 \udcff")
    table = bench.load_results(tmp_path)
    assert tuple(table) == (*SummaryRow.columns(), "ok")
    assert list(table.run_id) == ["b", "a"]
    assert table.error[1] == "-1 \udcff"
    assert list(table.images_seen) == [2**62 + 1, 160_000]
    assert table.test_acc[0] == 0.1 + 0.2
    assert table.isna().loc[1, ["meta_steps", "test_acc"]].all()
    kinds = {"error": "string", "meta_steps": "Int64", "test_acc": "float64", "algo": "category", "ok": "bool"}
    assert {name: str(table[name].dtype) for name in kinds} == kinds
    assert list(table.ok) == [True, False]
    assert list(table.started_at) == [pd.Timestamp("2026-01-02", tz="UTC"), pd.Timestamp("2026-01-03", tz="UTC")]
    dtypes = {name: dtype for name, dtype in table.dtypes.items() if name not in ("ok", "started_at")}
    back = pd.read_csv((reported(tmp_path) / "summary.csv"), dtype=dtypes).assign(
        started_at=table.started_at, ok=table.ok
    )
    pd.testing.assert_frame_equal(back, table.replace({"error": r"-1.*"}, r"'-1 \\udcff", regex=True), check_exact=True)


def test_results_take_older_records_and_leave_out_what_was_edited(tmp_path, caplog):
    """A record of schema 1 has neither the later columns nor a seal; one of schema 2 that was edited is no record."""
    make_run(tmp_path, run_id="old")
    make_run(tmp_path, run_id="edited")
    for name in ("old", "edited"):
        path = tmp_path / "runs" / name / "run.json"
        record = json.loads(path.read_text())
        if name == "old":
            del record["seal"], record["row"]["beside"], record["row"]["measure"]
            record |= {"schema": 1, "row": {**record["row"], "started_at": "yesterday"}}
        record["row"]["test_acc"] = 0.123
        path.write_text(json.dumps(record))
    table = bench.load_results(tmp_path)
    assert list(table.run_id) == ["old"]
    assert table.test_acc[0] == 0.123
    assert table.loc[0, ["beside", "measure", "started_at"]].isna().all()
    assert "edited/run.json: ignored" in caplog.text


def test_results_of_what_is_no_folder_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("file", "nope"):
        with pytest.raises(NotADirectoryError, match=f"{name}' is no folder; accepted: what --out was given"):
            bench.load_results(tmp_path / name)


def test_results_of_no_run_have_the_same_columns_and_types(tmp_path):
    none = bench.load_results(tmp_path)
    make_run(tmp_path)
    assert len(none) == 0
    assert none.dtypes.map(str).equals(bench.load_results(str(tmp_path)).dtypes.map(str))


def test_the_package_is_imported_without_pandas():
    code = "import sys, bench; assert 'pandas' not in sys.modules; bench.load_results; assert 'pandas' in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
    with pytest.raises(AttributeError, match="no attribute 'results'"):
        _ = bench.results
