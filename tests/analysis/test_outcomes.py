"""Outcomes: who leads, who wins, and sentences that say no more than the comparisons do."""

from made_runs import make_row, make_run

from bench.analysis.results import results_of
from bench.analysis.verdicts import Verdict, sentences
from bench.records.run import load_runs, write_run


def compared(out):
    return results_of(load_runs(out))


def told_of(results):
    return {outcome.mode: outcome.sentences for outcome in results.outcomes}


def test_verdicts_name_the_best_mean_and_repeat_what_restricts_them(tmp_path):
    for algo, level in (("low", 0.7), ("high", 0.9), ("high2", 0.9)):
        make_run(tmp_path, algo, level=level)
    results = compared(tmp_path)
    told = told_of(results)["plain"]
    assert told[0].startswith("Highest mean accuracy: high")
    by_pair = {(c.algo_a, c.algo_b): c for c in results.comparisons if c.mode == "plain"}
    diff = by_pair["high", "low"].diff
    assert f"high scores higher than low by {diff:.4f} on these test tasks (one training each)." in told
    assert "No difference shown between high and high2." in told


def test_a_verdict_says_what_the_algorithms_did_not_have_in_common(tmp_path):
    make_run(tmp_path, "a", level=0.7, tasks_seen=3200, inner_steps=1)
    make_run(tmp_path, "b", level=0.9, tasks_seen=3200, inner_steps=1)
    assert not [s for s in told_of(compared(tmp_path))["plain"] if "differ:" in s]
    make_run(tmp_path, "c", level=0.8, tasks_seen=12_800, inner_steps=5)
    for told in told_of(compared(tmp_path)).values():
        assert list(told[-2:]) == [
            "Training budgets differ: 3,200 to 12,800 tasks.",
            "Inner steps in training differ: 1 (a and b), 5 (c).",
        ]


def test_three_seeds_that_show_less_say_so(tmp_path):
    for seed in range(3):
        make_run(tmp_path, "a", seed, 0.7)
        make_run(tmp_path, "b", seed, 0.7 + (0.2 if seed == 0 else 0.02))
    results = compared(tmp_path)
    (c,) = (c for c in results.comparisons if c.mode == "plain")
    assert "with these 3 seeds" in c.verdict
    restriction = c.verdict.removeprefix("b better")
    told = told_of(results)["plain"]
    assert told[1] == f"b is better than a by {-c.diff:.4f}{',' * restriction.startswith(' with')}{restriction}."


def test_errors_get_no_verdict_and_the_lowest_is_named(tmp_path):
    for algo, error in (("a", 0.5), ("b", 0.25)):
        row = make_row(algo, dataset="sine", measure="mse", test_error=error, test_error_transductive=error, n_way=1)
        write_run(tmp_path / "runs" / row.run_id, row, {}, [], [], [])
    told = told_of(compared(tmp_path))["plain"]
    assert told[0] == "Lowest mean mse: b, 0.2500."
    assert "no verdict" in told[1]


def test_six_algorithms_have_every_pair_told_that_the_table_tells(tmp_path):
    """One that beats four of five others leads nobody's list of pairs but its own: it is told all the same."""
    for algo, level in (("a", 0.9), ("b", 0.895), ("c", 0.7), ("d", 0.6), ("e", 0.5), ("f", 0.4)):
        make_run(tmp_path, algo, level=level)
    results = compared(tmp_path)
    for outcome in results.outcomes:
        for c in results.comparisons:
            if c.mode == outcome.mode and c.judged.shown:
                better, worse = (c.algo_a, c.algo_b) if c.diff > 0 else (c.algo_b, c.algo_a)
                (line,) = [s for s in outcome.sentences if s.startswith(f"{better} scores higher than")]
                assert f"{worse} by {abs(c.diff):.4f}" in line


def test_a_winner_beats_each_of_the_others_and_is_settled_by_seeds(tmp_path):
    for seed in range(3):
        make_run(tmp_path / "three", "low", seed, 0.5)
        make_run(tmp_path / "three", "high", seed, 0.8)
    make_run(tmp_path / "one", "low", 0, 0.5)
    make_run(tmp_path / "one", "high", 0, 0.8)
    found = {name: compared(tmp_path / name).outcomes for name in ("three", "one")}
    assert [(o.leader, o.winner, o.settled) for o in found["three"]] == [("high", "high", True)] * 2
    assert [(o.leader, o.winner, o.settled) for o in found["one"]] == [("high", "high", False)] * 2
    make_run(tmp_path / "one", "rival", 0, 0.8)
    assert [o.winner for o in compared(tmp_path / "one").outcomes] == ["", ""]


