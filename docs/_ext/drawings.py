"""Pictures of the documentation, drawn from the committed results and from the imports of the code."""

import configparser
import importlib
import inspect
import io
import re
from collections import Counter
from functools import cache

import grimp
import matplotlib

matplotlib.use("Agg")  # before pyplot: there is no screen

import numpy as np
from algorithm_pages import RESULTS
from markup import code, prose, stacked, table
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from reference import REPOSITORY

from bench.analysis.results import Results, load
from bench.report.drawing.colours import colours

GREY, INK, BLUE = "#9aa0a6", "#333333", "#2166ac"
BLOCK = 100
"""Test tasks of a block in the picture of intervals."""


def _svg(figure: Figure) -> bytes:
    """Return a figure as SVG that is the same at every build."""
    page = io.BytesIO()
    with plt.rc_context({"svg.hashsalt": "docs"}):
        figure.savefig(page, format="svg", metadata={"Date": None}, facecolor="white")
    plt.close(figure)
    return page.getvalue()


@cache
def _quick() -> Results:
    return load(RESULTS / "quick-cpu")


def pairing() -> bytes:
    """Draw the differences of quick-cpu twice: as if each algorithm had tasks of its own, and task by task."""
    results = _quick()
    half = {(arm.label, mode): arm.ci95(column) for arm in results.arms for mode, column in arm.tested.items()}
    figure, axes = plt.subplots(figsize=(5.4, 3.4), layout="constrained")
    pairs = list(results.comparisons)
    for y, c in enumerate(reversed(pairs)):
        apart = float(np.hypot(half[c.algo_a, c.mode], half[c.algo_b, c.mode]))
        axes.errorbar(c.diff, y + 0.14, xerr=apart, color=GREY, fmt="o", ms=3, capsize=3)
        within = [[c.diff - c.ci95_low], [c.ci95_high - c.diff]]
        axes.errorbar(c.diff, y - 0.14, xerr=within, color=BLUE, fmt="o", ms=4, lw=2.2, capsize=3)
    axes.set_yticks(range(len(pairs)), [f"{c.algo_a} - {c.algo_b}\n{c.mode}" for c in reversed(pairs)], fontsize=8)
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_xlabel("difference in test accuracy, with its 95% interval", fontsize=8.5)
    axes.tick_params(axis="x", labelsize=8)
    handles = [plt.Line2D([], [], color=c, marker="o", lw=2, label=text) for c, text in _LEGEND.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize=8.5, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


_LEGEND = {GREY: "each on tasks of its own", BLUE: "paired, task by task"}


def interval() -> bytes:
    """Draw the accuracy of quick-cpu's maml on blocks of test tasks beside the interval of all of them."""
    (arm,) = (arm for arm in _quick().arms if arm.algo == "maml")
    accuracy = next(iter(arm.ok.values())).test_tasks["acc"].to_numpy()
    blocks = accuracy[: len(accuracy) // BLOCK * BLOCK].reshape(-1, BLOCK)
    mean, half = arm.mean("test_acc"), arm.ci95("test_acc")
    colour = colours(["maml"])["maml"]
    figure, axes = plt.subplots(figsize=(5.4, 2.6), layout="constrained")
    axes.axhspan(mean - half, mean + half, color=colour, alpha=0.25, lw=0)
    axes.axhline(mean, color=colour, lw=1.5)
    x = np.arange(1, len(blocks) + 1)
    halves = 1.96 * blocks.std(axis=1, ddof=1) / np.sqrt(BLOCK)
    axes.errorbar(x, blocks.mean(axis=1), yerr=halves, fmt="o", ms=4, color=INK, ecolor=GREY, capsize=3)
    axes.set_xlabel(f"blocks of {BLOCK} test tasks, each with its own 95% interval", fontsize=8.5)
    axes.set_ylabel("plain accuracy", fontsize=8.5)
    axes.set_xticks(x)
    axes.tick_params(labelsize=8)
    axes.annotate(
        f"all {len(accuracy):,} tasks: {mean:.4f} ± {half:.4f}",
        (0.02, 0.04),
        xycoords="axes fraction",
        fontsize=8.5,
    )
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def layers() -> list[list[str]]:
    """Return the wings of ``bench`` as in setup.cfg, from the top to the ground; independent ones share a layer."""
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    lines = setup["importlinter:contract:wings"]["layers"].split("\n")
    found = (re.findall(r"(?<!\()\b\w+\b(?!\))", line) for line in lines)  # those in brackets are doors, not wings
    return [names for names in found if names]


@cache
def imports() -> Counter[tuple[str, str]]:
    """Return how many files of one wing import from another, by (importer, imported)."""
    graph = grimp.build_graph("bench", cache_dir=None)
    found: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        used = {_wing(other) for other in graph.find_modules_directly_imported_by(module)} - {"", _wing(module)}
        found.update((_wing(module), other) for other in used if _wing(module))
    return found


def _wing(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def wings_table() -> str:
    """Return a table of the wings from the ground up, with what each of them says of itself."""
    rows = [(code(f"bench/{name}"), _says(name)) for layer in reversed(layers()) for name in layer]
    return stacked(table(("wing", "what lives there"), rows))


def _says(name: str) -> str:
    module = importlib.import_module(f"bench.{name}")
    return prose(" ".join((inspect.getdoc(module) or "").split("\n\n")[0].split()))


def _reduced(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the pairs that no way through others replaces."""

    def reaches(start: str, end: str) -> bool:
        return any(b == end or reaches(b, end) for a, b in pairs if a == start)

    return {(a, b) for a, b in pairs if not any(reaches(c, b) for x, c in pairs if x == a and c != b)}


def wings() -> bytes:
    """Draw the wings as boxes, the ground at the bottom, and an arrow from a wing to each that it imports.

    An arrow is left out where others lead there on the way, so that those that are drawn can be followed.
    """
    places = {name: (i, y) for y, layer in enumerate(reversed(layers())) for i, name in enumerate(layer)}
    halved = {name for layer in layers() if len(layer) > 1 for name in layer}
    figure, axes = plt.subplots(figsize=(4.8, 6.4), layout="constrained")
    for name, (i, y) in places.items():
        left, wide = (1.04 * i, 0.96) if name in halved else (0.0, 2.0)
        axes.add_patch(plt.Rectangle((left, y - 0.3), wide, 0.6, facecolor="#e8eef7", edgecolor=BLUE, lw=1))
        axes.text(left + wide / 2, y, name, ha="center", va="center", fontsize=9, color=INK)
    for importer, imported in sorted(_reduced({pair for pair in imports() if set(pair) <= places.keys()})):
        (i, above), below = places[importer], places[imported][1]
        right = bool(i) if importer in halved else above % 2 == 1
        x, colour = (2.0, _INKS[above % len(_INKS)]) if right else (0.0, _INKS[above % len(_INKS)])
        bend = f"arc3,rad={'-' if right else ''}0.55"
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 0.9, "shrinkA": 0, "shrinkB": 0, "connectionstyle": bend}
        axes.annotate("", (x, below + 0.12), (x, above - 0.12), arrowprops=arrow)
    axes.set_xlim(-2.1, 4.1)
    axes.set_ylim(-0.6, len(layers()) - 0.4)
    axes.axis("off")
    return _svg(figure)


_INKS = ("#2166ac", "#b2182b", "#1b7837", "#762a83", "#8c510a")
