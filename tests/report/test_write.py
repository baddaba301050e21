"""The report: what belongs together is compared, what does not is kept apart and named."""

from __future__ import annotations

import csv
import dataclasses
import logging
import math
import re

import numpy as np
import pytest
from made_runs import make_row, make_run, reported, rewrite

from bench.analysis.arms import arms
from bench.analysis.comparison import compare
from bench.analysis.results import load, results_of
from bench.analysis.statistics import paired_comparison
from bench.records.columns import MODES, SummaryRow, TestTask
from bench.records.run import load_runs, read_rows, write_run
from bench.report.words.settings import own_settings
from bench.report.words.terminal import comparison_table
from bench.report.write import write_report
from bench.settings.protocols import load_protocol
from bench.system.text import escape, number, plus_minus


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def compared(out):
    return compare(arms(load_runs(out)))


DRAWN = ("test_reports_repeat_to_the_byte", "test_it_works_without_runs_with_one_and_with_failures_only")


@pytest.fixture(autouse=True)
def _pictures(request):
    """Have pictures drawn only where a test is about them."""
    if request.function.__name__ not in DRAWN:
        request.getfixturevalue("blank_pictures")


@pytest.fixture
def grid(tmp_path):
    """Three algorithms, three seeds, two settings, and a run that failed."""
    for n_way, k_shot in ((5, 1), (20, 5)):
        for i, algo in enumerate(("alpha", "beta", "gamma")):
            for seed in range(3):
                name = f"{algo}-{n_way}-{seed}"
                make_run(tmp_path, algo, seed, 0.8 + 0.03 * i, 100, 1 + i, n_way=n_way, k_shot=k_shot, run_id=name)
    make_run(
        tmp_path, "gamma", 3, status="oom", error="=out of `memory` | <b>\nmore", run_id="broken", device_name=None
    )
    return tmp_path


def test_every_run_has_its_row_failed_ones_too(grid):
    write_report(grid)
    rows = read_rows((grid / "summary.csv"), SummaryRow)
    assert rows == [run.row for run in load_runs(grid)]
    assert len(rows) == 19
    assert {row["error"] for row in table(grid / "summary.csv")} == {"", "'=out of `memory` | <b>\nmore"}
    assert (grid / "summary.csv").read_text().splitlines()[0] == ",".join(SummaryRow.columns())


def test_curves_hold_every_point_with_its_run(grid):
    write_report(grid)
    rows = table(grid / "curves.csv")
    assert ",".join(rows[0]) == "run_id,algo,seed,meta_step,tasks_seen,train_s,val_acc,val_acc_ci95,query_loss"
    runs = load_runs(grid)
    assert len(rows) == sum(len(run.curve) for run in runs)
    run = runs[4]
    mine = [row for row in rows if row["run_id"] == run.row.run_id]
    assert [float(row["val_acc"]) for row in mine] == [point.val_acc for point in run.curve]
    assert {(row["algo"], int(row["seed"])) for row in mine} == {(run.row.algo, run.row.seed)}


def test_comparisons_pair_identical_tasks_of_every_pair_in_every_setting_and_mode(grid):
    rows = table(reported(grid) / "comparisons.csv")
    assert ",".join(rows[0]).startswith(
        "algo_a,algo_b,n_way,k_shot,mode,diff,ci95_low,ci95_high,p_value,test_tasks,seeds,dataset,protocol,k_query,"
    )
    keys = {(r["algo_a"], r["algo_b"], r["n_way"], r["k_shot"], r["mode"]) for r in rows}
    pairs = (("alpha", "beta"), ("alpha", "gamma"), ("beta", "gamma"))
    assert keys == {(a, b, *s, mode) for a, b in pairs for s in (("5", "1"), ("20", "5")) for mode in MODES}
    runs = {(run.row.algo, run.row.n_way, run.row.seed): run for run in load_runs(grid)}
    row = next(
        r for r in rows if (r["algo_a"], r["algo_b"], r["n_way"], r["mode"]) == ("alpha", "gamma", "20", "plain")
    )
    a, b = ({seed: runs[algo, 20, seed].test_tasks.acc for seed in range(3)} for algo in ("alpha", "gamma"))
    expected = paired_comparison(a, b)
    assert (float(row["diff"]), float(row["p_value"])) == (expected.diff, expected.p_value)
    assert (row["test_tasks"], row["seeds"], row["dataset"], row["protocol"]) == ("300", "3", "glyphs", "quick")
    assert float(row["diff"]) == pytest.approx(-0.06, abs=0.02)


