"""The study of families: ranks known on paper, which runs are wanted, and a small study from end to end."""

import dataclasses

import numpy as np
import pytest
from arm_runs import read
from asked import asked
from drawn import check_apart

from bench.records.run import load_runs
from bench.registry import create_algorithm
from bench.settings.config import RunConfig
from bench.settings.protocols import chosen_for
from bench.studies.families import Families
from bench.studies.families.figure import draw
from bench.studies.families.members import config, families, family
from bench.studies.families.ranks import mean_rank, rank
from bench.studies.families.tables import MeanRow, RankRow, mean_rows, rank_table, ranked
from run_bench import main

SMALL = (
    *("--meta-steps", "2", "--meta-batch", "2", "--test-tasks", "10", "--val-tasks", "2", "--val-points", "1"),
    *("--adaptation-tasks", "0", "--device", "cpu", "--threads", "1"),
)


def measures(rng, **means):
    """Forty tasks as hard for each: what is measured differs by what is said, and by a little of its own."""
    hard = rng.normal(0.0, 1.0, 40)
    return {name: {0: hard + mean + rng.normal(0.0, 0.01, 40)} for name, mean in means.items()}


def test_ranks_follow_the_means_where_every_difference_shows():
    found = rank(measures(np.random.default_rng(0), a=0.3, b=0.1, c=0.2), less_is_better=False)
    assert {name: (r.rank, r.low, r.high) for name, r in found.ranks.items()} == {
        "a": (1, 1, 1),
        "b": (3, 3, 3),
        "c": (2, 2, 2),
    }
    turned = rank(measures(np.random.default_rng(0), a=0.3, b=0.1, c=0.2), less_is_better=True)
    assert [turned.ranks[name].rank for name in "abc"] == [3, 1, 2]
    assert [d.diff < 0 for _, _, d, _ in turned.compared] == [True, True, False], "above zero where the first is better"


def test_algorithms_that_cannot_be_told_apart_share_the_places_they_take():
    """Two that are the same to the last bit are 1.5 both; behind a better one, three are (2 + 3 + 4) / 3."""
    found = measures(np.random.default_rng(0), best=1.0, x=0.0)
    pair = rank({"x": found["x"], "y": found["x"]}, False)
    assert [(r.rank, r.low, r.high) for r in pair.ranks.values()] == [(1.5, 1.5, 1.5)] * 2
    four = rank({**found, "y": found["x"], "z": found["x"]}, False)
    assert [r.rank for r in four.ranks.values()] == [1, 3, 3, 3]


def test_an_interval_holds_what_chance_alone_makes_of_equals():
    rng = np.random.default_rng(1)
    found = rank({name: {0: rng.normal(0, 1, 60)} for name in "abc"}, False)
    assert all((r.low, r.high) == (1, 3) for r in found.ranks.values())


def test_seeds_that_disagree_make_the_interval_wide():
    """Within each seed every task says the same; which seed is drawn decides. Of two seeds, a quarter of draws have one
    alone, and so have 95% intervals both ranks.
    """
    rng = np.random.default_rng(0)
    x, shift = rng.normal(0, 1, 50), {0: 1.0, 1: -0.9}
    two = {"a": {s: x + shift[s] for s in shift}, "b": dict.fromkeys(shift, x)}
    found = rank(two, False).ranks["a"]
    assert (found.low, found.high) == (1, 2)
    alone = rank({name: {0: by_seed[0]} for name, by_seed in two.items()}, False).ranks["a"]
    assert (alone.low, alone.high) == (1, 1)


def test_only_seeds_that_all_have_count():
    x = np.arange(30.0)
    found = rank({"a": {0: x + 1, 5: x - 99}, "b": {0: x}}, False)
    assert [found.ranks[name].rank for name in "ab"] == [1, 2]
    with pytest.raises(ValueError, match="no seed in common"):
        rank({"a": {0: x}, "b": {1: x}}, False)


