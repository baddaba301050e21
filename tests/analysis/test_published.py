"""Published values beside ours: the numbers themselves, the rule, and that no cell looks fairer than it is."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re

import pytest
from made_runs import make_run, reported

from bench.analysis.arms import arms
from bench.analysis.outcomes import published_sentences
from bench.analysis.published import ANCHOR_COLUMNS, KINDS, Anchor, beside, load_anchors
from bench.analysis.results import load
from bench.records.columns import MODES
from bench.records.run import load_runs, write_run
from bench.report.words.published import published
from bench.report.words.terminal import comparison_table
from bench.report.write import write_report
from bench.settings.protocols import load_protocol, resolve

SETTINGS = ((5, 1), (5, 5), (20, 1), (20, 5))
# Typed from the notes on the table, not from the data file: percent and +-, by setting.
TABLE = {
    ("anchor", "maml", "transductive"): "98.7 0.4  99.9 0.1  95.8 0.3  98.9 0.2",
    ("anchor", "fomaml", "transductive"): "98.3 0.5  99.2 0.2  89.4 0.5  97.9 0.1",
    ("anchor", "reptile", "plain"): "95.39 0.09  98.90 0.10  88.14 0.15  96.65 0.33",
    ("anchor", "reptile", "transductive"): "97.68 0.04  99.48 0.06  89.43 0.14  97.12 0.32",
    ("older", "reptile", "plain"): "95.32 0.05  98.87 0.02  88.27 0.30  97.07 0.12",
    ("older", "reptile", "transductive"): "97.97 0.08  99.47 0.04  89.36 0.20  97.47 0.10",
}
CONTEXT = {
    "MAML++": (99.47, 99.85, 97.65, 99.33),
    "MAML++, as a user got it": (None, None, 96.65, None),
    "learn2learn MAML, CNN": (99.1, None, None, None),
    "learn2learn MAML, fully connected": (88.9, None, None, None),
    "learn2learn Reptile, CNN": (None, 99.5, None, None),
    "tristandeleu/pytorch-maml": (99.6, 99.9, None, None),
    "katerakelly's port of MAML": (98.9, None, 92, None),
    "potsawee/maml": (94.7, 98.8, 83.4, 94.1),
    "haebeom-lee/maml, first order": (98.0, None, 94.5, None),
    "iMAML, gradient descent": (99.16, 99.67, 94.46, 98.69),
    "iMAML, Hessian-free": (99.50, 99.74, 96.18, 99.14),
}


def test_every_value_of_the_table_is_there_as_printed():
    found = {(a.kind, a.algo, a.mode, a.n_way, a.k_shot): a for a in load_anchors() if a.kind != "context"}
    assert len(found) == 24
    for key, text in TABLE.items():
        numbers = list(map(float, text.split()))
        for (n_way, k_shot), percent, plus_minus in zip(SETTINGS, numbers[::2], numbers[1::2]):
            anchor = found[(*key, n_way, k_shot)]
            assert 100 * anchor.published == pytest.approx(percent, abs=1e-9)
            assert 100 * anchor.published_pm == pytest.approx(plus_minus, abs=1e-9)
            assert (anchor.dataset, anchor.protocol) == ("omniglot", "paper")
            assert anchor.arxiv == ("1703.03400" if key[1] == "maml" else "1803.02999")
            assert "[N]" in anchor.source
            assert (anchor.version == "v1") == (anchor.kind == "older")


def test_the_context_is_as_reported():
    found = {}
    for a in load_anchors():
        if a.kind == "context":
            found.setdefault(a.system, {})[a.n_way, a.k_shot] = a.published
    expected = {
        system: {setting: value / 100 for setting, value in zip(SETTINGS, values) if value is not None}
        for system, values in CONTEXT.items()
    }
    assert found.keys() == expected.keys()
    for system, cells in expected.items():
        assert found[system] == pytest.approx(cells)


def test_published_budgets_are_those_of_the_protocol_that_reproduces_them():
    """60,000 of 32 (20-way: 16) tasks; Reptile 100,000 and 200,000 of 5; every anchor is of a mode that is measured."""
    for anchor in (a for a in load_anchors() if a.kind == "anchor"):
        identity = {"algo": anchor.algo, "dataset": "omniglot", "n_way": anchor.n_way, "k_shot": anchor.k_shot}
        config = resolve(load_protocol("paper"), identity | {"seed": 0, "device": "cpu", "threads": 1}, {}, [])
        assert (anchor.published_meta_steps, anchor.published_meta_batch) == (config.meta_steps, config.meta_batch)
        expected = {5: 100_000, 20: 200_000}[anchor.n_way] if anchor.algo == "reptile" else 60_000
        assert anchor.published_meta_steps == expected
        assert anchor.mode in MODES


@pytest.mark.parametrize("change", [{"kind": "other"}, {"mode": "both"}, {"algo": None}, {"published_pm": None}])
def test_a_row_that_cannot_be_judged_by_is_refused(change):
    anchor = next(a for a in load_anchors() if a.kind == KINDS[0])
    with pytest.raises(ValueError, match=re.escape(anchor.system)):
        Anchor(**(dataclasses.asdict(anchor) | change))


def paper_run(out, algo="maml", seed=0, accuracy=0.98, meta_steps=60_000, settings=None, **changes):
    """A run whose recorded configuration is what protocol paper resolves to, but for ``settings``."""
    row = {"n_way": 5, "k_shot": 1, "dataset": "omniglot", "protocol": "paper"} | changes
    identity = {"algo": algo, "seed": seed, "device": "cpu", "threads": 2}
    identity |= {name: row[name] for name in ("n_way", "k_shot", "dataset")}
    config = dataclasses.asdict(resolve(load_protocol("paper"), identity, {"meta_steps": meta_steps}, []))
    hyper, options = config["hyperparameters"], config["backbone_options"]
    for name, value in (settings or {}).items():
        next((part for part in (hyper, options) if name in part), config)[name] = value
    row |= {"k_query": config["k_query"], "eval_k_query": config["eval_k_query"], "inner_lr": hyper["inner_lr"]}
    name = f"{algo}-{row['n_way']}-{row['k_shot']}-{seed}-{len(list(out.glob('runs/*')))}"
    scores = dict.fromkeys(("test_acc", "test_acc_transductive"), accuracy)
    made = make_run(out, algo, seed, tasks=3, meta_steps=meta_steps, run_id=name, **(scores | row))
    if made.status == "ok":
        (out / "runs" / name / "run.json").unlink()
        write_run(out / "runs" / name, made, {"config": config, "hyperparameters": hyper}, [], [], [])


def lines_of(out, algo="maml", mode="transductive", n_way=5, k_shot=1):
    key = (algo, mode, n_way, k_shot, "anchor")
    found = beside(load_anchors(), arms(load_runs(out)))
    return [x for x in found if (x.anchor.algo, x.anchor.mode, x.anchor.n_way, x.anchor.k_shot, x.anchor.kind) == key]


@pytest.mark.parametrize(
    ("accuracies", "tolerance", "verdict"),
    [
        # 5-way 1-shot: 0.987 +- 0.004, so 0.009 unless the seeds scatter more
        ((0.978, 0.978, 0.978), 0.009, "reproduced"),
        ((0.996, 0.996, 0.996), 0.009, "reproduced"),
        ((0.9779, 0.9779, 0.9779), 0.009, "below"),
        ((0.9961, 0.9961, 0.9961), 0.009, "above"),
        # sd 0.01, standard error 0.01 / sqrt 3, twice that is 0.011547
        ((0.965, 0.975, 0.985), 0.011547 + 0.005, "reproduced"),
        ((0.960, 0.970, 0.980), 0.011547 + 0.005, "below"),
        ((0.980, 0.980), 0.009, "reproduced; 2 seeds"),
        ((0.970,), 0.009, "below; 1 seed"),
    ],
)
def test_the_rule_on_paper(tmp_path, accuracies, tolerance, verdict):
    for seed, accuracy in enumerate(accuracies):
        paper_run(tmp_path, seed=seed, accuracy=accuracy)
    (line,) = lines_of(tmp_path)
    assert line.tolerance == pytest.approx(tolerance, abs=1e-6)
    assert line.diff == pytest.approx(sum(accuracies) / len(accuracies) - 0.987)
    assert (line.verdict, line.seeds, line.departures) == (verdict, len(accuracies), "")


@pytest.mark.parametrize(("steps", "words"), [(20_000, "33%"), (120_000, "200%")])
def test_another_budget_is_in_the_words(tmp_path, steps, words):
    paper_run(tmp_path, accuracy=0.9, meta_steps=steps)
    (line,) = lines_of(tmp_path)
    assert line.verdict == f"below; 1 seed; {words} of the budget"
    assert f"{steps:,} of 60,000" in "".join(published([line]))


def test_settings_of_ones_own_are_named_and_counted_apart(tmp_path):
    for seed in range(3):
        paper_run(tmp_path, seed=seed, accuracy=0.987)
        paper_run(tmp_path, seed=seed, accuracy=0.9, settings={"inner_lr": 0.4, "precision": "tf32"})
    ours, other = sorted(lines_of(tmp_path), key=lambda line: -line.test_acc)
    assert (ours.verdict, ours.seeds) == ("reproduced", 3)
    assert other.verdict == "below; not the preset: precision=tf32 instead of float32, inner_lr=0.4 instead of 2.0"
    assert ours.label != other.label


def test_seeds_of_one_cell_count_together_whatever_machine_and_version_they_ran_on(tmp_path):
    for seed, name in enumerate(("H100", "H100", "H200")):
        paper_run(tmp_path, seed=seed, accuracy=0.987, device_name=name)
    (line,) = lines_of(tmp_path)
    assert (line.seeds, line.verdict, line.label) == (3, "reproduced; seeds of 2 machines", "maml")
    paper_run(tmp_path, seed=3, accuracy=0.987, device_name="H100", settings={"code": "edited"})
    (line,) = lines_of(tmp_path)
    assert line.seeds == 4
    assert line.verdict.endswith("seeds of 2 machines; of 2 versions of the algorithm's file")
    paper_run(tmp_path, seed=4, accuracy=0.9, meta_steps=20_000)
    assert sorted(line.seeds for line in lines_of(tmp_path)) == [1, 4], "another budget is another line"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"meta_lr": 0.01}, "meta_lr=0.01 instead of 0.001"),
        ({"head": "flatten"}, "head=flatten instead of mean"),
        ({"backbone": "mlp"}, "backbone=mlp instead of conv4"),
        ({"backbone_options": {}}, "padding not recorded"),
    ],
)
def test_a_single_arm_with_other_settings_is_not_taken_for_the_preset(tmp_path, settings, words):
    for seed in range(3):
        paper_run(tmp_path, seed=seed, accuracy=0.987, settings=settings)
    (line,) = lines_of(tmp_path)
    assert line.verdict.startswith("reproduced; not the preset: ")
    assert words in line.verdict


def test_technical_settings_are_no_departure(tmp_path):
    paper_run(tmp_path, settings={"task_chunk": 3, "kernels": "eager", "threads": 7, "val_points": 3, "code": "edited"})
    (line,) = lines_of(tmp_path)
    assert line.departures == ""


def test_a_setting_that_came_after_the_run_is_no_departure_where_the_preset_has_its_default(tmp_path):
    paper_run(tmp_path)
    folder = next(tmp_path.glob("runs/*"))
    record = json.loads((folder / "run.json").read_text())
    row = load_runs(tmp_path)[0].row
    for gone, words in (
        ("train_k_shot", ""),
        ("eval_inner_steps", "not the preset: eval_inner_steps=None instead of 3"),
    ):
        config = {name: value for name, value in record["config"].items() if name != gone}
        config["hyperparameters"] = {n: v for n, v in config["hyperparameters"].items() if n != gone}
        (folder / "run.json").unlink()
        write_run(folder, row, {"config": config, "hyperparameters": record["hyperparameters"]}, [], [], [])
        (line,) = lines_of(tmp_path)
        assert line.departures == words


def test_what_cannot_be_checked_says_so(tmp_path):
    make_run(
        tmp_path, "maml", dataset="omniglot", protocol="paper", meta_steps=60_000, tasks=3, test_acc_transductive=0.9
    )
    (line,) = lines_of(tmp_path)
    assert line.verdict == "below; 1 seed; preset not known"  # its configuration names hardly anything
    row = load_runs(tmp_path)[0].row
    write_run(tmp_path / "bare" / "runs" / row.run_id, row, {}, [], [], [])
    assert [line.verdict for line in lines_of(tmp_path / "bare")] == ["below; 1 seed; settings not recorded"]


def test_every_cell_is_listed_and_a_missing_one_says_so(tmp_path):
    paper_run(tmp_path, accuracy=0.987)
    paper_run(tmp_path, "reptile", 0, 0.9539, 100_000)
    paper_run(tmp_path, "maml", 0, n_way=20, status="diverged", error="x")
    found = beside(load_anchors(), arms(load_runs(tmp_path)))
    judged = [line for line in found if line.anchor.kind == "anchor"]
    assert len(judged) == 16
    words = {(x.anchor.algo, x.anchor.n_way, x.anchor.k_shot, x.anchor.mode): x.verdict for x in judged}
    assert words["maml", 5, 1, "transductive"] == "reproduced; 1 seed"
    assert words["reptile", 5, 1, "plain"] == "reproduced; 1 seed"
    assert words["reptile", 5, 1, "transductive"] == "below; 1 seed"
    assert words["maml", 20, 1, "transductive"] == "not run (1 failed)"
    assert sum(word == "not run" for word in words.values()) == 12
    assert all(line.verdict is None for line in found if line.anchor.kind != "anchor")


@pytest.mark.parametrize("change", [{"dataset": "glyphs"}, {"protocol": "matched"}])
@pytest.mark.usefixtures("blank_pictures")
def test_other_data_and_other_protocols_have_no_published_value(tmp_path, change):
    make_run(tmp_path, "maml", tasks=3, **({"dataset": "omniglot", "protocol": "paper"} | change))
    write_report(tmp_path)
    assert (tmp_path / "anchors.csv").read_text() == ",".join(ANCHOR_COLUMNS) + "\n"
    assert "## Published values" not in (tmp_path / "summary.md").read_text()


@pytest.mark.usefixtures("blank_pictures")
def test_the_file_and_the_page_say_the_same(tmp_path):
    for seed, accuracy in enumerate((0.981, 0.983)):
        paper_run(tmp_path, seed=seed, accuracy=accuracy, meta_steps=20_000)
    write_report(tmp_path)
    with (tmp_path / "anchors.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(load_anchors())
    (mine,) = (row for row in rows if row["test_acc"])
    assert float(mine["test_acc"]) == pytest.approx(0.982)
    assert float(mine["seed_sd"]) == pytest.approx(0.002 / math.sqrt(2))
    assert (mine["published"], mine["published_pm"], mine["published_meta_steps"]) == ("0.987", "0.004", "60000")
    text = (tmp_path / "summary.md").read_text()
    section = text[text.index("## Published values") : text.index("## Cost")]
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "_" not in line]
    (line,) = (cells for cells in shown if cells[0] == "maml" and cells[3] != "-" and len(cells) == 11)
    sd, diff, tolerance = (float(mine[name]) for name in ("seed_sd", "diff", "tolerance"))
    assert line[4:8] == ["0.9870 ± 0.0040", mine["verdict"], f"{diff:+.4f}", f"{tolerance:.4f}"]
    assert line[8:] == [f"{sd:.4f}", "2", "20,000 of 60,000"]
    assert mine["verdict"] == "reproduced; 2 seeds; 33% of the budget"


@pytest.mark.usefixtures("blank_pictures")
def test_what_is_published_stands_among_the_verdicts_and_on_the_terminal(tmp_path):
    for seed in range(3):
        paper_run(tmp_path, seed=seed, accuracy=0.985)
    paper_run(tmp_path, "fomaml", accuracy=0.9, meta_steps=6_000)
    paper_run(tmp_path, "reptile", accuracy=0.9, meta_steps=6_000)
    lines = beside(load_anchors(), arms(load_runs(tmp_path)))
    told = published_sentences(lines)
    assert len(told) == 4  # of the table's modes, one and one and two, and not of Reptile's older values
    maml = next(text for text in told if text.startswith("maml, 5-way 1-shot transductive: 0.9850 ± "))
    assert maml.endswith(", published 0.9870 ± 0.0040: reproduced.")
    assert "below; 1 seed; 10% of the budget" in next(text for text in told if text.startswith("fomaml"))
    shown = (reported(tmp_path) / "report.html").read_text(encoding="utf-8")
    assert shown.index("Against published values") < shown.index('id="results"')
    assert f"<li>{maml}</li>" in shown
    terminal = " ".join(comparison_table(load(tmp_path)).split())
    assert all(text in terminal for text in told)
