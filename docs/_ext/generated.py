"""The parts of the documentation that are made from the code and the committed results, written before Sphinx reads."""

from collections.abc import Iterator
from pathlib import Path

import algorithm_pages
import drawings
import gallery_pages
import reference
from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent.parent
PAGES = ("algorithms", "gallery")
"""Folders of whole pages: one per algorithm, one per folder of results. Files whose names begin with _ are by hand."""


def files() -> Iterator[tuple[str, str | bytes]]:
    """Yield every generated file: its path under ``docs`` and its contents.

    Raises:
        ValueError: ``columns.toml`` lacks a column, or explains one that is not there.
    """
    yield "_generated/flags.md", reference.flags()
    yield "_generated/settings.md", reference.settings()
    yield "_generated/columns.md", reference.columns(DOCS / "columns.toml")
    yield "_generated/outputs.md", reference.outputs_table()
    yield "_generated/protocols.md", reference.protocols()
    yield "_generated/plugins.md", reference.plugins()
    yield "_generated/studies.md", reference.studies()
    yield "_generated/corruptions.md", reference.corruptions()
    yield "_generated/wings.md", drawings.wings_table()
    yield "_generated/wings.svg", drawings.wings()
    yield "_generated/pairing.svg", drawings.pairing()
    yield "_generated/interval.svg", drawings.interval()
    yield from algorithm_pages.files(DOCS / "algorithms")
    yield from gallery_pages.files(DOCS / "gallery")


def write(docs: Path = DOCS) -> None:
    """Write the generated files that are not as they should be, and delete pages of what is no longer there."""
    written = set()
    for name, content in files():
        path = docs / name
        written.add(path)
        data = content.encode() if isinstance(content, str) else content
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    for folder in PAGES:
        for path in (docs / folder).glob("*.md"):
            if path not in written and path.name != "index.md" and not path.name.startswith("_"):
                path.unlink()


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the files as soon as the configuration is read."""
    app.connect("config-inited", lambda *_: write())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
