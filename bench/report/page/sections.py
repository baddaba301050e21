"""Sections of Markdown as HTML, for the page of a comparison and of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markupsafe import Markup

from bench.records.run import Run

LONG = 40  # lines of a table, beyond which it is folded up


@dataclass(frozen=True)
class Section:
    """A part of summary.md as HTML."""

    title: str
    anchor: str
    body: Markup


def sections_of(blocks: Sequence[str], markdown: MarkdownIt) -> tuple[str, Markup, list[Section]]:
    """Return the title, what stands before the first section, and the sections."""
    parts = []
    title, rest = blocks[0].removeprefix("# "), blocks[1:]
    current: list[str] = []
    heads = [""]
    for block in rest:
        if block.startswith("## "):
            parts.append(current)
            heads.append(block.removeprefix("## "))
            current = []
        else:
            current.append(block)
    parts.append(current)
    plain_title = Markup(markdown.renderInline(title)).striptags()
    sections = []
    for head, body in zip(heads[1:], parts[1:]):
        name = Markup(markdown.renderInline(head)).striptags()
        sections.append(Section(name, slug(name), Markup("\n").join(_folded(block, markdown) for block in body)))
    return plain_title, Markup(markdown.render("\n\n".join(parts[0]))), sections


def _folded(block: str, markdown: MarkdownIt) -> Markup:
    rendered, lines = Markup(markdown.render(block)), block.count("\n") - 1
    if not block.startswith("|") or lines <= LONG:
        return rendered
    return Markup("<details><summary>{} lines</summary>{}</details>").format(lines, rendered)


def markdown_html(table: str = "<table>") -> MarkdownIt:
    """Return what turns Markdown into HTML, without HTML or links of its own, wide tables in boxes that scroll."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "link", "autolink"])
    box = f'<div class="scroll" role="region" aria-label="table" tabindex="0">{table}\n'
    markdown.add_render_rule("table_open", lambda *_: box)
    markdown.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return markdown


def slug(text: str) -> str:
    """Return a name for an anchor."""
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split()) or "section"


def counts(runs: Sequence[Run]) -> str:
    """Say how many runs there are, by status."""
    statuses = [run.row.status for run in runs]
    told = ", ".join(
        f"{statuses.count(status):,} {status}" for status in dict.fromkeys(sorted(statuses, key=_ok_first))
    )
    return f"{len(runs):,} run{'s' * (len(runs) != 1)}: {told}" if runs else "No run has finished yet."


def _ok_first(status: str) -> tuple[bool, str]:
    return status != "ok", status
