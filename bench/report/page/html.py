"""report.html: the whole comparison on one page that needs nothing but a browser.

Tables and words are those of summary.md; what the page adds is verdicts in sentences, figures that answer, tables that
sort and filter, examples, and the command of every run.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape
from PIL import Image

from bench.analysis.anchors import Beside
from bench.analysis.comparison import Arm, Comparison, by_setting
from bench.analysis.naming import heading, place
from bench.analysis.verdicts import published_sentences, verdict_sentences
from bench.records.run import MODES, Run, Warn, log
from bench.report.drawing.colours import colours
from bench.report.page.figures import figures, on_dark
from bench.report.page.tables import RUN_HEADERS, filled, result_headers, results, run_cells
from bench.report.repeat import repeat_command
from bench.report.summary import written
from bench.training.examples import ExampleTasks

FOLDER = Path(__file__).parent
LONG = 40  # lines of a table, beyond which it is folded up
_NO_END = "</script"  # would end a script element wherever it stands


@dataclass(frozen=True)
class Section:
    """A part of summary.md as HTML."""

    title: str
    anchor: str
    body: Markup


def page(
    runs: Sequence[Run],
    arms: Sequence[Arm],
    comparisons: Sequence[Comparison],
    published: Sequence[Beside],
    problems: Sequence[str],
    warn: Warn = log.warning,
) -> str:
    """Return report.html, complete with its scripts and styles; it asks for nothing from anywhere.

    Everything that comes from runs is text on it, whatever it holds.
    """
    title, intro, sections = _sections(written(runs, arms, comparisons, published, problems), _markdown())
    compared = [arm for arm in arms if arm.ok]
    labels = {arm.label: arm.algo for arm in arms}
    look = colours(labels)
    settings = [(place(members[0], compared), members) for _, members in by_setting(compared)]
    headers, lines = filled(result_headers(compared), results(compared))
    commands = [repeat_command(*arm.runs) for arm in compared]
    drawn = figures(compared, comparisons, published, look)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            heading=heading(arm.setting for arm in arms),
            intro=intro,
            sections=sections,
            runs=runs,
            arms=compared,
            counts=_counts(runs),
            verdicts=[(name, verdict_sentences(members, comparisons)) for name, members in settings],
            judged=published_sentences(published),
            result_headers=headers,
            results=list(zip(lines, commands)),
            every_run=[(run.row.run_id, *run_cells(run)) for run in runs],
            run_headers=RUN_HEADERS,
            settings=[name for name, _ in settings],
            figures=[asdict(spec) for spec in drawn],
            figures_json=_json([asdict(spec) for spec in drawn]),
            legend=sorted({arm.label for arm in compared}),
            look=look,
            dark_look=colours(labels, dark=True),
            on_dark_json=_json(on_dark(labels)),
            examples=[(name, found) for name, members in settings if (found := _examples(members, warn))],
            **_libraries(),
            plot_library=_script(_package("plotly", "package_data/plotly.min.js")),
        )
    )


def study_page(text: str, source: str, pictures: Mapping[str, bytes], runs: Sequence[Run]) -> str:
    """Return the page of a study, which is its Markdown with pictures inside it, tables that sort, and its runs.

    Args:
        text: what the study wrote to the file ``source``.
        pictures: PNG files by the paths by which ``text`` names them; it shows no others.
    """
    markdown = _markdown('<table class="sortable" data-rows="100">').enable("image")

    def picture(_: Any, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
        token = tokens[place]
        data = pictures.get(str(token.attrs["src"]))
        if data is None:
            return escape(f"[{token.content}]")
        uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        return Markup('<img class="picture" alt="{}" src="{}">').format(token.content, uri)

    markdown.add_render_rule("image", picture)
    title, intro, sections = _sections(text.split("\n\n"), markdown)
    given = dict.fromkeys(run.details.get("command") for run in runs)
    return (
        _environment()
        .get_template("study.html.j2")
        .render(
            title=title,
            counts=_counts(runs),
            intro=intro,
            sections=sections,
            commands=[command for command in given if isinstance(command, str)],
            source=source,
            runs=runs,
            every_run=[(run.row.run_id, *run_cells(run)) for run in runs],
            run_headers=[header for header in RUN_HEADERS if header != "command"],
            **_libraries(),
        )
    )


def _libraries() -> dict[str, Markup]:
    return {
        "table_library": _script(_package("itables", "html/dt_bundle.js")),
        "table_style": Markup(_package("itables", "html/dt_bundle.css").replace("</style", r"<\/style")),
    }


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["slug"] = _slug
    environment.filters["soft"] = lambda text: Markup(str(escape(text)).replace("=", "=<wbr>"))
    environment.globals["included"] = lambda name: Markup((FOLDER / name).read_text(encoding="utf-8"))
    return environment


@functools.cache
def _package(name: str, path: str) -> str:
    """Return a file that an installed package carries, without importing the package."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / path).read_text(encoding="utf-8")


