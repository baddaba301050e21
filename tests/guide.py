"""What the guides print: files by name, and commands."""

import re

from places import REPOSITORY

GUIDES = REPOSITORY / "docs" / "guides"
TEXT = {
    name: (GUIDES / f"{name}.md").read_text(encoding="utf-8")
    for name in ("running", "algorithm", "data", "network", "weights")
}
FILES = dict(re.findall(r"runs this file: ([\w.]+) -->\n```\w+\n(.*?)```", "\n".join(TEXT.values()), re.DOTALL))
"""Contents by file name, in the order of the pages."""


def written(folder, names):
    """Write some of these files into ``my_plugins``, as the guides have it, and return that folder."""
    plugins = folder / "my_plugins"
    plugins.mkdir()
    for name in names:
        (plugins / name).write_text(FILES[name], encoding="utf-8")
    return plugins


def commands(page):
    """Return the arguments of each ``run_bench.py --plugin`` that a page prints."""
    return re.findall(r"^python run_bench\.py (--plugin .*)$", TEXT[page], re.MULTILINE)