def test_p_values_are_corrected_within_a_setting_over_both_modes(tmp_path):
    for algo, level in (("a", 0.85), ("b", 0.85), ("c", 0.9)):
        make_run(tmp_path, algo, 0, level, 300)
    found = compared(tmp_path)
    assert len(found) == 6
    for rank, c in enumerate(sorted(found, key=lambda c: c.p_value)):
        assert c.p_value_holm >= min(1.0, (6 - rank) * c.p_value)
    assert min(c.p_value_holm for c in found) == pytest.approx(6 * min(c.p_value for c in found))


@pytest.mark.parametrize(
    "change",
    [
        *({"dataset": "other"}, {"protocol": "paper"}, {"data_sha256": "f" * 64}, {"k_query": 15}, {"eval_k_query": 1}),
        *(
            {"test_rotation": "per_class"},
            {"backbone": "mlp"},
            {"n_way": 20},
            {"k_shot": 5},
            {"seed": 7},
            {"tasks": 50},
        ),
        *({"status": "leaking"}, {"status": "diverged"}),
    ],
)
def test_runs_that_faced_other_tasks_are_not_paired(tmp_path, change):
    make_run(tmp_path, "a", tasks=100)
    make_run(tmp_path, "b", tasks=100)
    assert len(compared(tmp_path)) == 2
    make_run(tmp_path, "c", **({"tasks": 100} | change))
    assert {(c.algo_a, c.algo_b) for c in compared(tmp_path)} == {("a", "b")}


def test_other_task_numbers_are_not_paired(tmp_path):
    make_run(tmp_path, "a", tasks=3)
    row = make_run(tmp_path, "b", tasks=3)
    rewrite(tmp_path, row, test_tasks=[TestTask(i, 0.5, 0.5) for i in (0, 1, 5)])
    assert compared(tmp_path) == []


def test_variants_of_one_algorithm_are_never_averaged_together(tmp_path):
    for rate in (0.1, 0.4):
        make_run(tmp_path, "alpha", 0, 0.5 + rate, inner_lr=rate, run_id=f"r{rate}")
    make_run(tmp_path, "beta", device="cuda", device_name="GPU")
    members = arms(load_runs(tmp_path))
    assert [arm.label for arm in members] == [
        "alpha (inner_lr=0.1, device=cpu)",
        "alpha (inner_lr=0.4, device=cpu)",
        "beta (device=cuda)",
    ]
    assert [len(arm.ok) for arm in members] == [1, 1, 1]
    assert "times and memory of different devices" in (reported(tmp_path) / "summary.md").read_text().lower()


def test_hyperparameters_outside_the_columns_tell_variants_apart_too(tmp_path):
    for tail in (True, False):
        row = make_row("alpha", run_id=f"tail-{tail}")
        write_run(tmp_path / "runs" / row.run_id, row, {"hyperparameters": {"tail": tail, "same": 1}}, [], [], [])
    assert [arm.label for arm in arms(load_runs(tmp_path))] == ["alpha (tail=False)", "alpha (tail=True)"]


def test_settings_that_differ_in_more_than_the_episode_say_so(tmp_path):
    make_run(tmp_path, run_id="a")
    make_run(tmp_path, run_id="b", eval_k_query=1)
    make_run(tmp_path, run_id="c", k_shot=5)
    assert [arm.place for arm in arms(load_runs(tmp_path))] == [
        "5-way 1-shot (eval_k_query=1)",
        "5-way 1-shot (eval_k_query=9)",
        "5-way 5-shot",
    ]


