"""Studies of arms: what they refuse, accuracies and differences of made-up runs, and what they say without runs."""

import numpy as np
import pytest
from arm_runs import made, wanted

from bench.analysis.statistics import holm, paired_comparison
from bench.api import BenchError
from bench.settings.protocols import Override
from bench.studies.arms.tables import cell_rows, differences
from bench.studies.gradient_combination import GradientCombination
from bench.studies.overlap import Overlap
from bench.studies.overlap.cells import ARMS, by_point

BOTH = {"gradient-combination": GradientCombination, "overlap": Overlap}
REFUSED = [
    (
        "gradient-combination",
        {"vary": {"arms": ["g1"]}},
        "unknown setting in --vary of study gradient",
    ),
    ("gradient-combination", {"vary": {"arm": ["g5"]}}, "'g5'. Did you mean 'g4'? Accepted: g1, g1_g2"),
    (
        "gradient-combination",
        {"algos": ("maml",)},
        "--algos maml: study gradient-combination has",
    ),
    ("gradient-combination", {"grid": {"k_query": [3]}}, "k_query 3: study gradient-combination decides it"),
    ("gradient-combination", {"sets": [Override(None, "inner_steps", "3")]}, "inner_steps '3': study gradient"),
    ("gradient-combination", {"grid": {"n_way": [5, 10]}}, "n_way 5,10; accepted in study gradient-combination: one"),
    ("overlap", {"vary": {"inner_step": ["1"]}}, "Did you mean 'inner_steps'?"),
    ("overlap", {"vary": {"inner_batch": ["all"]}}, "--vary inner_batch 'all'; accepted: a whole number"),
    ("overlap", {"vary": {"inner_steps": ["0"]}}, "inner_steps 0; accepted: 1 or more"),
    ("overlap", {"vary": {"arm": ["cycle"]}}, "Did you mean 'cycling'?"),
    ("overlap", {"sets": [Override("foml", "tail", "shared")]}, "tail 'shared': study overlap decides it"),
    ("overlap", {"flags": {"train_k_shot": 0}}, "train_k_shot 0; accepted: 1 or more"),
]


@pytest.mark.parametrize(("study", "changes", "words"), REFUSED, ids=[f"{s}: {w}" for s, _, w in REFUSED])
def test_a_request_that_a_study_cannot_use_is_refused_in_one_line(study, changes, words):
    with pytest.raises(BenchError) as caught:
        BOTH[study].cells(wanted(**changes))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_accuracies_pool_seeds_and_differences_are_paired_and_corrected_over_all_points(tmp_path):
    request = wanted(grid={"seed": [0, 1]}, vary={"inner_steps": ["2", "6"], "arm": ["reptile", "cycling"]})
    runs = made(Overlap().configs(request), tmp_path, lambda c: 0.8 if c.algo == "foml" else 0.9)
    cells = Overlap.cells(request)
    row = cell_rows(cells, runs)[1]
    assert (row.arm, row.axis, row.value, row.seeds, row.status) == ("cycling", "inner_steps", 2, 2, "ok")
    by_seed = {c.seed: runs[c.run_id].test_tasks.acc.to_numpy() for c in cells[1].configs}
    assert row.test_acc == pytest.approx(np.mean([acc.mean() for acc in by_seed.values()]))
    assert row.test_tasks == 400
    groups = list(by_point(cells).values())
    found = differences(groups, runs)
    assert [len(group) for group in found] == [2, 2]  # a pair in two modes at each of two points
    flat = [c for group in found for c in group]
    assert [c.p_value_holm for c in flat] == holm([c.p_value for c in flat])
    others = {c.seed: runs[c.run_id].test_tasks.acc.to_numpy() for c in cells[0].configs}
    expected = paired_comparison(others, by_seed)
    got = next(c for c in found[0] if c.mode == "plain")
    sign = 1 if got.algo_a == ARMS["reptile"].label else -1
    assert sign * got.diff == pytest.approx(expected.diff)


def test_a_pair_of_runs_that_stands_at_several_points_counts_once_in_the_correction(tmp_path):
    request = wanted(vary={"inner_steps": ["4", "6"], "inner_batch": ["25", "50"], "arm": ["reptile", "cycling"]})
    runs = made(Overlap().configs(request), tmp_path, lambda c: 0.8 if c.algo == "foml" else 0.802)
    found = dict(zip((points := by_point(Overlap.cells(request))), differences(points.values(), runs)))
    base, again = found["inner_steps", 4], found["inner_batch", 25]
    assert [c.p_value_holm for c in base] == [c.p_value_holm for c in again]
    once = [*base, *found["inner_steps", 6], *found["inner_batch", 50]]
    assert [c.p_value_holm for c in once] == holm([c.p_value for c in once])
    assert max(c.p_value_holm for c in once) > 0, "or the correction is not seen"


@pytest.mark.parametrize("study", BOTH)
def test_a_study_without_results_says_so(study, tmp_path):
    assert "results are missing" in BOTH[study]().report(wanted(), {}, tmp_path)
    assert "not run" in (tmp_path / f"{study}.md").read_text()
    assert (tmp_path / "plots" / f"{study}.png").exists()
