"""Links, pictures and commands on the pages that people read: all of them lead somewhere."""

import json
import re
import tomllib

import pytest
from guide import TEXT
from places import REPOSITORY

import bench
from bench.cli import configfile
from bench.cli.flags import parser

DOCS = REPOSITORY / "docs"
NOTEBOOK = DOCS / "tutorial.ipynb"
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "results/reference/README.md")),
    *sorted(p for p in DOCS.rglob("*.md") if not p.relative_to(DOCS).parts[0].startswith(("_", "jupyter"))),
    NOTEBOOK,
]


def text_of(page):
    text = page.read_text(encoding="utf-8")
    if page != NOTEBOOK:
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])


def exists(page, target):
    """Whether a link of a page leads to a file, made at the build or not."""
    path = (page.parent / target).resolve()
    if path.exists():
        return True
    made = {"gallery": REPOSITORY / "results" / "reference" / path.stem, "algorithms": REPOSITORY / "algorithms"}
    folder = path.parent.name
    if path.parent == DOCS / "gallery":
        return made[folder].is_dir()
    if path.parent == DOCS / "algorithms":
        return (made[folder] / f"{path.stem}.py").is_file()
    return path.parent == DOCS / "_generated"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_links_and_pictures_lead_to_files(page):
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)", text_of(page))
    assert [target for target in targets if not exists(page, target)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_printed_commands_have_flags_that_the_command_knows(page):
    for line in re.findall(r"^(?:.*&& )?python run_bench\.py (-.*)$", text_of(page), re.MULTILINE):
        flags = line.partition("#")[0].split()
        assert flags == ["--help"] or parser().parse_args(flags)


def test_the_printed_configuration_file_has_keys_that_the_command_knows():
    printed = (DOCS / "guides" / "settings.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", printed, re.DOTALL)
    assert tomllib.loads(example).keys() <= configfile.keys(parser()).keys()


def test_the_printed_call_has_flags_that_the_command_knows(monkeypatch):
    (example,) = re.findall(r"```python\n(import bench\n.*?)```", TEXT["running"], re.DOTALL)
    given = {}
    monkeypatch.setattr(bench, "compare", lambda **flags: given.update(flags), raising=False)
    exec(example, {})
    assert given.keys() <= configfile.keys(parser()).keys()