def test_a_run_that_failed_early_is_counted_with_its_algorithm(tmp_path):
    make_run(tmp_path, "alpha", 0)
    make_run(tmp_path, "alpha", 1, status="failed", device_name=None, data_sha256=None, eval_k_query=None, threads=None)
    (arm,) = arms(load_runs(tmp_path))
    assert (len(arm.ok), len(arm.runs)) == (1, 2)
    assert "  1 failed" in comparison_table(load(tmp_path))


def test_means_intervals_and_spread_over_seeds_on_paper(tmp_path):
    for seed, (accuracy, half) in enumerate(((0.5, 0.03), (0.7, 0.04))):
        make_run(tmp_path, seed=seed, test_acc=accuracy, test_acc_ci95=half)
    (arm,) = arms(load_runs(tmp_path))
    assert arm.mean("test_acc") == pytest.approx(0.6)
    assert arm.ci95("test_acc") == pytest.approx(0.025)  # sqrt(0.03^2 + 0.04^2) / 2
    assert arm.sd("test_acc") == pytest.approx(0.2 / math.sqrt(2))
    text = (reported(tmp_path) / "summary.md").read_text()
    assert "0.6000 ± 0.0250" in text
    assert "0.1414" in text


def test_the_summary_says_on_what_and_how_fairly(grid):
    text = (reported(grid) / "summary.md").read_text()
    assert text.startswith("# Comparison on glyphs, protocol quick\n")
    assert re.search(r"\*\*All results here are on glyphs\..*published ones included\.\*\*", text)
    assert text.count("Identical training tasks for all, 3,200 in each run (sha256 02818db3dbaf for seed 0") == 2
    assert "gamma better" in text
    for section in ("Accuracy on meta-test", "Paired differences", "Cost", "adaptation step", "Environment", "Plots"):
        assert re.search(f"^## .*{section}", text, re.MULTILINE)
    assert r"=out of \`memory\` \| &lt;b&gt; more" in text
    assert "run_bench.py" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_the_summary_admits_unequal_training(tmp_path):
    make_run(tmp_path, "a")
    make_run(tmp_path, "b", stream_sha256="0" * 64)
    assert "**Training tasks differ** although" in (reported(tmp_path) / "summary.md").read_text()
    make_run(tmp_path, "c", tasks_seen=6400)
    text = (reported(tmp_path) / "summary.md").read_text()
    assert "**Training budgets differ.** Tasks seen: a 3,200; b 3,200; c 6,400." in text
    assert "Identical" not in text


def test_the_summary_claims_identical_tasks_only_for_shared_seeds(tmp_path):
    make_run(tmp_path, "a", 0)
    make_run(tmp_path, "b", 1)
    assert "**No seed in common**" in (reported(tmp_path) / "summary.md").read_text()
    make_run(tmp_path, "b", 0)
    text = (reported(tmp_path) / "summary.md").read_text()
    assert "Identical training tasks" in text
    assert "**Other seeds were not run for all.**" in text


@pytest.mark.parametrize(
    ("algo", "hyper", "told"),
    [
        ("r2d2", {"ridge": 0.25, "scale": 10.0, "embedding": 64}, "ridge 0.25, scale 10"),  # both are searched
        ("maml", {"inner_lr": 0.4, "inner_momentum": 0.9, "inner_clip": 2.0}, "inner_clip 2"),
        ("gone", {"knob": "a|b", "inner_lr": 0.4}, "knob a\\|b"),  # its class is not here
        ("maml", {"inner_lr": 0.4}, "-"),
        ("maml", None, "-"),
    ],
)
def test_settings_that_no_column_holds_are_told_where_they_matter(algo, hyper, told, tmp_path):
    make_run(tmp_path, algo)
    (run,) = load_runs(tmp_path)
    run = dataclasses.replace(run, details={"config": {"hyperparameters": hyper}})
    assert own_settings(run, ("inner_lr",)) == told


def test_settings_that_a_search_found_are_told_with_the_digits_that_matter(tmp_path):
    make_run(tmp_path, "a", inner_lr=0.09640465109586802, meta_lr=2.0)
    text = (reported(tmp_path) / "summary.md").read_text()
    assert "0.0964 " in text
    assert "0.09640465" not in text


