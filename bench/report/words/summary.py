"""summary.md: the whole comparison in words and tables, readable as it is."""

from __future__ import annotations

from bench.analysis.naming import heading
from bench.analysis.results import Results
from bench.report.drawing.pictures import FOLDER as PLOTS
from bench.report.outputs import Files, output, outputs
from bench.report.words import costs, published, runs, scores, settings, tuning
from bench.report.words.parts import measures, modes_told
from bench.system.files import utf8
from bench.system.text import escape


@output("summary.md", "the comparison, readable as it is")
def summary_md(results: Results) -> Files:
    """Return summary.md: verdicts, what was compared, tables, and the pictures by their paths."""
    title, *blocks = sections(results)
    first = next((i for i, block in enumerate(blocks) if block.startswith("## ")), len(blocks))
    blocks[first:first] = _verdicts(results)
    if results.compared or results.searches:
        blocks += ["## Plots", *(f"![{escape(path)}]({path})" for path in _pictures(results))]
    return {"summary.md": utf8("\n\n".join([title, *blocks]) + "\n")}


def sections(results: Results) -> list[str]:
    """Return what summary.md and report.html both say, as blocks of Markdown: the title, then sections below ``## ``.

    Whatever comes from outside is escaped, so that the blocks hold no HTML.
    """
    arms, finished = results.arms, results.compared
    datasets = list(dict.fromkeys(escape(arm.setting.data) for arm in arms))
    if arms:
        blocks = [f"# Comparison on {escape(heading(arm.setting for arm in arms))}"]
        blocks.append(
            f"**All results here are on {' and '.join(datasets)}. They are not comparable with numbers measured on "
            f"another data set or under another protocol{'' if results.published else ', published ones included'}.**"
        )
    else:
        blocks = ["# Comparison", "No run has finished yet."]
    blocks += [f"**{escape(text)}**" for text in settings.cautions(arms)]
    if lines := [f"- {escape(problem)}" for problem in results.problems]:
        blocks += ["**Files left out because they are damaged:**", "\n".join(lines)]
    if finished:
        blocks += ["## What was compared", *settings.episodes(finished)]
        blocks += settings.deviations(finished)
        blocks += [f"## {measures(finished)} on meta-test", *scores.accuracies(finished)]
        blocks += ["## Paired differences", *scores.differences(results.comparisons, finished)]
    blocks += published.published(results.published)
    blocks += tuning.tuning(results.searches)
    if finished:
        blocks += ["## Cost", *costs.costs(finished)]
        blocks += costs.times(finished)
        blocks += scores.after_steps(finished)
    if failed := [run for run in results.runs if not run.ok]:
        blocks += ["## Runs that are not in the comparison", runs.failures(failed)]
    if results.runs:
        blocks += ["## Environment", runs.environment(results.runs), *runs.commands(results.runs)]
    return blocks


def _verdicts(results: Results) -> list[str]:
    lines = [
        f"- {escape(f'{outcome.place}, {outcome.mode}: ' + ' '.join(outcome.sentences))}"
        for outcome in results.outcomes
    ]
    return ["## Verdicts", modes_told(results.compared), "\n".join(lines)] if lines else []


def _pictures(results: Results) -> list[str]:
    """Return the paths of the pictures for a column, in the order of the outputs."""
    made = (path for one in outputs() if one.folder == PLOTS for path in one.files(results))
    return [path for path in made if path.endswith(".png") and path.count("/") == 1]
