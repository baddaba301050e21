"""The page of a study: its Markdown with pictures inside, tables that sort, and its runs."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from markdown_it.token import Token
from markupsafe import Markup, escape

from bench.records.run import Run
from bench.report.page.elements import environment, libraries
from bench.report.page.sections import counts, markdown_html, sections_of
from bench.report.page.tables import RUN_HEADERS, run_cells


def study_page(text: str, source: str, pictures: Mapping[str, bytes], runs: Sequence[Run]) -> str:
    """Return the page of a study, which is its Markdown with pictures inside it, tables that sort, and its runs.

    Args:
        text: what the study wrote to the file ``source``.
        pictures: PNG files by the paths by which ``text`` names them; it shows no others.
    """
    markdown = markdown_html('<table class="sortable" data-rows="100">').enable("image")

    def picture(_: Any, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
        token = tokens[place]
        data = pictures.get(str(token.attrs["src"]))
        if data is None:
            return escape(f"[{token.content}]")
        uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        return Markup('<img class="picture" alt="{}" src="{}">').format(token.content, uri)

    markdown.add_render_rule("image", picture)
    title, intro, sections = sections_of(text.split("\n\n"), markdown)
    given = dict.fromkeys(run.details.get("command") for run in runs)
    return (
        environment()
        .get_template("study.html.j2")
        .render(
            title=title,
            counts=counts(runs),
            intro=intro,
            sections=sections,
            commands=[command for command in given if isinstance(command, str)],
            source=source,
            runs=runs,
            every_run=[(run.row.run_id, *run_cells(run)) for run in runs],
            run_headers=[header for header in RUN_HEADERS if header != "command"],
            **libraries(),
        )
    )
