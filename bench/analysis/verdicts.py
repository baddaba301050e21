"""The outcome of a setting in a few sentences, which say no more than the verdicts of the comparisons do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from bench.analysis.anchors import Beside
from bench.analysis.comparison import Arm, Comparison, budgets
from bench.records.run import MODES
from bench.system.text import plus_minus

ALL_PAIRS = 4  # arms; of more only the leader's pairs are told, the table has the others
NAMED = 6  # names in one sentence


def verdict_sentences(arms: Sequence[Arm], comparisons: Iterable[Comparison]) -> dict[str, list[str]]:
    """Return plain sentences on the arms of one setting, by test mode; ``comparisons`` may hold other settings' too.

    The first names the arm with the best mean, which is a fact and no verdict. The others are verdicts of pairs, those
    with the same restriction in one sentence, word for word as ``Comparison.verdict`` restricts them.
    """
    arms = [arm for arm in arms if arm.ok]
    if not arms:
        return {}
    pairs = [c for c in comparisons if c.setting == arms[0].setting]
    found = {mode: _of_mode(arms, [c for c in pairs if c.mode == mode], mode) for mode in MODES}
    return {mode: [*sentences, *unequal(arms)] for mode, sentences in found.items()}


def published_sentences(lines: Iterable[Beside]) -> list[str]:
    """Return a sentence for each published value that something of ours stands beside."""
    return [
        f"{line.label}, {line.anchor.n_way}-way {line.anchor.k_shot}-shot {line.anchor.mode}:"
        f" {plus_minus(line.test_acc, line.test_acc_ci95 or math.nan)}, published"
        f" {plus_minus(line.anchor.published, line.anchor.published_pm or math.nan)}: {line.verdict}."
        for line in lines
        if line.test_acc is not None
    ]


def unequal(arms: Sequence[Arm]) -> list[str]:
    """Return what the arms of one setting did not have in common, which restricts every verdict on them."""
    sentences = []
    seen = budgets(arms)
    if len({tuple(budget) for budget in seen.values()}) > 1:
        least, most = (choose(n for budget in seen.values() for n in budget) for choose in (min, max))
        sentences.append(f"Training budgets differ: {least:,} to {most:,} tasks.")
    steps = {a.label: run.row.inner_steps for a in arms for run in a.ok.values() if run.row.inner_steps is not None}
    if len(set(steps.values())) > 1:
        by_count: dict[int, list[str]] = {}
        for label, count in sorted(steps.items(), key=lambda pair: pair[1]):
            by_count.setdefault(count, []).append(label)
        told = (f"{count} ({_listed(labels)})" for count, labels in by_count.items())
        sentences.append(f"Inner steps in training differ: {', '.join(told)}.")
    return sentences


def _of_mode(arms: Sequence[Arm], pairs: Sequence[Comparison], mode: str) -> list[str]:
    accuracy = all(arm.measure == "accuracy" for arm in arms)
    known = [(arm.mean(arm.tested[mode]), arm) for arm in arms]
    known = [(mean, arm) for mean, arm in known if math.isfinite(mean)]
    if not known:
        return ["Nothing was measured."]
    best, leader = (max if accuracy else min)(known, key=lambda pair: pair[0])
    score = plus_minus(best, leader.ci95(leader.tested[mode]))
    measure = "accuracy" if accuracy else leader.measure
    if len(known) == 1:
        only = "Only one algorithm has finished: there is nothing to compare it with."
        return [f"{leader.label}: {measure} {score}.", only]
    ties = [arm.label for mean, arm in known if mean == best]
    sentences = [f"{'Highest' if accuracy else 'Lowest'} mean {measure}: {_listed(ties)}, {score}."]
    if not accuracy:
        return [*sentences, "Differences of errors are not tested, so that this is no verdict."]
    if not pairs:
        return [*sentences, "No two algorithms have finished on the same test tasks, so that this is no verdict."]
    if len(known) > ALL_PAIRS:
        pairs = [c for c in pairs if leader.label in (c.algo_a, c.algo_b)]
    return sentences + _told(pairs)


def _told(pairs: Sequence[Comparison]) -> list[str]:
    shown: dict[tuple[str, str], list[str]] = {}
    open_: dict[str, list[str]] = {}
    for c in pairs:
        better, worse = (c.algo_a, c.algo_b) if c.diff > 0 else (c.algo_b, c.algo_a)
        words = f"{better} better"
        if c.verdict.startswith(words):
            shown.setdefault((better, c.verdict[len(words) :]), []).append(f"{worse} by {abs(c.diff):.4f}")
        else:
            open_.setdefault(c.algo_a, []).append(c.algo_b)
    sentences = []
    for (better, restriction), beaten in shown.items():
        sentences.append(f"{better} is better than {_listed(beaten)}{_tidy(restriction)}.")
    for first, others in open_.items():
        sentences.append(f"No difference shown between {first} and {_listed(others, 'or')}.")
    return sentences


def _tidy(restriction: str) -> str:
    return f",{restriction}" if restriction and not restriction.startswith((" (", ",", ";")) else restriction


def _listed(names: Sequence[str], word: str = "and") -> str:
    if len(names) > NAMED:
        names = [*names[:NAMED], f"{len(names) - NAMED} more"]
    return f"{', '.join(names[:-1])} {word} {names[-1]}" if len(names) > 1 else names[0]
