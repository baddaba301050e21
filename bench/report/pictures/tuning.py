"""Best validation so far against trials spent."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bench.analysis.results import Results
from bench.analysis.tuning import best_so_far, settings_of
from bench.records.tuning import Search
from bench.report.drawing.axes import finish, fraction_axis
from bench.report.drawing.legends import grow_for_titles, put_legend
from bench.report.drawing.panels import COLUMN, Page, entitle, new_figure
from bench.report.drawing.pictures import FOLDER, files_of
from bench.report.drawing.styles import GREY, TEXT, literal, styles_of, wrapped
from bench.report.outputs import Files, output

HEIGHT = 2.2  # of a panel, inches


@output(f"{FOLDER}/tuning", "best validation so far against trials spent; only where there is a search", rank=8)
def tuning(results: Results) -> Files:
    """Return the picture, nothing where nobody searched."""
    settings = settings_of(results.searches)
    draw = functools.partial(draw_searches, settings)
    return files_of(f"{FOLDER}/tuning", draw, len(settings)) if settings else {}


def draw_searches(settings: Mapping[str, Sequence[Search]], page: Page = COLUMN) -> Figure:
    """Draw the best score so far as steps, each trial as a point, and the protocol's own values as a ring."""
    shown = page.share(list(settings.items()))
    columns = min(page.columns, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(page, rows * HEIGHT)
    everywhere = sorted({search.dataset for members in settings.values() for search in members})
    protocols = sorted({search.protocol for members in settings.values() for search in members})
    entitle(figure, f"Tuning: {', '.join(everywhere)}, protocol {', '.join(protocols)}", rows * HEIGHT)
    look = styles_of({search.algo: search.algo for members in settings.values() for search in members})
    for i, (name, members) in enumerate(shown):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.set_title(literal(wrapped(name, int(15 * (page.width / columns - 1.0)))), fontsize=TEXT)
        values: list[float] = []
        for search in members:
            style = look[search.algo]
            best = [(n, b.score) for n, b in enumerate(best_so_far(search), 1) if b is not None and b.score is not None]
            axes.step(
                [n for n, _ in best], [s for _, s in best], where="post", color=style.colour, ls=style.dash, lw=1.3
            )
            for n, trial in enumerate(search.trials, 1):
                if trial.score is None or trial.state not in ("complete", "pruned"):
                    continue
                whole = trial.state == "complete"
                axes.plot(
                    n, trial.score, style.marker, color=style.colour, mfc=style.colour if whole else "none", mew=0.8,
                    markersize=3.5, alpha=0.9 if whole else 0.6,
                )  # fmt: skip
                values.append(trial.score)
                if trial.number == 0:
                    axes.plot(n, trial.score, "o", color=style.colour, mfc="none", markersize=8, mew=1.2)
        if all(search.kind == "acc" for search in members):
            fraction_axis(axes, values, "validation accuracy,\ntransductive")
        else:
            axes.set_ylabel(f"validation {members[0].measure}, less is better")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        finish(axes, "trials spent", "", bool(values))
    drawn = {search.algo for _, members in shown for search in members}
    handles = [
        Line2D([], [], color=s.colour, ls=s.dash, marker=s.marker, markersize=4.5, label=literal(algo))
        for algo, s in look.items()
        if algo in drawn
    ]
    further = [
        Line2D(
            [], [], ls="none", marker="o", markersize=8, mfc="none", color=GREY, label="ring: the protocol's values"
        ),
        Line2D([], [], ls="none", marker="o", markersize=3.5, color=GREY, label="filled: a complete trial"),
        Line2D(
            [], [], ls="none", marker="o", markersize=3.5, mfc="none", color=GREY, label="hollow: pruned, as it stood"
        ),
        Line2D([], [], color=GREY, label="line: best complete trial so far"),
    ]
    grow_for_titles(figure)
    put_legend(figure, handles, further)
    return figure
