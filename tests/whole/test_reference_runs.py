"""From the committed runs' task by task accuracies to every number of the committed tables, by independent code."""

from __future__ import annotations

import csv
import itertools
import math
import subprocess

import numpy as np
import pytest
from made_runs import make_run
from places import REPOSITORY
from reference_stats import exact_sign_flip_p, paired_interval, step_down
from scipy import stats

from bench.analysis.comparison import Comparison
from bench.analysis.results import results_of
from bench.records.run import load_runs
from bench.report.words.summary import summary_md
from bench.system.csvfile import write_csv

QUICK = REPOSITORY / "results" / "reference" / "quick-cpu"
MODES = {"plain": "acc", "transductive": "acc_transductive"}


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tasks_of(out, rows):
    """Accuracies by algorithm, mode and seed, from test_tasks.csv alone."""
    found = {}
    for row in rows:
        lines = table(out / "runs" / row["run_id"] / "test_tasks.csv")
        assert [int(line["task"]) for line in lines] == list(range(len(lines)))
        for mode, column in MODES.items():
            accuracies = np.array([float(line[column]) for line in lines])
            found.setdefault((row["algo"], mode), {})[int(row["seed"])] = accuracies
    return found


def words(row, means):
    """The verdict that the cells of a row and the mean difference of every seed ask for."""
    if float(row["p_value_holm"]) >= 0.05:
        return "no difference shown"
    better = row["algo_a"] if float(row["diff"]) > 0 else row["algo_b"]
    if len(means) == 1:
        return f"{better} scores higher on these test tasks (one training each)"
    if min(means) <= 0 <= max(means):
        return f"{better} better on average, seeds disagree"
    if float(row["seed_p_value_holm"]) < 0.05:
        return f"{better} better"
    includes = float(row["seed_ci95_low"]) <= 0 <= float(row["seed_ci95_high"])
    reason = "the interval over seeds includes 0" if includes else "not over seeds after correction"
    return f"{better} better with these {len(means)} seeds; {reason}"


def check_comparisons(rows, accuracies, unit):
    """Compare every cell of comparisons.csv with what the accuracies say."""
    for row in rows:
        a, b = (accuracies[row[name], row["mode"]] for name in ("algo_a", "algo_b"))
        seeds = sorted(a.keys() & b.keys())
        x, y = np.concatenate([a[s] for s in seeds]), np.concatenate([b[s] for s in seeds])
        got = {name: float(row[name]) for name in ("diff", "ci95_low", "ci95_high", "p_value")}
        assert got["diff"] == pytest.approx(x.mean() - y.mean(), abs=1e-14)
        assert (got["ci95_low"], got["ci95_high"]) == pytest.approx(paired_interval(x, y), abs=1e-13)
        p = exact_sign_flip_p(x, y, unit)
        assert got["p_value"] == pytest.approx(p, rel=1e-9, abs=2e-12)
        assert row["p_method"] == "exact"
        assert (int(row["test_tasks"]), int(row["seeds"])) == (len(x), len(seeds))
        names = ("seed_diff_sd", "seed_ci95_low", "seed_ci95_high", "seed_p_value")
        means = [float(np.mean(a[s] - b[s])) for s in seeds]
        assert row["verdict"] == words(row, means)
        if len(seeds) == 1:
            assert [row[name] for name in (*names, "seed_p_value_holm")] == [""] * 5
            continue
        test = stats.ttest_1samp(means, 0)
        expected = (np.std(means, ddof=1), *test.confidence_interval(0.95), test.pvalue)
        assert [float(row[name]) for name in names] == pytest.approx(list(map(float, expected)), rel=1e-9, abs=1e-14)
    for raw, corrected in (("p_value", "p_value_holm"), ("seed_p_value", "seed_p_value_holm")):
        given = [float(row[raw]) for row in rows if row[raw]]
        assert [float(row[corrected]) for row in rows if row[raw]] == pytest.approx(step_down(given), rel=1e-13)


@pytest.fixture(scope="module")
def summary_rows():
    return table(QUICK / "summary.csv")


def test_accuracies_and_intervals_of_the_summary(summary_rows):
    assert len(summary_rows) == 3
    accuracies = tasks_of(QUICK, summary_rows)
    for row in summary_rows:
        for mode, column in MODES.items():
            x = accuracies[row["algo"], mode][int(row["seed"])]
            assert len(x) == int(row["test_tasks"])
            assert float(row[f"test_{column}"]) == pytest.approx(math.fsum(x) / len(x), rel=1e-14)
            variance = math.fsum((x - math.fsum(x) / len(x)) ** 2) / (len(x) - 1)
            assert float(row[f"test_{column}_ci95"]) == pytest.approx(1.96 * math.sqrt(variance / len(x)), rel=1e-12)


