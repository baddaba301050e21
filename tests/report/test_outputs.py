"""The table of outputs: each is a function of Results in a file of its own, and is decided nowhere else."""

import itertools

import pytest
from made_runs import make_run, reported

from bench.analysis.results import load
from bench.report import outputs as module
from bench.report.outputs import output, outputs


@pytest.fixture
def folder(tmp_path, blank_pictures):
    for algo, level in (("low", 0.5), ("high", 0.8)):
        make_run(tmp_path, algo, 0, level, 50)
    return tmp_path


def test_every_output_is_in_a_file_of_its_own_and_says_what_it_holds():
    modules = [one.make.__module__ for one in outputs()]
    assert len(set(modules)) == len(modules)
    assert len({one.name for one in outputs()}) == len(modules)
    assert all(one.says and not one.says.endswith(".") for one in outputs())
    for one in outputs():
        name = one.name.rpartition("/")[2].replace(".", "_")
        assert one.make.__module__.endswith((f".{name}", f".{name.partition('_')[0]}")), one


def test_all_outputs_lie_in_the_folder_and_no_two_write_one_file(folder):
    results = load(reported(folder))
    files = [set(one.files(results)) for one in outputs() if one.when == "always"]
    assert not any(a & b for a, b in itertools.combinations(files, 2))
    for path in set.union(*files):
        assert (folder / path).is_file(), path


def test_a_file_that_registers_an_output_is_all_that_a_new_one_takes(folder, monkeypatch):
    monkeypatch.setattr(module, "_TABLE", list(module._TABLE))
    outputs.cache_clear()

    def winners(results):
        return {"winners.txt": " ".join(outcome.winner for outcome in results.outcomes).encode()}

    winners.__module__ = "bench.report.words.winners"
    try:
        output("winners.txt", "who wins")(winners)
        with pytest.raises(ValueError, match=r"'winners\.txt' is registered twice"):
            output("winners.txt", "who wins")(winners)
        assert (reported(folder) / "winners.txt").read_text() == "high high"
    finally:
        outputs.cache_clear()


def test_an_output_is_made_once_for_the_same_results(folder):
    results, made = load(folder), []
    one = module.Output("x", "x", lambda results: made.append(results) or {"x": b""}, "always", 1)
    assert one.files(results) is one.files(results)
    assert made == [results]


def test_whoever_speaks_of_a_comparison_says_the_same(folder):
    """summary.md, the page, the terminal and LaTeX: the sentences of the outcomes, and the winner alone marked."""
    out = reported(folder)
    results = load(out)
    files = {
        path: content.decode() for one in outputs() for path, content in one.files(results).items() if "/" not in path
    }
    for outcome in results.outcomes:
        assert (outcome.winner, outcome.settled) == ("high", False)
        for sentence in outcome.sentences:
            for name in ("summary.md", "report.html", "terminal"):
                assert sentence in " ".join(files[name].split()), (name, sentence)
    assert "mathbf" not in files["summary.tex"], "one seed settles nothing"
