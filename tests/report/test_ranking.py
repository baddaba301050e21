"""The ranking: the best on top, untuned and tuned side by side, protocols of one task in one panel."""

from made_runs import make_run

from bench.analysis.results import results_of
from bench.records.run import load_runs
from bench.report.pictures.ranking import ranking, rows_of


def arms_of(tmp_path):
    """Untuned c > a > b; the search turns b and a round and leaves c alone."""
    for algo, level in (("a", 0.7), ("b", 0.6), ("c", 0.9)):
        make_run(tmp_path, algo, level=level, protocol="matched", run_id=f"{algo}-untuned")
    for algo, level in (("a", 0.75), ("b", 0.85)):
        make_run(tmp_path, algo, level=level, protocol="tuned", tuning_trials=8, run_id=f"{algo}-tuned")
    return results_of(load_runs(tmp_path)).arms


def test_the_order_is_that_of_the_tuned_accuracy_where_there_is_one(tmp_path):
    rows = rows_of(arms_of(tmp_path))
    assert [(name, sorted(row)) for name, row in rows.items()] == [
        ("c", [False]),
        ("b", [False, True]),
        ("a", [False, True]),
    ]


def test_several_untuned_arms_of_an_algorithm_have_rows_of_their_own(tmp_path):
    for rate in (0.1, 0.4):
        make_run(tmp_path, "a", level=0.5 + rate, inner_lr=rate, run_id=f"a-{rate}")
    assert list(rows_of(results_of(load_runs(tmp_path)).arms)) == ["a (inner_lr=0.4)", "a (inner_lr=0.1)"]


def test_budgets_that_differ_have_rows_of_their_own_and_no_arm_is_lost(tmp_path):
    """Longer training must not pass for the worth of tuning; protocols that nothing ties have panels of their own."""
    make_run(tmp_path, "a", level=0.6, protocol="matched", run_id="short")
    make_run(tmp_path, "a", level=0.9, protocol="tuned", tuning_trials=8, meta_steps=8000, run_id="long")
    make_run(tmp_path, "a", level=0.7, protocol="quick", run_id="other")
    arms = results_of(load_runs(tmp_path)).arms
    rows = rows_of([arm for arm in arms if arm.setting.protocol != "quick"])
    assert [(name, sorted(row)) for name, row in rows.items()] == [("a, tuned", [True]), ("a", [False])]
    assert sum(len(row) for row in rows_of(arms).values()) == 3
    assert len(ranking(arms).axes) == 4


def test_protocols_of_one_task_share_a_panel_and_hollow_marks_are_untuned(tmp_path):
    figure = ranking(arms_of(tmp_path))
    accuracy, cost = figure.axes
    assert [label.get_text() for label in accuracy.get_yticklabels()] == ["c", "b", "a"]
    marks = [line for line in accuracy.get_lines() if line.get_marker() == "o" and len(line.get_xdata()) == 1]
    assert [mark.get_markerfacecolor() == "white" for mark in marks] == [True, True, False, True, False]
    assert len(cost.patches) == 3
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "filled: tuned with 8 trials" in told
    assert figure.get_suptitle().replace("\n", " ").endswith("glyphs, protocol matched, tuned")


def test_without_a_search_all_marks_are_filled(tmp_path):
    make_run(tmp_path, "a")
    make_run(tmp_path, "b", level=0.5)
    figure = ranking(results_of(load_runs(tmp_path)).arms)
    marks = [line for line in figure.axes[0].get_lines() if line.get_marker() == "o"]
    assert "white" not in [mark.get_markerfacecolor() for mark in marks]
    assert not [text for text in figure.legends[0].get_texts() if "tuned" in text.get_text()]
