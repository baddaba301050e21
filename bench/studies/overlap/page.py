"""overlap.md: what was held fixed, a table per sweep, differences."""

from collections.abc import Mapping, Sequence

from bench.analysis.comparison import Comparison
from bench.records.run import Run
from bench.studies.arms.cells import Cell
from bench.studies.arms.tables import HOW_TO_COMPARE, MODES, CellRow, held_fixed, missing, plain_differences
from bench.studies.axes import Axis
from bench.studies.overlap.cells import ARMS, AXES, NAME, setting
from bench.system.text import markdown_table, plus_minus


def axis_table(axis: Axis, rows: Sequence[CellRow]) -> str:
    """Return plain test accuracy by value and arm as a Markdown table."""
    members = {(row.value, row.arm): row for row in rows if row.axis == axis.name}
    arms = [arm for name, arm in ARMS.items() if any(name == other for _, other in members)]

    def cell(row: CellRow) -> str:
        if row.test_acc is None or row.test_acc_ci95 is None:
            return row.status
        return plus_minus(row.test_acc, row.test_acc_ci95)

    lines = [
        [value, *(cell(members[value, arm.name]) for arm in arms)]
        for value in dict.fromkeys(value for value, _ in members)
        if value is not None
    ]
    return markdown_table([axis.label, *(arm.label for arm in arms)], lines)


def markdown(
    axes: Sequence[Axis], wanted: Sequence[Cell], rows: Sequence[CellRow],
    pairs: Mapping[tuple[str, float | None], Sequence[Comparison]], runs: Mapping[str, Run],
) -> str:  # fmt: skip
    """Return the study's page: what was held fixed, a table per sweep, differences."""
    config = next((cell for cell in wanted if cell.axis != "inner_batch"), wanted[0]).configs[0]
    images, tail = config.n_way * (config.train_shots + config.k_query), config.n_way * config.k_query
    seeds = ", ".join(str(c.seed) for c in wanted[0].configs)
    fixed = [
        "The settings are ours: the paper's own table of this experiment was not found.",
        f"{config.dataset}, {config.n_way}-way {config.k_shot}-shot, backbone {config.network}, "
        f"{config.meta_steps:,} meta-steps of {config.meta_batch} task(s), seeds {seeds}; outer "
        f"{config.meta_optimizer}, {config.meta_lr_schedule} schedule, the same outer step for all arms, although "
        "Reptile's sum of gradients is longer than one of them.",
        f"A training task holds {images} images, the same tasks for all arms. Separate tail: {tail} of them are held "
        f"out for the last step, the other {images - tail} cycle in the steps before; where the minibatch is varied, "
        "the tail is as large as it, and half of the images at most. Shared tail, and Reptile: all minibatches come "
        "from all images, cycling (every image once before any comes again), or, with replacement, each drawn from all "
        "of them anew (no image twice in one minibatch; with minibatches of all images this is the same as cycling).",
        f"Where not varied: {_base(wanted)}.",
        f"Test: {config.eval_inner_steps} steps on the whole support set, {config.test_tasks:,} meta-test tasks with "
        f"{config.eval_k_query} query image(s) per class, the same for all.",
    ]
    parts = [
        "# Minibatch overlap in first-order MAML",
        "After section 6.3 of Nichol et al. 2018, arXiv:1803.02999.",
        held_fixed(fixed, rows, runs),
        f"![test accuracy by inner steps, minibatch and outer step](plots/{NAME}.png)",
        missing(rows),
        f"{MODES} FOML: first-order MAML on minibatches. Plain accuracy on meta-test, a fraction: mean over seeds ± "
        "half-width of the 95% interval over test tasks; overlap.csv has the other mode and the spread over seeds.",
    ]
    for axis in axes:
        parts += [f"## By {axis.label}", axis_table(axis, rows)]
    parts += ["## Differences", HOW_TO_COMPARE]
    for (name, value), comparisons in pairs.items():
        if any(c.mode == "plain" for c in comparisons):
            label = next(axis.label for axis in AXES if axis.name == name)
            parts += [f"**{label.capitalize()}: {value:g}**", plain_differences(comparisons)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _base(wanted: Sequence[Cell]) -> str:
    """Name what the swept settings are where another is swept."""
    found = []
    for axis in AXES:
        config = next((cell.configs[0] for cell in wanted if cell.axis != axis.name), None)
        if config is not None:
            found.append(f"{axis.label} {setting(config, axis.name)}")
    return ", ".join(found)
