"""gradient-combination.md: what was held fixed, results, what the theory says, differences."""

from collections.abc import Mapping, Sequence

from bench.analysis.comparison import Comparison
from bench.records.run import Run
from bench.studies.arms import tables as arms
from bench.studies.arms.cells import Cell
from bench.studies.arms.tables import CellRow
from bench.studies.gradient_combination.combinations import BASE, COMBINATIONS, IMAGES, NAME
from bench.system.text import markdown_table, number


def result_table(rows: Sequence[CellRow]) -> str:
    """Return what every arm reached on meta-test."""
    headers = ["arm", "algorithm", "inner steps", "outer step", "plain", "seed sd", "transductive", "seed sd"]
    lines = [
        [COMBINATIONS[row.arm].label, row.algo, row.inner_steps, number(row.meta_lr), *arms.score_cells(row)]
        for row in rows
    ]
    return markdown_table(headers, lines)


def theory_table(rows: Sequence[CellRow]) -> str:
    """Return what the expansion of the paper's section 5 says of every arm.

    The expected gradient of one of k inner steps on different minibatches is AvgGrad less (its place - 1) a
    AvgGradInner, up to a^2: g_j has the j - 1 steps before it.
    """
    lines = []
    for row in rows:
        c, k = COMBINATIONS[row.arm], row.inner_steps
        inner = c.share * sum(range(k - c.terms, k))
        ratio = inner / (c.share * c.terms) * row.inner_lr
        lines.append([c.label, number(c.share * c.terms), f"{number(inner)} a" if inner else "0", number(ratio)])
    return markdown_table(["arm", "AvgGrad", "AvgGradInner", "AvgGradInner / AvgGrad at our a"], lines)


THEORY = (
    "For small inner rates a, the expected meta-gradient of k steps on different minibatches is a multiple of "
    "AvgGrad, the gradient of the mean loss, minus a multiple of AvgGradInner, which raises the inner product of the "
    "gradients of different minibatches of a task, up to terms in a² (section 5 of the paper; "
    "`tests/algorithms/test_foml.py` measures these multiples on random quadratics). The more AvgGradInner beside "
    "AvgGrad, the more a step is about "
    "learning fast: MAML > first-order MAML > Reptile at the same k."
)
GENERAL = markdown_table(
    ["meta-gradient of k steps", "AvgGrad", "AvgGradInner", "AvgGradInner / AvgGrad"],
    [
        ["MAML", "1", "2 (k - 1) a", "2 (k - 1) a"],
        ["first-order MAML, the last gradient", "1", "(k - 1) a", "(k - 1) a"],
        ["Reptile, the sum of k", "k", "k (k - 1) a / 2", "(k - 1) a / 2"],
    ],
)


def markdown(
    wanted: Sequence[Cell], rows: Sequence[CellRow], pairs: Sequence[Comparison], runs: Mapping[str, Run]
) -> str:
    """Return the study's page: what was held fixed, results, theory, differences."""
    config = wanted[0].configs[0]
    hyper, seeds = config.hyperparameters, ", ".join(str(c.seed) for c in wanted[0].configs)
    paper = "" if config.meta_steps == BASE["meta_steps"] else f" (the paper: {BASE['meta_steps']:,})"
    fixed = [
        f"{config.dataset}, {config.n_way}-way {config.k_shot}-shot, backbone {config.network}, "
        f"{config.meta_steps:,} meta-steps{paper} of {config.meta_batch} task(s), seeds {seeds}.",
        f"Inner SGD of {hyper['inner_lr']} on mean losses of {hyper['inner_batch']} images (0.003 on a sum of 25 is "
        f"0.075 here); outer {config.meta_optimizer}, {config.meta_lr_schedule} schedule, its first step in the table.",
        f"A training task holds {IMAGES} images per class for every inner step, so that the minibatches, whose order "
        "belongs to the task, never overlap. Arms with equally many inner steps train on identical tasks; arms with "
        "more steps see more images.",
        f"Test: {config.eval_inner_steps} steps on the whole support set; {config.test_tasks:,} meta-test tasks with "
        f"{config.eval_k_query} query image(s) per class, the same for all arms, looked at once, at the end. Curves: "
        f"transductive accuracy on {config.val_tasks} meta-validation tasks, the same at every point.",
    ]
    parts = [
        "# Combinations of inner-loop gradients",
        "After section 6.2 of Nichol et al. 2018, arXiv:1803.02999.",
        arms.held_fixed(fixed, rows, runs),
        f"![accuracy along the run and on meta-test](plots/{NAME}.png)",
        arms.missing(rows),
        *("## Accuracy on meta-test", arms.HOW_TO_READ, result_table(rows)),
        *("## What the theory says", THEORY, GENERAL, f"For these arms, a = {hyper['inner_lr']}:", theory_table(rows)),
        *("## Differences", arms.HOW_TO_COMPARE, arms.plain_differences(pairs)),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"