def test_what_does_not_adapt_by_steps_has_none_in_the_table(tmp_path):
    make_run(tmp_path, "metric", inner_steps=None, inner_lr=None, eval_inner_steps=10)
    (row,) = re.findall(r"^\| metric +\|.*", (reported(tmp_path) / "summary.md").read_text(), re.M)[:1]
    assert [cell.strip() for cell in row.split("|")][2:6:3] == ["-", "-"]


def test_algorithms_for_which_a_protocol_chooses_nothing_are_named(tmp_path):
    for algo in ("maml", "protonet", "anil"):
        make_run(tmp_path, algo, protocol="quick")
    text = (reported(tmp_path) / "summary.md").read_text()
    assert "- Protocol quick sets nothing for anil and protonet: they run on defaults.\n" in text


def test_several_data_sets_are_never_mixed(tmp_path):
    for dataset in ("glyphs", "omniglot"):
        for algo in ("a", "b"):
            make_run(tmp_path, algo, dataset=dataset, run_id=f"{dataset}-{algo}")
    text = (reported(tmp_path) / "summary.md").read_text()
    assert text.startswith("# Comparison on glyphs, protocol quick; omniglot, protocol quick\n")
    assert "### glyphs, quick: 5-way 1-shot" in text
    assert "### omniglot, quick: 5-way 1-shot" in text
    assert [c.dataset for c in compared(tmp_path)] == ["glyphs"] * 2 + ["omniglot"] * 2
    assert re.search(
        r"^glyphs, protocol quick\n(.*\n)+\nomniglot, protocol quick$", comparison_table(load(tmp_path)), re.M
    )


@pytest.mark.parametrize(
    ("diff", "p", "seeds", "over_seeds", "words"),
    [
        (0.1, 0.06, (0.1, 0.11, 0.1), (0.001, 0.006), "no difference shown"),
        (0.1, 0.04, (0.1, 0.11, 0.1), (0.001, 0.049), "a better"),
        (-0.1, 0.04, (-0.1, -0.11, -0.1), (0.001, 0.049), "b better"),
        (0.1, 0.04, (0.1, 0.11, 0.1), (0.04, 0.05), "a better with these 3 seeds; not over seeds after correction"),
        (0.1, 0.04, (0.1, 0.2, 0.1), (0.05, 0.06), "a better with these 3 seeds; the interval over seeds includes 0"),
        (-0.1, 0.04, (-0.1, -0.1, -0.1), (None, None), "b better with these 3 seeds; their spread is not known"),
        (0.1, 0.04, (0.1,), (None, None), "a scores higher on these test tasks (one training each)"),
        (0.1, 0.04, (0.1, 0.11), (0.001, 0.049), "a scores higher on these test tasks (two trainings each)"),
        (
            *(0.1, 0.04, (0.3, -0.1), (0.6, 0.6)),
            "a scores higher on these test tasks (two trainings each, which disagree)",
        ),
        (0.1, 0.04, (0.3, 0.2, -0.1), (0.6, 0.6), "a better on average, seeds disagree"),
        (0.1, 0.04, (0.2, 0.1, 0.0), (0.001, 0.001), "a better on average, seeds disagree"),
        (0.0, math.nan, (0.0,), (None, None), "no difference shown"),
    ],
)
def test_verdicts(tmp_path, diff, p, seeds, over_seeds, words):
    make_run(tmp_path, "a", tasks=5)
    make_run(tmp_path, "b", tasks=5)
    made = {"diff": diff, "p_value_holm": p, "seed_diffs": seeds, "seeds": len(seeds)}
    made |= dict(zip(("seed_p_value", "seed_p_value_holm"), over_seeds))
    assert dataclasses.replace(compared(tmp_path)[0], **made).verdict == words