def test_nobody_wins_over_one_that_could_not_be_compared(tmp_path):
    for algo, tasks in (("low", 200), ("mid", 50), ("high", 200)):
        make_run(tmp_path, algo, 0, {"low": 0.5, "mid": 0.6, "high": 0.8}[algo], tasks)
    assert [o.winner for o in compared(tmp_path).outcomes] == ["", ""]
    assert {o.leader for o in compared(tmp_path).outcomes} == {"high"}


def test_of_seven_algorithms_the_pairs_of_the_leader_are_told_and_a_sentence_says_so(tmp_path):
    for i in range(7):
        make_run(tmp_path, f"a{i:02}", level=0.3 + 0.04 * i)
    told = told_of(compared(tmp_path))["plain"]
    assert told[-1] == "Only pairs with a06 are told here; the table of differences has all."
    assert [s for s in told if s.startswith("a06 scores higher than a00 by ")]


def test_open_pairs_with_one_label_are_one_sentence_wherever_it_stands_in_the_alphabet():
    pairs = [("a", "m", -0.1, Verdict("", "")), ("b", "m", -0.2, Verdict("", "")), ("m", "z", 0.1, Verdict("", ""))]
    assert sentences(pairs) == ["No difference shown between m and a, b or z."]


def test_steps_of_what_has_no_inner_loop_differ_from_nobodys(tmp_path):
    make_run(tmp_path, "metric", level=0.7, inner_steps=None, eval_inner_steps=10)
    make_run(tmp_path, "head", level=0.9, inner_steps=5, eval_inner_steps=100)
    assert not [said for said in told_of(compared(tmp_path))["plain"] if "teps" in said]
    make_run(tmp_path, "whole", level=0.9, inner_steps=5, eval_inner_steps=10)
    assert "Adaptation steps at test differ: 10 (whole), 100 (head)." in told_of(compared(tmp_path))["plain"]


def test_no_verdict_compares_what_was_tuned_with_what_was_not_without_saying_so(tmp_path):
    make_run(tmp_path, "a", level=0.7)
    make_run(tmp_path, "b", level=0.9, tuning_trials=20, tuning_steps=900, tuning_s=1.5)
    make_run(tmp_path, "c", level=0.9, tuning_trials=20, tuning_steps=800, tuning_s=2.5)
    results = compared(tmp_path)
    told = told_of(results)["plain"]
    assert any(s.startswith("b (tuned) ") and " than a (untuned) by " in s for s in told)
    assert told[-1] == "Tuning differs, as the names say: untuned or tuned with 20 trials."
    pairs = {(c.algo_a, c.algo_b): c for c in results.comparisons if c.mode == "plain"}
    assert not pairs["a (untuned)", "b (tuned)"].judged.alike
    assert Verdict("b", "a").settled
    assert not Verdict("b", "a", alike=False).settled
    assert pairs["b (tuned)", "c (tuned)"].judged.alike


def test_as_many_trials_of_another_length_are_another_tuning(tmp_path):
    make_run(tmp_path, "a", level=0.7, tuning_trials=20, tuning_trial_steps=100)
    make_run(tmp_path, "b", level=0.9, tuning_trials=20, tuning_trial_steps=3000)
    told = told_of(compared(tmp_path))["plain"]
    words = "a tuned with 20 trials of 100 meta-steps, b tuned with 20 trials of 3,000 meta-steps"
    assert any(f"({words})" in sentence for sentence in told)


def test_no_difference_between_tuned_and_untuned_says_so_too_and_equal_tuning_says_nothing(tmp_path):
    make_run(tmp_path, "a", level=0.9)
    make_run(tmp_path, "b", level=0.9, tuning_trials=5)
    told = told_of(compared(tmp_path))["plain"]
    assert "No difference shown between a (untuned) and b (tuned)." in told
    make_run(tmp_path, "a", level=0.9, run_id="again", seed=1, tuning_trials=0)
    arms = compared(tmp_path).arms
    assert [(a.label, len(a.runs)) for a in arms] == [("a (untuned)", 2), ("b (tuned)", 1)], "whoever says so"


def test_the_same_algorithm_tuned_and_untuned_is_two_arms(tmp_path):
    make_run(tmp_path, "a", level=0.8)
    make_run(tmp_path, "a", level=0.9, tuning_trials=5, run_id="tuned")
    assert [arm.label for arm in compared(tmp_path).arms] == ["a (tuned)", "a (untuned)"]
