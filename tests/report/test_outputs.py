"""The table of outputs: each is a function of Results in a file of its own, and is decided nowhere else."""

import itertools
import sys

import pytest
from made_runs import make_run, reported

from bench.analysis.results import load
from bench.registry import load_package
from bench.report import outputs as module
from bench.report import words
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


NEW = """
from bench.report.outputs import output
@output("further/winners.txt", "who wins")
def winners(results):
    return {"further/winners.txt": " ".join(outcome.winner for outcome in results.outcomes).encode()}
"""


@pytest.fixture
def one_more(tmp_path, monkeypatch):
    """A file beside those of ``bench/report/words``, and nothing else."""
    added = tmp_path / "added"
    added.mkdir()
    (added / "winners.py").write_text(NEW)
    monkeypatch.setattr(module, "_TABLE", list(module._TABLE))
    monkeypatch.setattr(words, "__path__", [*words.__path__, str(added)])
    for known in (outputs, load_package):
        known.cache_clear()
    yield
    for known in (outputs, load_package):
        known.cache_clear()
    sys.modules.pop("bench.report.words.winners")


def test_a_file_that_registers_an_output_is_all_that_a_new_one_takes(folder, one_more):
    assert (reported(folder) / "further" / "winners.txt").read_text() == "high high"
    with pytest.raises(ValueError, match=r"'further/winners\.txt' is registered twice"):
        output("further/winners.txt", "who wins")(lambda results: {})


def test_a_new_output_is_not_written_into_a_link_either(folder, one_more, tmp_path):
    (folder / "further").symlink_to(tmp_path.parent)
    with pytest.raises(OSError, match="may not be a symbolic link"):
        reported(folder)
    assert not (folder / "summary.csv").exists()


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
