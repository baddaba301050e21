"""The house: few names at the door, wings that one can survey, files of one idea, one version."""

import ast
import re

import pytest
from places import REPOSITORY

import bench

BENCH = REPOSITORY / "bench"
FILES = sorted(path.relative_to(REPOSITORY) for path in BENCH.rglob("*.py"))


def first_lines(path):
    return ast.get_docstring(ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))) or ""


def test_the_door_shows_at_most_twenty_names():
    names = [path.name for path in BENCH.iterdir() if path.name != "__pycache__"]
    assert len(names) <= 20, sorted(names)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_says_what_it_is_for_and_is_short_or_says_why_not(path):
    said = first_lines(path)
    assert said
    lines = (REPOSITORY / path).read_text(encoding="utf-8").count("\n")
    assert lines <= 300 or "300 lines" in said, f"{lines} lines"


def test_a_room_holds_at_most_a_dozen_files():
    rooms = {}
    for path in FILES:
        if path.name not in ("__init__.py", "__main__.py"):
            rooms.setdefault(path.parent, []).append(path.name)
    assert not {str(room): names for room, names in rooms.items() if len(names) > 12}


def test_names_do_not_repeat_the_names_of_their_wings():
    repeated = [path for path in FILES if path.parent.name != "bench" and path.stem.startswith(f"{path.parent.name}_")]
    assert repeated == []


def test_the_version_is_the_same_wherever_it_is_read():
    cited = re.search(r"^version: (.*)$", (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited[1] == bench.__version__
    changes = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(bench.__version__)}\b", changes, re.MULTILINE)


def test_what_plugins_and_notebooks_import_is_there():
    from bench.registry import register_algorithm, register_backbone, register_dataset
    from bench.tasks import ImageSet

    assert all(callable(name) for name in (register_algorithm, register_backbone, register_dataset, ImageSet))
    assert callable(bench.compare)
    assert callable(bench.load_results)


def test_the_front_page_fits_a_hundred_and_fifty_lines():
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