def test_the_mean_rank_is_that_of_the_families_in_which_there_is_one():
    rng = np.random.default_rng(0)
    one = rank(measures(rng, a=0.3, b=0.1, c=0.2), False)  # 1, 3, 2
    two = rank(measures(rng, a=0.1, b=0.3), False)  # 2, 1
    found = {name: mean_rank([one, two], name) for name in "abcd"}
    assert [found[name].rank for name in "abc"] == [1.5, 2, 2]
    assert (found["a"].low, found["a"].high) == (1.5, 1.5)
    assert found["d"] is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--vary", "inner_steps=1"], "unknown setting in --vary of study families 'inner_steps'"),
        (["--vary", "family=sin"], "unknown family in --vary of study families 'sin'. Did you mean 'sine'?"),
        (["--vary", "family=images,glyphs"], "--vary family=glyphs: data set glyphs is a family already"),
        (["--k-shot", "1,5"], "k_shot 1,5; accepted in study families: one value"),
    ],
)
def test_what_the_study_cannot_use_is_one_line_before_anything_is_trained(flags, words, tmp_path, capsys):
    given = ["--study", "families", "--dataset", "glyphs", *flags, "--device", "cpu", "--out", str(tmp_path)]
    assert main(given) == 2
    stderr = capsys.readouterr().err
    assert words in stderr
    assert len(stderr.strip().splitlines()) == 1


def test_every_family_has_its_data_and_settings_and_flags_leave_the_one_way_alone():
    request = asked(grid={"seed": [0, 1], "n_way": [20]}, data_codes={"sine": "of sine"})
    configs = Families().configs(request)
    assert [(c.seed, c.dataset, c.algo) for c in configs[:4]] == [
        (0, "glyphs", "reptile"),
        (0, "glyphs", "fomaml"),
        (0, "glyphs", "maml"),
        (0, "sine", "reptile"),
    ]
    assert len(configs) == 18
    shapes = {(c.dataset, c.n_way, c.k_shot, c.backbone, c.data_code) for c in configs}
    assert shapes == {
        ("glyphs", 20, 1, "conv4", None),
        ("sine", 1, 10, "sine-mlp", "of sine"),
        ("navigation", 1, 5, "sine-mlp", None),
    }
    assert Families().datasets(request) == ("glyphs", "sine", "navigation")


def test_rates_are_those_of_the_algorithms_that_they_were_chosen_for_and_the_page_names_these():
    """CAVIA's context at 0.02 instead of 1, or iMAML at 1 with a proximity of 2, is another algorithm."""
    request = asked(algos=("maml", "cavia", "imaml"))
    rates = {
        (of.name, algo): config(request, of, algo, 0).hyperparameters["inner_lr"]
        for of in families(request)
        for algo in request.algos
    }
    own = {algo: create_algorithm(algo).inner_lr for algo in ("cavia", "imaml")}
    for name, chosen in (("images", 0.4), ("sine", 0.02), ("navigation", 1.0)):
        assert {algo: rates[name, algo] for algo in request.algos} == {"maml": chosen, **own}
    told = chosen_for(family("sine", "omniglot").presets)
    assert told == "Settings of their own: maml, fomaml, joint, reptile; all other algorithms run on their defaults."


def test_a_data_set_of_ones_own_is_a_family_with_the_settings_of_images():
    (own,) = families(asked(vary={"family": ["omniglot"]}))
    assert (own.name, own.dataset, own.presets) == ("omniglot", "omniglot", family("images", "glyphs").presets)


NEEDS_CLASSES = '''
"""Needs classes."""
from dataclasses import dataclass
from bench.api import BenchError
from bench.registry import ALGORITHMS, register_algorithm

@register_algorithm("needs-classes")
@dataclass(frozen=True)
class NeedsClasses(ALGORITHMS.get("fomaml")):
    """Of classes alone."""
    def class_weights(self, network, n_classes):
        """None."""
        if not n_classes:
            raise BenchError("needs-classes needs classes")
        return {}
'''


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("families")
    (out / "needs.py").write_text(NEEDS_CLASSES)
    family = "images,navigation"
    flags = ["--study", "families", "--dataset", "toy", "--vary", f"family={family}", "--out", str(out), *SMALL]
    flags += ["--plugin", "tests/plugins/toy_data.py", "--plugin", str(out / "needs.py"), "--backbone", "sine-mlp"]
    flags += ["--algos", "fomaml,reptile,needs-classes", "--seeds", "0,1", "--k-query", "3"]
    flags += ["--set", "hidden=4", "--set", "horizon=3", "--eval-inner-steps", "1", "--eval-k-query", "2"]
    return main(flags), flags, out / "study-families"


