"""report.html: the whole comparison on one page that needs nothing but a browser.

Tables and words are those of summary.md; what the page adds is figures that answer, tables that sort and filter,
examples, and the command of every run.
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby

from bench.analysis.arms import by_setting
from bench.analysis.naming import heading, place
from bench.analysis.outcomes import published_sentences
from bench.analysis.results import Results
from bench.report.drawing.colours import colours
from bench.report.interactive.figures import figures, on_dark
from bench.report.outputs import Files, output
from bench.report.page.elements import as_json, environment, libraries, package, script
from bench.report.page.examples import examples
from bench.report.page.sections import counts, markdown_html, sections_of
from bench.report.page.tables import RUN_HEADERS, filled, result_headers, result_rows, run_cells
from bench.report.repeat import repeat_command
from bench.report.words import summary
from bench.report.words.parts import modes_told
from bench.system.files import utf8


@output(
    "report.html",
    "all of it on one page for a browser, which needs no network: verdicts in sentences, tables that sort and filter, "
    "figures that show their values, example tasks with each algorithm's answers, the command of every run",
)
def report_html(results: Results) -> Files:
    """Return the page, complete with its scripts and styles; it asks for nothing from anywhere.

    Everything that comes from runs is text on it, whatever it holds.
    """
    title, intro, sections = sections_of(summary.sections(results), markdown_html())
    compared = results.compared
    labels = {arm.label: arm.algo for arm in results.arms}
    look = colours(labels)
    settings = [(place(members[0], compared), members) for _, members in by_setting(compared)]
    headers, lines = filled(result_headers(compared), result_rows(results))
    commands = [repeat_command(*arm.runs) for arm in compared]
    drawn = [asdict(spec) for spec in figures(results, look)]
    text = (
        environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            heading=heading(arm.setting for arm in results.arms),
            intro=intro,
            sections=sections,
            runs=results.runs,
            arms=compared,
            counts=counts(results.runs),
            verdicts=_verdicts(results),
            modes_told=modes_told(compared),
            judged=published_sentences(results.published),
            result_headers=headers,
            results=list(zip(lines, commands)),
            starred=any(cell.wins for line in lines for cell in line),
            every_run=[(run.row.run_id, *run_cells(run)) for run in results.runs],
            run_headers=RUN_HEADERS,
            settings=[name for name, _ in settings],
            figures=drawn,
            figures_json=as_json(drawn),
            legend=sorted({arm.label for arm in compared}),
            look=look,
            dark_look=colours(labels, dark=True),
            on_dark_json=as_json(on_dark(labels)),
            examples=[(name, found) for name, members in settings if (found := examples(members))],
            **libraries(),
            plot_library=script(package("plotly", "package_data/plotly.min.js")),
        )
    )
    return {"report.html": utf8(text)}


def _verdicts(results: Results) -> list[tuple[str, dict[str, tuple[str, ...]]]]:
    """Return name and sentences by test mode of every setting."""
    return [
        (found[0].place, {outcome.mode: outcome.sentences for outcome in found})
        for _, group in groupby(results.outcomes, key=lambda outcome: outcome.setting)
        if (found := list(group))
    ]
