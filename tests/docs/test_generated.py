"""The parts of the documentation that are made from the code."""

import re

import algorithm_pages
import gallery_pages
import markup
import pytest
import reference
from places import PLUGINS, REPOSITORY

from bench.cli.flags import parser
from bench.registry import ALGORITHMS, load_plugin
from bench.settings.protocols import protocol_names

DOCS = REPOSITORY / "docs"


def test_every_flag_has_its_meaning_and_default():
    page = reference.flags()
    for action in parser()._actions:
        if action.dest != "help":
            (entry,) = re.findall(
                rf"```{{option}} {re.escape(action.option_strings[0])}[ ,\n](.*?)```", page, re.DOTALL
            )
            assert re.search(r"\w+.* Default: `.+`\.", entry, re.DOTALL), entry


def test_every_column_of_every_table_has_its_sentence():
    page = reference.columns(DOCS / "columns.toml")
    for name, (columns, _) in reference.TABLES.items():
        assert f"## {name}\n" in page
        assert all(f"| `{column}` |" in page for column in columns)


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ({"a.csv": {"x": "One."}}, "a.csv: y has no sentence"),
        ({"a.csv": {"x": "One.", "y": ""}}, "a.csv: y has no sentence"),
        ({"a.csv": {"x": "One.", "y": "Two.", "z": "Three."}}, "a.csv: no column z"),
        ({"a.csv": {"x": "One.", "y": "Two."}, "b.csv": {}}, "no table b.csv"),
    ],
)
def test_columns_and_sentences_that_do_not_fit_fail_the_build(told, fault):
    with pytest.raises(ValueError, match=re.escape(fault)):
        reference.check_columns({"a.csv": ["x", "y"]}, told)


def test_a_column_that_is_explained_passes():
    reference.check_columns({"a.csv": ["x"]}, {"a.csv": {"_": "About it.", "x": "One."}})


def test_every_setting_and_every_protocol_is_there():
    assert "| `meta_steps` | whole number, 1 or more | Meta-steps. Default: `1000`. |" in reference.settings()
    assert "| `precision` | `float32`, `tf32x3`, `tf32`, `bf16` |" in reference.settings()
    assert re.findall(r"^## (\w+)$", reference.protocols(), re.MULTILINE) == protocol_names()


@pytest.mark.parametrize("name", ALGORITHMS.names())
def test_an_algorithm_has_a_page_with_its_settings_and_what_protocols_decide(name):
    page = algorithm_pages.page(name, DOCS / "algorithms" / f"_{name}.md")
    assert page.startswith(f"# {name}\n")
    for setting in algorithm_pages.hyperparameter_names(ALGORITHMS.get(name)):
        assert f"| `{setting}` |" in page
    assert f"| setting | {' | '.join(protocol_names())} |" in page


def test_an_algorithm_without_words_by_hand_has_its_docstring():
    page = algorithm_pages.page("joint", DOCS / "algorithms" / "_nobody.md")
    assert "## What it does\n\nThe gradient of the mean loss over all examples of all tasks" in page
    assert "examples of each task that a training step sees" in page  # of the docstring's attributes
    assert "``" not in page.replace("```", "")


def test_a_plugin_of_any_kind_has_a_page():
    before = set(ALGORITHMS.names())
    load_plugin(PLUGINS / "three_kinds.py")
    for name in set(ALGORITHMS.names()) - before:
        assert "No committed run has it." in algorithm_pages.page(name, DOCS / "nothing.md")


def test_committed_runs_stand_on_the_page_of_their_algorithm():
    page = algorithm_pages.results("maml")
    of_run = "[quick-cpu](../gallery/quick-cpu.md) | 5-way 1-shot | 3,000 | 1 at 0.4 | - | float32 | 0"
    assert f"| {of_run} | 0.9082\u00a0±\u00a00.0081 |" in page


def test_every_folder_of_results_says_how_it_was_made_and_has_words():
    made = gallery_pages.sections((REPOSITORY / "results" / "reference" / "README.md").read_text(encoding="utf-8"))
    for folder in (REPOSITORY / "results" / "reference").iterdir():
        if folder.is_dir():
            assert "python " in made[folder.name]
            assert (DOCS / "gallery" / f"_{folder.name}.md").is_file()


def test_headings_go_down_but_comments_in_code_stay():
    assert markup.below(1, "# A\n```\n# no heading\n```\n## B") == "## A\n```\n# no heading\n```\n### B\n"


def test_references_become_links():
    assert markup.linked("X 2017, arXiv:1703.03400, page 2") == (
        "X 2017, [arXiv:1703.03400](https://arxiv.org/abs/1703.03400), page 2"
    )


def test_a_table_keeps_bars_and_intervals_in_their_cells():
    assert markup.table(("a",), [("x|y",), (None,), ("1 ± 2",)]).splitlines()[2:] == [
        "| x\\|y |",
        "| - |",
        "| 1\u00a0±\u00a02 |",
    ]


def test_mathematics_is_mathml():
    pytest.importorskip("sphinx")
    import mathml

    assert mathml.render(r"\frac{1}{T}").startswith("<math")
    assert 'display="block"' in mathml.render("x", block=True)


def test_pages_that_load_from_the_network_are_noticed():
    pytest.importorskip("sphinx")
    import offline

    assert offline.loaded('<script src="https://x.org/a.js"></script><link rel="x" href="//y.org/b.css">') == [
        "https://x.org/a.js",
        "//y.org/b.css",
    ]
    assert offline.loaded('<a href="https://arxiv.org">paper</a><img src="a.png"><script src="b.js"></script>') == []


def test_the_picture_of_the_wings_holds_every_wing():
    pytest.importorskip("grimp")
    import drawings

    drawn = [name for layer in drawings.layers() for name in layer]
    folders = {p.parent.name for p in (REPOSITORY / "bench").glob("*/__init__.py")}
    assert folders <= set(drawn)
    assert ("training", "network") in drawings.imports()
    place = {name: y for y, layer in enumerate(drawings.layers()) for name in layer}
    assert all(place[a] < place[b] for a, b in drawings.imports() if a in place and b in place)
