"""The best of the trials so far, and the lines of tuning.csv."""

from bench.analysis.tuning import best_so_far, gain, settings_of, trial_rows
from bench.records.tuning import Search, Trial

SCORES = [("complete", 0.5), ("pruned", 0.9), ("complete", 0.4), ("failed", None), ("complete", 0.7), ("complete", 0.7)]


def search(kind="acc", scores=SCORES, **changes):
    trials = tuple(Trial(n, state, {"meta_lr": 0.1 * n}, 10, 0.5, score) for n, (state, score) in enumerate(scores))
    known = {
        "name": "x", "algo": "a", "dataset": "d", "protocol": "quick", "n_way": 5, "k_shot": 1, "k_query": 9,
        "backbone": "conv4", "measure": "accuracy", "kind": kind, "meta_steps": 30, "meta_batch": 4, "val_tasks": 20,
        "seed": 9, "device": "cpu", "data_sha256": "x", "importance": {}, "spaces": {},
    }  # fmt: skip
    return Search(**known | changes, trials=trials)


def test_only_complete_trials_count_and_of_equal_ones_the_first():
    assert [trial.number for trial in best_so_far(search())] == [0, 0, 0, 0, 4, 4]
    assert search().best.number == 4
    assert abs(gain(search()) - 0.2) < 1e-12
    assert [row.chosen for row in trial_rows([search()])] == [0, 0, 0, 0, 1, 0]
    assert [row.best_score for row in trial_rows([search()])] == [0.5, 0.5, 0.5, 0.5, 0.7, 0.7]


def test_of_an_error_less_is_better():
    assert [trial.number for trial in best_so_far(search("error"))] == [0, 0, 2, 2, 2, 2]
    assert abs(gain(search("error")) - 0.1) < 1e-12


def test_without_a_complete_trial_nothing_is_best():
    found = search(scores=[("failed", None), ("pruned", 0.3)])
    assert (best_so_far(found), found.best, gain(found)) == ([None, None], None, None)
    assert gain(search(scores=[("failed", None), ("complete", 0.3)])) is None


def test_settings_are_named_by_what_tells_them_apart():
    assert list(settings_of([search(), search(algo="b")])) == ["5-way 1-shot"]
    assert list(settings_of([search(), search(dataset="e", n_way=20)])) == [
        "5-way 1-shot (dataset=d)",
        "20-way 1-shot (dataset=e)",
    ]