def test_a_small_study_from_end_to_end(finished):
    code, _, out = finished
    assert code == 0
    rows = {(row["dataset"], row["algo"]): row for row in read(out / "families.csv")}
    assert len(rows) == 6
    left_out = rows.pop(("navigation", "needs-classes"))
    assert (left_out["status"], left_out["rank"], left_out["seeds"]) == ("not run", "", "0")
    assert all(row["status"] == "ok" and row["seeds"] == "2" and row["rank"] for row in rows.values())
    runs = load_runs(out)
    assert len(runs) == 10
    by_data = {(run.row.dataset, run.row.seed, run.row.stream_sha256) for run in runs}
    assert len(by_data) == 4, "the same tasks for every algorithm of a family and seed"
    row = rows["navigation", "fomaml"]
    errors = [run.row.test_error for run in runs if (run.row.dataset, run.row.algo) == ("navigation", "fomaml")]
    assert float(row["measured"]) == pytest.approx(sum(errors) / 2)
    means = {row["algo"]: row for row in read(out / "mean_ranks.csv")}
    assert means["needs-classes"]["families"] == "1"
    assert float(means["fomaml"]["mean_rank"]) == pytest.approx(
        (float(rows["toy", "fomaml"]["rank"]) + float(row["rank"])) / 2
    )
    text = (out / "families.md").read_text()
    assert "needs-classes on navigation (not run)" in text
    assert "report.html" in {path.name for path in out.iterdir()}


def test_an_algorithm_that_cannot_do_a_family_is_named_in_one_line(finished, capsys):
    _, flags, out = finished
    before = (out / "families.csv").read_bytes()
    (out / "families.csv").unlink()
    assert main([*flags, "--report"]) == 0
    assert (out / "families.csv").read_bytes() == before
    printed = capsys.readouterr()
    assert "needs-classes is left out on navigation" in " ".join((printed.out + printed.err).split())
    (line,) = (line for line in printed.out.splitlines() if line.startswith("| needs-classes"))
    assert [cell.strip() for cell in line.split("|")][3] == "-"


def test_what_no_algorithm_can_do_ends_the_command(finished, tmp_path, capsys):
    _, flags, _ = finished
    given = [*flags, "--k-shot", "2000", "--out", str(tmp_path)]
    assert main(given) == 2
    assert "2000" in capsys.readouterr().err.strip().splitlines()[-1]


def test_seeds_of_which_some_are_missing_are_ranked_over_those_that_all_have(finished):
    _, _, out = finished
    runs = {run.row.run_id: run for run in load_runs(out)}
    request = asked(algos=("fomaml", "reptile"), dataset="toy")
    configs = {
        algo: [_config(run) for run in runs.values() if (run.row.dataset, run.row.algo) == ("navigation", algo)]
        for algo in request.algos
    }
    (lost,) = (c.run_id for c in configs["reptile"] if c.seed == 1)
    del runs[lost]
    found = ranked(family("navigation", "toy"), configs, runs)
    assert [(row.algo, row.seeds, row.status) for row in found.rows] == [("fomaml", 2, "ok"), ("reptile", 1, "not run")]
    assert found.ranking.compared[0][2].seeds == 1
    nothing = ranked(family("navigation", "toy"), configs, {})
    assert (nothing.ranking, [row.rank for row in nothing.rows]) == (None, [None, None])
    assert "| fomaml" in rank_table([nothing])


def _config(run):
    return RunConfig(**run.details["config"])


def test_the_figure_shows_every_rank_of_twelve_algorithms_and_cuts_nothing_off():
    rng = np.random.default_rng(0)
    names = [f"algorithm-{i}" for i in range(12)]
    ranking = rank(measures(rng, **{name: 0.1 * i for i, name in enumerate(names)}), False)
    found = []
    for name in ("images", "sine", "navigation"):
        nothing = ranked(family(name, "glyphs"), {}, {})
        row = _row_of(name)
        rows = [
            dataclasses.replace(row, algo=algo, rank=r.rank, rank_low=r.low, rank_high=r.high)
            for algo, r in ranking.ranks.items()
        ]
        found.append(dataclasses.replace(nothing, rows=tuple(rows), ranking=ranking))
    means = mean_rows(found)
    assert [mean.algo for mean in means] == names[::-1]
    figure = draw(found, means)
    check_apart(figure)
    (axes,) = figure.axes
    assert sum(len(line.get_xdata()) == 1 for line in axes.get_lines()) == 48
    empty = draw([], [MeanRow("a", None, None, None, 0)])
    assert "not recorded" in [text.get_text() for text in empty.axes[0].texts]


def _row_of(name):
    facts = {"backbone": "b", "meta_steps": 1, "meta_batch": 1, "status": "ok", "run_ids": ""}
    return RankRow(family=name, dataset=name, algo="", **facts)
