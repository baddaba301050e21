"""JSON for strict readers, and a LaTeX table whose bold says what the statistics bear out."""

import dataclasses
import json
import math
import re

import pytest
from made_runs import make_run
from pylatexenc.latexwalker import LatexWalker

from bench.analysis.comparison import arms, compare
from bench.records.run import load_runs
from bench.report.exports import as_json, escape, latex, leader


def test_what_json_cannot_hold_is_null():
    rows = [{"a": math.nan, "b": math.inf, "c": None, "d": 2**53 + 1, "e": 0.1, "f": 'é\n"', "g": True}]
    text = as_json(rows, tuple("abcdefg"))
    (row,) = json.loads(text, parse_constant=pytest.fail)
    assert row == {"a": None, "b": None, "c": None, "d": 2**53 + 1, "e": 0.1, "f": 'é\n"', "g": True}
    assert json.loads(as_json([], ("a",))) == []


def grid(out, levels, seeds):
    for algo, level in levels.items():
        for seed in range(seeds):
            make_run(out, algo, seed, level, 200)
    found = arms(load_runs(out))
    return found, compare(found)


def bold(text):
    return re.findall(r"^(\S+).*\\mathbf", text, re.MULTILINE)


def test_the_best_is_bold_where_seeds_and_tasks_say_so(tmp_path):
    text = latex(*grid(tmp_path, {"low": 0.5, "mid": 0.6, "high": 0.8}, 3))
    assert bold(text) == ["high"]
    assert text.count("mathbf") == 2  # both modes


def test_nothing_is_bold_where_the_best_two_are_alike_or_there_is_one_seed(tmp_path):
    assert bold(latex(*grid(tmp_path / "alike", {"low": 0.5, "a": 0.8, "b": 0.8}, 3))) == []
    assert bold(latex(*grid(tmp_path / "one", {"low": 0.5, "high": 0.8}, 1))) == []


def test_nobody_leads_whom_one_other_could_not_be_compared_with(tmp_path):
    found, comparisons = grid(tmp_path, {"low": 0.5, "mid": 0.6, "high": 0.8}, 1)
    assert leader(found, comparisons, "plain", lambda c: True) == "high"
    some = [c for c in comparisons if {c.algo_a, c.algo_b} != {"mid", "high"}]
    assert leader(found, some, "plain", lambda c: True) == ""
    assert leader(found[:1], comparisons, "plain", lambda c: True) == ""


def test_the_table_parses_as_latex_whatever_names_hold(tmp_path):
    found, comparisons = grid(tmp_path, {"low": 0.5, "high": 0.8}, 1)
    nasty = dataclasses.replace(found[0], label=r"a_b & 50% {x} \cmd ~^#$ <é>")
    text = latex([nasty, *found[1:]], comparisons)
    nodes, *_ = LatexWalker(text, tolerant_parsing=False).get_latex_nodes()
    (tabular,) = [n for n in nodes if getattr(n, "environmentname", "") == "tabular"]
    rows = [line for line in text.splitlines() if line.endswith(r" \\") and "multicolumn" not in line]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [6, 6, 6]
    assert escape("a_b & é\n") == r"a\_b \& ?"
    assert text.index(r"\toprule") < text.index(r"\midrule") < text.index(r"\bottomrule")
    assert tabular.latex_verbatim().startswith(r"\begin{tabular}")


def test_the_name_of_a_setting_makes_the_table_no_wider(tmp_path):
    for backbone in ("conv4", "conv4 (padding=same, norm=shift, norm_eps=0.001, head=mean, head_std=1.0)"):
        make_run(tmp_path, tasks=3, backbone=backbone, k_query=len(backbone), run_id=str(len(backbone)))
    found = arms(load_runs(tmp_path))
    titles = re.findall(r"\\multicolumn\{7\}\{l\}\{(.*)\} ", latex(found, []))
    assert len(titles) > 2
    assert all(len(title.replace("\\", "")) <= 80 for title in titles)
    assert "".join(titles).count("norm\\_eps=0.001") == 1
