"""Records: what is written is read back to the last bit, and damage costs one file, never the others."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_runs import make_row, make_run

from bench.analysis.results import results_of
from bench.records.columns import STATUS, AdaptationPoint, CurvePoint, SummaryRow, TestTask, measured
from bench.records.run import add_tables, load_run, load_runs, read_rows, rewrite_status, write_csv, write_run
from bench.report.words.summary import summary_md
from bench.runs.kept import finished
from bench.system import files

SPEC_COLUMNS = """algo, dataset, protocol, n_way, k_shot, k_query, seed, backbone, device, device_name, meta_batch,
meta_steps, inner_steps, inner_lr, inner_optimizer, eval_inner_steps, meta_optimizer, meta_lr, tasks_seen, images_seen,
stream_sha256, test_tasks, test_acc, test_acc_ci95, test_acc_transductive, test_acc_transductive_ci95, train_s, eval_s,
setup_s, step_ms_median, step_ms_p95, tasks_per_s, peak_mem_mib, peak_mem_reserved_mib, status, error, run_id,
torch_version, git_commit, started_at"""
CURVE = [CurvePoint(0, 0, 0.0, 0.2, 0.01, 1.6), CurvePoint(10, 80, 1 / 3, 0.1 + 0.2, None, math.inf)]
TASKS = [TestTask(0, 1 / 3, 2 / 3), TestTask(1, 0.1 + 0.2, math.nan)]
ADAPTATION = [AdaptationPoint("plain", 0, 0.2, 0.01), AdaptationPoint("transductive", 5, 0.9, None)]


def row_in(folder, **changes):
    """The row of a run whose folder this is."""
    return make_row(run_id=folder.name, **changes)


def test_summary_columns_are_those_of_the_spec_and_more_may_follow():
    columns = SummaryRow.columns()
    expected = tuple(SPEC_COLUMNS.replace(",", " ").split())
    assert columns[: len(expected)] == expected
    further = (
        "eval_k_query train_rotation test_rotation acc_before_adaptation threads data_sha256 data_pipeline task_chunk"
    )
    further += " resumed precision step_mode oom_retries kernels"
    further += " measure test_error test_error_ci95 test_error_transductive test_error_transductive_ci95"
    further += " error_before_adaptation train_k_shot beside version"
    further += (
        " peak_tensor_mib adapt_ms code data_code results load tuning_trials tuning_steps tuning_s tuning_trial_steps"
    )
    further += " data_options test_dataset test_n_way test_k_shot test_corruption test_data_sha256 test_data_code"
    further += " host"
    assert columns[len(expected) :] == tuple(further.split())


def test_a_run_reads_back_as_it_was_written(tmp_path):
    row = make_row(
        run_id="a", test_acc=0.1 + 0.2, train_s=math.nan, error="a,b\n\"c\" | 'd' é", test_tasks=2, inner_lr=None
    )
    details = {
        "config": {"lr": math.inf, "path": Path("x")},
        "command": "run_bench.py",
        "environment": {"n": np.int64(3)},
    }
    assert write_run(tmp_path / "runs" / "a", row, details, CURVE, TASKS, ADAPTATION)
    (run,) = load_runs(tmp_path)
    assert math.isnan(run.row.train_s)
    for name in set(SummaryRow.columns()) - {"train_s"}:
        assert getattr(run.row, name) == getattr(row, name), name
    assert run.curve == tuple(CURVE)
    assert run.adaptation == tuple(ADAPTATION)
    assert list(run.test_tasks.task) == [0, 1]
    np.testing.assert_array_equal(run.test_tasks.acc, [1 / 3, 0.1 + 0.2])
    np.testing.assert_array_equal(run.test_tasks.acc_transductive, [2 / 3, math.nan])
    assert run.details["config"] == {"lr": "inf", "path": "x"}
    assert run.details["environment"] == {"n": 3}
    assert read_rows(run.folder / "test_tasks.csv", TestTask)[0] == TASKS[0]


def test_a_later_column_may_be_missing_before_one_that_is_there():
    """A file of the version between the two has the second and not the first."""
    row = make_row(train_k_shot=10, beside=2)
    cells = {name: getattr(row, name) for name in SummaryRow.columns() if name != "train_k_shot"}
    assert SummaryRow.parse(cells) == make_row(beside=2)


def test_run_json_is_standard_json_and_names_its_schema(tmp_path):
    write_run(tmp_path, row_in(tmp_path, test_acc=math.nan), {"config": {"x": [math.inf]}}, [], [], [])

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    record = json.loads((tmp_path / "run.json").read_text(), parse_constant=refuse)
    assert list(record) == ["schema", "row", "config", "files", "seal"]
    assert (record["schema"], record["row"]["test_acc"]) == (2, "nan")


def test_a_broken_character_does_not_cost_the_record(tmp_path):
    write_run(tmp_path, row_in(tmp_path, error="no file \udcff"), {}, [], [], [])
    run = load_run(tmp_path)
    assert run.row.error == "no file \udcff"
    write_csv(tmp_path / "x.csv", [run.row], SummaryRow.columns())
    assert r"no file \udcff" in (tmp_path / "x.csv").read_text()


def test_examples_are_kept_with_the_run_and_sealed(tmp_path):
    write_run(tmp_path, row_in(tmp_path, test_tasks=2), {}, CURVE, TASKS, ADAPTATION, b"images")
    assert (tmp_path / "examples.npz").read_bytes() == load_run(tmp_path).examples == b"images"
    (tmp_path / "examples.npz").write_bytes(b"others")
    warnings: list[str] = []
    assert load_run(tmp_path, warnings.append).examples is None
    assert "not what was written" in warnings[0]
    (tmp_path / "examples.npz").unlink()
    assert load_run(tmp_path, warnings.append).examples is None
    assert len(warnings) == 1


def test_further_tables_are_written_and_sealed_with_the_run(tmp_path):
    write_run(tmp_path, row_in(tmp_path, test_tasks=2), {"command": "c"}, CURVE, TASKS, ADAPTATION)
    run = add_tables(load_run(tmp_path), {"more.csv": (CurvePoint, CURVE)})
    assert run.table("more.csv", CurvePoint) == tuple(CURVE)
    again = load_run(tmp_path)
    assert (again.row, again.details) == (run.row, run.details)
    assert sorted(again.details["files"]) == ["adaptation.csv", "curve.csv", "more.csv", "test_tasks.csv"]
    assert again.curve == tuple(CURVE)
    (tmp_path / "more.csv").write_text((tmp_path / "more.csv").read_text().replace("10", "11"))
    warnings: list[str] = []
    assert load_run(tmp_path, warnings.append).table("more.csv", CurvePoint) == ()
    assert len(warnings) == 1


def test_a_run_without_hashes_gets_further_tables_and_keeps_its_record(tmp_path):
    write_run(tmp_path, row_in(tmp_path, test_tasks=2), {}, CURVE, TASKS, ADAPTATION)
    unseal(tmp_path)
    before = (tmp_path / "run.json").read_text()
    run = add_tables(load_run(tmp_path), {"more.csv": (CurvePoint, CURVE)})
    assert run.table("more.csv", CurvePoint) == tuple(CURVE)
    assert (tmp_path / "run.json").read_text() == before


def test_another_status_leaves_all_else_of_a_run(tmp_path):
    write_run(tmp_path, row_in(tmp_path, status="interrupted", train_s=7.0), {"command": "c"}, CURVE, [], [])
    old = load_run(tmp_path)
    run = rewrite_status(old, "failed", "too late")
    again = load_run(tmp_path)
    assert (again.row, again.details, again.curve) == (run.row, old.details, tuple(CURVE))
    assert (run.row.status, run.row.error, run.row.train_s) == ("failed", "too late", 7.0)


def test_a_measure_has_its_columns_and_those_of_an_accuracy_are_always_there():
    assert measured("acc", 0.5, 0.1) == {"acc": 0.5, "acc_ci95": 0.1}
    assert measured("error", 2.0, 0.1, "val_") == {
        "val_acc": None,
        "val_acc_ci95": None,
        "val_error": 2.0,
        "val_error_ci95": 0.1,
    }


def test_text_is_readable_in_run_json(tmp_path):
    write_run(tmp_path, row_in(tmp_path, error="größer"), {}, [], [], [])
    assert "größer" in (tmp_path / "run.json").read_text("utf-8")


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ("[1]", "holds no row"),
        ('{"row": []}', "holds no row"),
        ('{"row": {}}', "schema is None; this version reads 1 and 2"),
        ('{"schema": 3, "row": {}}', "schema is 3; this version reads 1 and 2"),
        ('{"schema": 2, "row": {}}', "altered after it was written: its seal is not that of its contents"),
        ('{"schema": 1, "row": {}}', "column 'algo' is missing"),
    ],
)
def test_what_is_wrong_with_a_record_is_said(tmp_path, record, line):
    (tmp_path / "run.json").write_text(record)
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        load_run(tmp_path)


def test_an_unknown_status_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=f"^status is 'fine'; accepted: {', '.join(STATUS)}$"):
        make_row(status="fine")


def test_run_json_comes_last(tmp_path, monkeypatch):
    written: list[str] = []
    replace = Path.replace

    def noted(self, target):
        written.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(files.Path, "replace", noted)
    write_run(tmp_path, row_in(tmp_path), {}, CURVE, TASKS, ADAPTATION)
    assert sorted(written) == ["adaptation.csv", "curve.csv", "run.json", "test_tasks.csv"]
    assert written[-1] == "run.json"


@pytest.mark.parametrize("status", STATUS)
def test_only_an_ok_run_is_never_overwritten(tmp_path, status):
    write_run(tmp_path, row_in(tmp_path, status=status, test_tasks=2), {}, CURVE, TASKS, ADAPTATION)
    assert write_run(tmp_path, row_in(tmp_path, train_s=7.0), {}, [], [], []) == (status != "ok")
    assert (load_run(tmp_path).row.train_s == 7.0) == (status != "ok")
    assert (load_run(tmp_path).curve == tuple(CURVE)) == (status == "ok")


def test_a_record_that_cannot_be_used_is_not_written_over(tmp_path, caplog):
    (tmp_path / "run.json").write_text('{"schema": 3, "row": {}}')
    assert write_run(tmp_path, row_in(tmp_path), {}, CURVE, TASKS, ADAPTATION)
    (aside,) = tmp_path.glob("run.json.unusable-*")
    assert aside.read_text() == '{"schema": 3, "row": {}}'
    (line,) = caplog.messages
    assert "schema is 3" in line
    assert str(aside) in line
    assert load_run(tmp_path).ok


def test_runs_come_by_start_time_and_unfinished_ones_are_passed_over(tmp_path):
    for name, start in (("b", "2026-01-02"), ("c", "2026-01-01"), ("a", "2026-01-02")):
        make_run(tmp_path, run_id=name, started_at=start, tasks=3)
    (tmp_path / "runs" / "unfinished").mkdir()
    (tmp_path / "runs" / "unfinished" / "curve.csv").write_text("half")
    warnings: list[str] = []
    assert [run.row.run_id for run in load_runs(tmp_path, warnings.append)] == ["c", "a", "b"]
    assert warnings == []
    assert load_runs(tmp_path / "nowhere") == []


def unseal(folder):
    """Make the run one of an earlier version, whose run.json had no seal."""
    record = json.loads((folder / "run.json").read_text())
    del record["seal"], record["files"]
    (folder / "run.json").write_text(json.dumps({**record, "schema": 1}))


def test_the_summary_names_runs_whose_records_are_not_sealed(tmp_path):
    for name in ("old", "new"):
        make_run(tmp_path, run_id=name, status="failed")
    unseal(tmp_path / "runs" / "old")
    runs = load_runs(tmp_path)
    text = summary_md(results_of(runs))["summary.md"].decode()
    assert "Runs: 2. From an earlier version, not sealed, so that nothing tells if they were altered: old." in text
    sealed = results_of(run for run in runs if run.sealed)
    assert "not sealed" not in summary_md(sealed)["summary.md"].decode()


def _edit_row(**changes: object):
    def edit(text: str) -> str:
        record = json.loads(text)
        record["row"] |= changes
        return json.dumps(record)

    return edit


DAMAGED_RUN_JSON = {
    "empty": lambda text: "",
    "cut short": lambda text: text[: len(text) // 2],
    "not an object": lambda text: "[1]",
    "no row": lambda text: '{"schema": 1}',
    "newer schema": lambda text: re.sub('"schema": [12]', '"schema": 3', text),
    "missing column": lambda text: text.replace('"n_way"', '"m_way"'),
    "wrong type": _edit_row(seed="zero"),
    "half a step": _edit_row(meta_steps=2.5),
    "endless integer": _edit_row(seed=math.inf),
    "more than 64 bits": _edit_row(seed=2**63),
    "missing value": _edit_row(algo=None),
    "unknown status": _edit_row(status="fine"),
    "not UTF-8": lambda text: b"\xff\xfe",
    "brackets without end": lambda text: "[" * 100_000,
}


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("damage", DAMAGED_RUN_JSON)
def test_a_damaged_run_json_costs_one_warning_and_one_run(tmp_path, damage, sealed):
    for name in ("bad", "good"):
        make_run(tmp_path, run_id=name, tasks=3)
        if not sealed:
            unseal(tmp_path / "runs" / name)
    path = tmp_path / "runs" / "bad" / "run.json"
    content = DAMAGED_RUN_JSON[damage](path.read_text())
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    warnings: list[str] = []
    assert [run.row.run_id for run in load_runs(tmp_path, warnings.append)] == ["good"]
    (line,) = warnings
    assert str(path) in line
    assert "\n" not in line


@pytest.mark.parametrize("sealed", [True, False])
def test_a_folder_copied_to_another_name_is_no_second_run(tmp_path, sealed):
    make_run(tmp_path, run_id="a", tasks=3)
    if not sealed:
        unseal(tmp_path / "runs" / "a")
    shutil.copytree(tmp_path / "runs" / "a", tmp_path / "runs" / "b")
    warnings: list[str] = []
    assert [run.row.run_id for run in load_runs(tmp_path, warnings.append)] == ["a"]
    (line,) = warnings
    assert line.endswith("b/run.json: ignored (is the record of run 'a', which its folder is not named after)")
    assert finished(tmp_path / "runs" / "b") is None


def test_a_run_is_found_from_within_its_folder(tmp_path, monkeypatch):
    make_run(tmp_path, run_id="a", tasks=3)
    monkeypatch.chdir(tmp_path / "runs" / "a")
    assert load_run(Path()).row.run_id == "a"


DAMAGED_CSV = {
    "empty": lambda text: "",
    "cut short": lambda text: text[:-3],
    "missing column": lambda text: text.replace("acc", "bcc", 1),
    "missing cell": lambda text: text[: text.rstrip("\n").rindex(",")] + "\n",
    "word for a number": lambda text: text[: text.rstrip("\n").rindex(",")] + ",many\n",
    "more than 64 bits": lambda text: text.replace("0,", "9" * 30 + ",", 1),
    "not UTF-8": lambda text: b"\xff\n",
    "gone": None,
}


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("damage", DAMAGED_CSV)
@pytest.mark.parametrize("table", ["curve", "test_tasks", "adaptation"])
def test_a_damaged_table_is_empty_with_one_warning_and_the_row_stays(tmp_path, table, damage, sealed):
    make_run(tmp_path, tasks=3)
    if not sealed:
        unseal(next(tmp_path.glob("runs/*")))
    warnings: list[str] = []
    (run,) = load_runs(tmp_path, warnings.append)
    path = run.folder / f"{table}.csv"
    if DAMAGED_CSV[damage] is None:
        path.unlink()
    else:
        content = DAMAGED_CSV[damage](path.read_text())
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert len(getattr(run, table)) == 0
    assert len(getattr(run, table)) == 0  # looked at again, warned about once
    (line,) = warnings
    assert str(path) in line
    assert "\n" not in line


def test_missing_test_tasks_are_noticed_where_no_hash_tells(tmp_path):
    make_run(tmp_path, tasks=3)
    unseal(next(tmp_path.glob("runs/*")))
    warnings: list[str] = []
    (run,) = load_runs(tmp_path, warnings.append)
    path = run.folder / "test_tasks.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert len(run.test_tasks) == 0
    assert "2 tasks, but run.json counts 3" in warnings[0]


def test_a_number_that_was_altered_is_never_shown(tmp_path):
    make_run(tmp_path, run_id="row", tasks=3, test_acc=0.9)
    make_run(tmp_path, run_id="table", tasks=3)
    path = tmp_path / "runs" / "row" / "run.json"
    path.write_text(path.read_text().replace("0.9,", "0.8,", 1))
    path = tmp_path / "runs" / "table" / "test_tasks.csv"
    path.write_text(path.read_text().replace("0.", "0.9", 1))
    warnings: list[str] = []
    (run,) = load_runs(tmp_path, warnings.append)
    assert len(run.test_tasks) == 0
    assert ["altered after it was written" in warnings[0], "not what was written" in warnings[1]] == [True, True]


def test_columns_are_found_by_name_not_by_place(tmp_path):
    (tmp_path / "x.csv").write_text("extra,acc_ci95,acc,step,mode\n9,,0.5,3,plain\n")
    assert read_rows(tmp_path / "x.csv", AdaptationPoint) == [AdaptationPoint("plain", 3, 0.5, None)]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("mode,step,acc,tasks\n", "'acc_ci95' is missing"),
        ("mode,step,acc,acc_ci95\nplain,3,0.5,0.1,7\n", "Expected 4 fields in line 2, saw 5"),
        ("mode,step,acc,acc_ci95\nplain,3,0.5,\nplain,3,0.5\nplain,3,0.5,\n", "line 3: fewer than 4 cells"),
        ("mode,step,acc,acc_ci95\nplain,3,0.5,\n\nplain,3,0.5,\n", "line 3: fewer than 4 cells"),
        ("mode,step,acc,acc_ci95\nplain,3,0.5,0.1\nplain,4,0.5,0.1", "no newline at the end"),
        ("mode,step,acc,acc_ci95\nplain,3,0.5,0.1\nplain,,0.5,0.1\n", "line 3: step is ''"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_line(tmp_path, text, word):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=word):
        read_rows(tmp_path / "x.csv", AdaptationPoint)