def test_it_works_without_runs_with_one_and_with_failures_only(tmp_path):
    write_report(tmp_path)
    assert (tmp_path / "summary.csv").read_text() == ",".join(SummaryRow.columns()) + "\n"
    assert "No run has finished yet." in (tmp_path / "summary.md").read_text()
    assert comparison_table(results_of([])) == "no finished run"
    make_run(tmp_path, status="failed", error="boom")
    text = (reported(tmp_path) / "summary.md").read_text()
    assert "boom" in text
    assert "glyphs" in text
    make_run(tmp_path, seed=1)
    write_report(tmp_path)
    assert "nothing to compare it with" in (tmp_path / "summary.md").read_text()
    assert len((tmp_path / "comparisons.csv").read_text().splitlines()) == 1
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.glob("plots/*.png"))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [
            *("runs", "locks", "plots", "summary.csv", "curves.csv", "comparisons.csv", "summary.md"),
            *("time_to_accuracy.csv", "anchors.csv", "summary.tex", "report.html"),
            *("summary.json", "curves.json", "comparisons.json", "time_to_accuracy.json", "anchors.json"),
        ]
    )


def test_damage_is_reported_in_the_log_in_the_summary_and_to_the_caller(grid, caplog):
    (grid / "runs" / "alpha-5-0" / "run.json").write_text("{")
    (grid / "runs" / "beta-5-0" / "curve.csv").write_text("half a li")
    with caplog.at_level(logging.WARNING, "bench"):
        results = write_report(grid)
    assert len(results.problems) == len(caplog.records) == 2
    assert "alpha-5-0/run.json" in results.problems[0]
    text = (grid / "summary.md").read_text()
    assert "beta-5-0/curve.csv" in text
    assert len(table(grid / "summary.csv")) == 18


