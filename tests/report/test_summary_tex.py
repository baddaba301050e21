"""A LaTeX table whose bold says what the statistics bear out."""

import dataclasses
import re

from made_runs import make_run
from pylatexenc.latexwalker import LatexWalker

from bench.analysis.results import results_of
from bench.records.run import load_runs
from bench.report.tables.summary_tex import escape, summary_tex


def latex(results):
    return summary_tex(results)["summary.tex"].decode()


def grid(out, levels, seeds):
    for algo, level in levels.items():
        for seed in range(seeds):
            make_run(out, algo, seed, level, 200)
    return results_of(load_runs(out))


def bold(text):
    return re.findall(r"^(\S+).*\\mathbf", text, re.MULTILINE)


def test_the_best_is_bold_where_seeds_and_tasks_say_so(tmp_path):
    text = latex(grid(tmp_path, {"low": 0.5, "mid": 0.6, "high": 0.8}, 3))
    assert bold(text) == ["high"]
    assert text.count("mathbf") == 2  # both modes


def test_nothing_is_bold_where_the_best_two_are_alike_or_there_is_one_seed(tmp_path):
    assert bold(latex(grid(tmp_path / "alike", {"low": 0.5, "a": 0.8, "b": 0.8}, 3))) == []
    assert bold(latex(grid(tmp_path / "one", {"low": 0.5, "high": 0.8}, 1))) == []


def test_the_table_parses_as_latex_whatever_names_hold(tmp_path):
    results = grid(tmp_path, {"low": 0.5, "high": 0.8}, 1)
    nasty = dataclasses.replace(results.arms[0], label=r"a_b & 50% {x} \cmd ~^#$ <é>")
    text = latex(dataclasses.replace(results, arms=(nasty, *results.arms[1:])))
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
    results = results_of(load_runs(tmp_path))
    titles = re.findall(r"\\multicolumn\{7\}\{l\}\{(.*)\} ", latex(results))
    assert len(titles) > 2
    assert all(len(title.replace("\\", "")) <= 80 for title in titles)
    assert "".join(titles).count("norm\\_eps=0.001") == 1
