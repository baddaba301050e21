"""Accuracies, paired differences and accuracy after adaptation steps, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.arms import Arm
from bench.analysis.comparison import Comparison
from bench.analysis.curves import adaptation
from bench.records.columns import MODES
from bench.report.words.parts import measures, modes, per_setting
from bench.system.text import fraction, markdown_table, plus_minus


def accuracies(arms: Sequence[Arm]) -> list[str]:
    """Return the tables of test accuracies, or of errors."""

    def table(members: list[Arm]) -> list[str]:
        rows = []
        for arm in members:
            columns = arm.tested.values()
            scores = [plus_minus(arm.mean(c), arm.ci95(c)) for c in columns]
            spread = [fraction(arm.sd(c)) for c in columns]
            tasks = sum(arm.values("test_tasks"))
            before = arm.mean(f"{arm.tested['plain'].removeprefix('test_')}_before_adaptation")
            rows.append([arm.label, *scores, len(arm.ok), *spread, fraction(before), f"{tasks:,.0f}"])
        spreads = [f"sd over seeds ({mode})" for mode in MODES]
        headers = ["algorithm", *modes(members[0]), "seeds", *spreads, "unadapted", "test tasks"]
        return [markdown_table(headers, rows)]

    measures = {arm.measure for arm in arms}
    intro = (
        "Mean over seeds ± half-width of its 95% interval over test tasks; the spread over seeds, which the interval "
        "does not cover, has columns of its own. Unadapted: plain, before the first adaptation step."
    )
    if "accuracy" in measures:
        intro += " Accuracies are fractions."
    if measures != {"accuracy"}:
        intro += " Of an error, less is better."
    return [intro, *per_setting(arms, table)]


def _no_pairs(arms: Sequence[Arm]) -> str:
    if any(arm.measure != "accuracy" for arm in arms):
        return "Paired differences are made of accuracies only."
    return "No two algorithms have finished on the same test tasks."


def differences(comparisons: Sequence[Comparison], arms: Sequence[Arm]) -> list[str]:
    """Return the tables of paired differences."""
    if not comparisons:
        return [_no_pairs(arms)]

    def table(members: list[Arm]) -> list[str]:
        found = [c for c in comparisons if c.setting == members[0].setting]
        several = any(c.seeds > 1 for c in found)
        headers = ["A - B", "mode", "difference", "verdict", "95% interval", "p", "p (Holm)"]
        headers += ["95% interval over seeds", "p over seeds", "p over seeds (Holm)"] if several else []
        rows = []
        for c in found:
            row = [f"{c.algo_a} - {c.algo_b}", c.mode, f"{c.diff:+.4f}", c.verdict]
            row += [_interval(c.ci95_low, c.ci95_high), _p(c.p_value) + " (sampled)" * (c.p_method == "sampled")]
            row += [_p(c.p_value_holm)]
            if several:
                row += [_interval(c.seed_ci95_low, c.seed_ci95_high), _p(c.seed_p_value), _p(c.seed_p_value_holm)]
            rows.append([*row, f"{c.test_tasks:,}", c.seeds])
        return [markdown_table([*headers, "pairs", "seeds"], rows) if rows else _no_pairs(members)]

    intro = (
        "Accuracy of A minus accuracy of B on identical test tasks: paired t interval, p-value of the two-sided "
        "sign-flip test (exact unless it says sampled), and that after Holm's correction for all comparisons of the "
        "table. These say how the models trained here compare on further tasks of the same classes, not what training "
        "again with other seeds would give. With several seeds a t test takes each seed's mean difference as one "
        "observation, corrected alike; only where both tests and all of three or more seeds agree does a verdict say "
        '"better" and no more. Intervals are those of one comparison, not corrected.'
    )
    return [intro, *per_setting(arms, table)]


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def after_steps(arms: Sequence[Arm]) -> list[str]:
    """Return the tables of accuracy after each number of adaptation steps, none where none was followed."""
    adapted = [arm for arm in arms if any(adaptation(arm, mode) for mode in MODES)]
    if not adapted:
        return []

    def table(members: list[Arm]) -> list[str]:
        curves = [(arm.label, mode, curve) for arm in members for mode in MODES if (curve := adaptation(arm, mode))]
        steps = sorted({step for _, _, curve in curves for step in curve})
        rows = [
            [name, mode, *(fraction(curve[step].mean if step in curve else None) for step in steps)]
            for name, mode, curve in curves
        ]
        return [markdown_table(["algorithm", "mode", *(f"step {step}" for step in steps)], rows)]

    points = [point for arm in adapted for run in arm.ok.values() for point in run.adaptation]
    counts = sorted({point.tasks for point in points if point.tasks is not None})
    intro = (
        f"On the first {' or '.join(f'{n:,}' for n in counts)} test tasks of every seed; the number of steps with "
        "which an algorithm is tested above (`eval_inner_steps`) need not be among these."
    )
    return [
        f"## {measures(adapted)} after adaptation steps",
        *([intro] if counts else []),
        *per_setting(adapted, table),
    ]