def test_every_cell_of_the_comparisons(summary_rows):
    rows = table(QUICK / "comparisons.csv")
    names = sorted(row["algo"] for row in summary_rows)
    pairs = {(*pair, mode) for pair in itertools.combinations(names, 2) for mode in MODES}
    assert {(row["algo_a"], row["algo_b"], row["mode"]) for row in rows} == pairs
    check_comparisons(rows, tasks_of(QUICK, summary_rows), 1 / 5)


def check_page(text, rows):
    """Compare the table of summary.md, cell by cell, with comparisons.csv, whose verdicts it repeats."""
    section = text[text.index("## Paired differences") : text.index("## Cost")]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line]
    head = next(line for line in lines if line[0] == "A - B")
    shown = {(line[0], line[1]): dict(zip(head, line)) for line in lines}

    def interval(low, high):
        return f"{float(row[low]):+.4f} to {float(row[high]):+.4f}" if row[low] else "-"

    def p_values(*names):
        return [f"{float(row[name]):.2g}" if row[name] else "-" for name in names]

    for row in rows:
        expected = {"A - B": f"{row['algo_a']} - {row['algo_b']}", "mode": row["mode"], "verdict": row["verdict"]}
        expected |= {"difference": f"{float(row['diff']):+.4f}", "95% interval": interval("ci95_low", "ci95_high")}
        expected |= dict(zip(("p", "p (Holm)"), p_values("p_value", "p_value_holm")))
        if any(other["seed_p_value"] for other in rows):
            expected["95% interval over seeds"] = interval("seed_ci95_low", "seed_ci95_high")
            over_seeds = p_values("seed_p_value", "seed_p_value_holm")
            expected |= dict(zip(("p over seeds", "p over seeds (Holm)"), over_seeds))
        expected |= {"pairs": f"{int(row['test_tasks']):,}", "seeds": row["seeds"]}
        assert shown[expected["A - B"], row["mode"]] == expected


def test_the_page_says_what_the_table_says():
    check_page((QUICK / "summary.md").read_text(encoding="utf-8"), table(QUICK / "comparisons.csv"))


def test_time_to_accuracy_follows_from_the_curves(summary_rows):
    rows = table(QUICK / "time_to_accuracy.csv")
    assert len(rows) == 4 * len(summary_rows)
    for row in rows:
        curve = table(QUICK / "runs" / row["run_id"] / "curve.csv")
        there = [point for point in curve if round(float(point["val_acc"]), 9) >= float(row["threshold"])]
        assert row["reached"] == str(int(bool(there)))
        first = there[0] if there else dict.fromkeys(("meta_step", "tasks_seen", "train_s"), "")
        assert [row[name] for name in ("meta_step", "tasks_seen", "train_s")] == (
            [first[name] for name in ("meta_step", "tasks_seen", "train_s")]
        )
        assert float(row["best_val_acc"]) == max(float(point["val_acc"]) for point in curve)


def test_comparisons_of_several_seeds_too(tmp_path):
    """Made-up runs of three algorithms; the last lacks a seed, so that the shared ones differ by pair."""
    for i, algo in enumerate(("alpha", "beta", "gamma")):
        for seed in range(4 - (i == 2)):
            make_run(tmp_path, algo, seed, 0.85 + 0.012 * i, 120, run_id=f"{algo}-{seed}", eval_k_query=9)
    runs = load_runs(tmp_path)
    results = results_of(runs)
    write_csv(tmp_path / "comparisons.csv", results.comparisons, Comparison.COLUMNS)
    rows = table(tmp_path / "comparisons.csv")
    assert {row["seeds"] for row in rows} == {"3", "4"}
    check_comparisons(rows, tasks_of(tmp_path, [vars(run.row) for run in runs]), 1 / 45)
    check_page(summary_md(results)["summary.md"].decode(), rows)
    assert len({row["verdict"] for row in rows}) > 1


def test_no_images_or_checkpoints_are_committed():
    """Omniglot's images are not ours to pass on: neither as caches nor as example tasks."""
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert [name for name in listed.stdout.splitlines() if name.endswith((".npz", ".zip", ".pt"))] == []