def _script(text: str) -> Markup:
    """Return a library's code as the contents of a script element."""
    return Markup(text.replace(_NO_END, r"<\/script"))


def _json(value: Any) -> Markup:
    """Return JSON for a script element: no ``<`` in it, so that no text can end the element, and no NaN."""
    text = json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- what summary.md says


def _sections(blocks: Sequence[str], markdown: MarkdownIt) -> tuple[str, Markup, list[Section]]:
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
        sections.append(Section(name, _slug(name), Markup("\n").join(_folded(block, markdown) for block in body)))
    return plain_title, Markup(markdown.render("\n\n".join(parts[0]))), sections


def _folded(block: str, markdown: MarkdownIt) -> Markup:
    rendered, lines = Markup(markdown.render(block)), block.count("\n") - 1
    if not block.startswith("|") or lines <= LONG:
        return rendered
    return Markup("<details><summary>{} lines</summary>{}</details>").format(lines, rendered)


def _markdown(table: str = "<table>") -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "link", "autolink"])
    box = f'<div class="scroll" role="region" aria-label="table" tabindex="0">{table}\n'
    markdown.add_render_rule("table_open", lambda *_: box)
    markdown.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return markdown


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split()) or "section"


def _counts(runs: Sequence[Run]) -> str:
    statuses = [run.row.status for run in runs]
    told = ", ".join(
        f"{statuses.count(status):,} {status}" for status in dict.fromkeys(sorted(statuses, key=_ok_first))
    )
    return f"{len(runs):,} run{'s' * (len(runs) != 1)}: {told}" if runs else "No run has finished yet."


def _ok_first(status: str) -> tuple[bool, str]:
    return status != "ok", status


# --- examples


def _examples(arms: Sequence[Arm], warn: Warn) -> dict[str, Any] | None:
    """Return the example tasks of a setting, with what each arm answers, for the first seed that most arms have."""
    found: dict[int, list[tuple[Arm, ExampleTasks]]] = {}
    seeds = sorted({seed for arm in arms for seed in arm.ok})
    for seed in seeds[:3]:
        for arm in arms:
            data = arm.ok[seed].examples if seed in arm.ok else None
            try:
                kept = ExampleTasks.from_bytes(data) if data else None
            except ValueError as error:
                warn(f"{arm.ok[seed].folder}: {error}")
                continue
            if kept is not None:
                found.setdefault(seed, []).append((arm, kept))
    if not found:
        return None
    seed = max(found, key=lambda seed: (len(found[seed]), -seed))
    first = found[seed][0][1]
    same = [pair for pair in found[seed] if np.array_equal(pair[1].query, first.query)]
    tasks = [
        {
            "support": [_picture(image) for image in first.support[t]],
            "queries": [
                {"picture": _picture(image), "label": n, "answers": [_answers(kept, t, n) for _, kept in same]}
                for n, image in enumerate(first.query[t])
            ],
        }
        for t in range(len(first.query))
    ]
    return {"seed": seed, "labels": [arm.label for arm, _ in same], "tasks": tasks}


def _answers(kept: ExampleTasks, task: int, n: int) -> list[tuple[str, int]]:
    return [(mode, int(getattr(kept, mode)[task, n])) for mode in MODES]


def _picture(image: np.ndarray) -> str:
    """Return a picture as a data URI, dark on light."""
    file = io.BytesIO()
    Image.fromarray(255 - image).save(file, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