@pytest.mark.parametrize("columns", [60, 80, 100, 300])
def test_the_terminal_table_fits_and_has_a_line_per_algorithm_and_setting(grid, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    make_run(grid, "an_algorithm_with_a_name_that_goes_on_and_on_for_ever", 0, 0.7, 60, inner_steps=3)
    text = comparison_table(load(grid))
    assert max(map(len, text.splitlines())) <= max(min(columns, 100), 68)
    text = text[: text.index("\n\n5-way 1-shot, plain: ")]  # without the verdicts
    assert max(map(len, text.splitlines())) <= max(min(columns, 100), 68)
    assert "glyphs, protocol quick" in text
    assert len(re.findall(r"^\d+-way \d-shot:$", text, re.MULTILINE)) == 2
    line = re.findall("^gamma .*", text, re.MULTILINE)[0]
    if columns > 80:
        assert re.search(r" 3  0\.8\d{3} ± 0\.00\d\d  0\.8\d{3} ± 0\.00\d\d +184 +420 +630  1 oom$", line)
    assert len(re.findall(r"^\w.* ± |^an_algorithm_\w+$", text, re.MULTILINE)) == 7


@pytest.mark.uncounted
def test_reports_repeat_to_the_byte(grid):
    def content():
        return {path: path.read_bytes() for path in grid.rglob("*") if path.is_file()}

    write_report(grid)
    first = content()
    write_report(grid)
    assert content() == first


def test_numbers_and_names_as_people_read_them():
    assert [number(x) for x in (0.0, 0.00123, 0.456, 12.34, 1234.5, -3.21, None, math.nan)] == (
        ["0.00", "0.00123", "0.456", "12.3", "1,234", "-3.21", "-", "-"]
    )
    assert plus_minus(0.94123, 0.0042) == "0.9412 ± 0.0042"
    assert (plus_minus(0.5, math.nan), plus_minus(math.nan, 0.1)) == ("0.5000", "-")
    assert escape("a|b <i> `c`\n[d](e) *f* &amp; g_h _i_") == (
        r"a\|b &lt;i&gt; \`c\` \[d\](e) \*f\* &amp;amp; g_h \_i\_"
    )


def test_commands_cannot_leave_their_code_block(tmp_path):
    row = make_row(run_id="a")
    write_run(tmp_path / "runs" / "a", row, {"command": ["run_bench.py", "--out", "a b```"]}, [], [], [])
    text = (reported(tmp_path) / "summary.md").read_text()
    assert "````\nrun_bench.py --out 'a b```'\n````" in text


def test_of_two_runs_with_one_seed_the_later_counts(tmp_path):
    make_run(tmp_path, run_id="z", started_at="2026-01-01", test_acc=0.1)
    make_run(tmp_path, run_id="a", started_at="2026-01-02", test_acc=0.9)
    (arm,) = arms(load_runs(tmp_path))
    assert arm.values("test_acc") == [0.9]
    assert np.isnan(arm.sd("test_acc"))


def test_a_run_that_died_before_its_data_was_known_stands_beside_one_of_another_setting(tmp_path):
    make_run(tmp_path, tasks=3)
    make_run(tmp_path, tasks=3, k_query=5, status="failed", data_sha256=None, run_id="early")
    write_report(tmp_path)
    assert "early" in (tmp_path / "summary.md").read_text()


def test_the_protocols_deviations_are_listed_with_its_runs(tmp_path):
    make_run(tmp_path, tasks=3, protocol="quick")
    write_report(tmp_path)
    assert "Deviations" not in (tmp_path / "summary.md").read_text()
    make_run(tmp_path, tasks=3, protocol="paper", run_id="p")
    write_report(tmp_path)
    text = (tmp_path / "summary.md").read_text()
    assert text.count("## Deviations from the papers") == 1
    assert all(f"- {escape(line)}" in text for line in load_protocol("paper").deviations)


@pytest.mark.parametrize("status", ["failed", "diverged", "oom", "leaking", "interrupted"])
def test_no_word_of_the_terminals_note_is_broken(status, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    make_run(tmp_path, "algorithm-of-some-length", 0, train_s=12345.6, beside=2)
    make_run(tmp_path, "algorithm-of-some-length", 1, status=status)
    table = comparison_table(load(tmp_path))
    assert status in table.replace(",", " ").split()
    assert max(map(len, table.splitlines())) <= 80


def test_times_measured_beside_other_runs_are_marked(tmp_path):
    """Of two seeds one was made beside others: their mean is marked, and so is the line in the terminal."""
    make_run(tmp_path, "alone", beside=0)
    make_run(tmp_path, "beside", seed=0, beside=0)
    make_run(tmp_path, "beside", seed=1, beside=3)
    make_run(tmp_path, "earlier")  # a version that did not look
    text = (reported(tmp_path) / "summary.md").read_text()
    cost = text[text.index("## Cost") : text.index("## Accuracy after")]
    marked = [line for line in cost.splitlines() if line.startswith("| ") and "\\*" in line]
    assert [line.split()[1] for line in marked] == ["beside"]
    assert marked[0].count("\\*") == 6
    assert "Times marked \\* were measured beside other runs on the same machine, up to 3 at once" in cost
    lines = comparison_table(load(tmp_path)).splitlines()
    assert [line.split()[0] for line in lines if line.endswith("beside 3")] == ["beside"]


def test_times_measured_beside_other_work_are_marked_alike(tmp_path):
    """From a quarter of a core on: less is a machine's own life."""
    make_run(tmp_path, "quiet", load=0.24)
    make_run(tmp_path, "busy", seed=0, load=0.0)
    make_run(tmp_path, "busy", seed=1, load=1.26)
    make_run(tmp_path, "both", load=0.25, beside=1)
    text = (reported(tmp_path) / "summary.md").read_text()
    cost = text[text.index("## Cost") : text.index("## Accuracy after")]
    marked = [line for line in cost.splitlines() if line.startswith("| ") and "\\*" in line]
    assert [line.split()[1] for line in marked] == ["both", "busy"]
    assert "up to 1 at once and others' work, on up to 1.3 of its cores on average: they say" in cost
    lines = comparison_table(load(tmp_path)).splitlines()
    assert [line.split()[0] for line in lines if line.endswith("load 1.3")] == ["busy"]
    assert "load N: timed while others used up to N cores of this machine on average" in lines


def test_nothing_is_marked_where_all_runs_were_alone(tmp_path):
    make_run(tmp_path, "alone", beside=0, load=0.2)
    make_run(tmp_path, "earlier")
    assert "Times marked" not in (reported(tmp_path) / "summary.md").read_text()
    assert "beside" not in comparison_table(load(tmp_path))
