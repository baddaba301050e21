"""The outcome of every setting, decided once: who leads, who wins, and the sentences that say so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.analysis.arms import Arm, Setting, budgets, by_setting
from bench.analysis.comparison import Comparison
from bench.analysis.naming import place
from bench.analysis.published import Beside
from bench.analysis.verdicts import listed, sentences
from bench.records.columns import MODES
from bench.settings.protocols import load_protocol, protocol_names
from bench.system.text import plus_minus

ALL_PAIRS = 6
"""Arms of one setting whose pairs are all told; of more the leader's are, and a sentence says so."""


@dataclass(frozen=True)
class Outcome:
    """What may be said of one setting in one test mode. Every output takes its words and marks from here.

    ``leader`` is the arm with the best mean, which is a fact and no verdict. ``winner`` is the arm that beats each of
    the others: the corrected test over tasks shows it and all seeds agree. ``settled`` says that the test over seeds
    shows it too, so that it holds of the algorithms and not only of the models trained here. Labels are empty where
    there is none.
    """

    setting: Setting
    place: str
    mode: str
    leader: str
    winner: str
    settled: bool
    sentences: tuple[str, ...]


def outcomes(arms: Sequence[Arm], comparisons: Sequence[Comparison]) -> list[Outcome]:
    """Return what may be said of every setting with finished runs, in both test modes."""
    finished = [arm for arm in arms if arm.ok]
    return [
        _outcome(members, [c for c in comparisons if c.setting == setting and c.mode == mode], mode, finished)
        for setting, members in by_setting(finished)
        for mode in MODES
    ]


def _outcome(arms: Sequence[Arm], pairs: Sequence[Comparison], mode: str, among: Sequence[Arm]) -> Outcome:
    leader = leader_of(arms, mode)
    beaten = _beaten(pairs, lambda c: c.judged.shown and all(d * c.diff > 0 for d in c.seed_diffs))
    for_good = _beaten(pairs, lambda c: c.judged.settled)
    others = {arm.label: {other.label for other in arms} - {arm.label} for arm in arms}
    winner = next((label for label, rest in others.items() if rest and rest <= beaten.get(label, set())), "")
    settled = bool(winner) and others[winner] <= for_good.get(winner, set())
    protocol = arms[0].setting.protocol
    if protocol in protocol_names() and load_protocol(protocol).caution:
        why = "No verdict: this protocol's budget is too small for one."
        return Outcome(arms[0].setting, place(arms[0], among), mode, "", "", False, (why,))
    said = (*_sentences(arms, pairs, mode, leader), *unequal(arms))
    told = place(arms[0], among)
    return Outcome(arms[0].setting, told, mode, leader.label if leader else "", winner, settled, said)


def _beaten(pairs: Iterable[Comparison], test: Callable[[Comparison], bool]) -> dict[str, set[str]]:
    """Return by label the labels that it beats by the test."""
    found: dict[str, set[str]] = {}
    for c in pairs:
        if test(c):
            found.setdefault(c.judged.better, set()).add(c.judged.worse)
    return found


def leader_of(arms: Sequence[Arm], mode: str) -> Arm | None:
    """Return the arm with the best mean, None where nothing was measured."""
    known = [arm for arm in arms if math.isfinite(arm.mean(arm.tested[mode]))]
    sign = 1 if all(arm.measure == "accuracy" for arm in arms) else -1
    return max(known, key=lambda arm: sign * arm.mean(arm.tested[mode]), default=None)


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
    said = []
    if seen := unequal_budgets(arms):
        least, most = (choose(n for budget in seen.values() for n in budget) for choose in (min, max))
        said.append(f"Training budgets differ: {least:,} to {most:,} tasks.")
    for column, where in (("inner_steps", "Inner steps in training"), ("eval_inner_steps", "Adaptation steps at test")):
        if by_count := unequal_steps(arms, column):
            told = (f"{count} ({listed(labels)})" for count, labels in by_count.items())
            said.append(f"{where} differ: {', '.join(told)}.")
    efforts = {arm.tuning for arm in arms}
    if len(efforts) == 2 and not all(arm.trials for arm in arms):
        said.append(f"Tuning differs, as the names say: {' or '.join(sorted(efforts, reverse=True))}.")
    elif len(efforts) > 1:
        by_tuning: dict[str, list[str]] = {}
        for arm in arms:
            by_tuning.setdefault(arm.tuning, []).append(arm.label)
        said.append(f"Tuning differs: {', '.join(f'{listed(names)} {how}' for how, names in by_tuning.items())}.")
    return said


def unequal_budgets(arms: Sequence[Arm]) -> dict[str, list[int]]:
    """Return the numbers of training tasks by arm, nothing where they are the same."""
    seen = budgets(arms)
    return seen if len({tuple(budget) for budget in seen.values()}) > 1 else {}


def unequal_steps(arms: Sequence[Arm], column: str = "inner_steps") -> dict[int, list[str]]:
    """Return the arms by their inner steps in training, or by another column, nothing where they are the same.

    Those without an inner loop are in none, whatever number of steps their protocol has for others.
    """
    looping = ((arm, run.row) for arm in arms for run in arm.ok.values() if run.row.inner_steps is not None)
    known = ((arm.label, getattr(row, column)) for arm, row in looping)
    steps = {label: count for label, count in known if count is not None}
    by_count: dict[int, list[str]] = {}
    for label, count in sorted(steps.items(), key=lambda pair: pair[1]):
        by_count.setdefault(count, []).append(label)
    return by_count if len(by_count) > 1 else {}


def _sentences(arms: Sequence[Arm], pairs: Sequence[Comparison], mode: str, leader: Arm | None) -> list[str]:
    if leader is None:
        return ["Nothing was measured."]
    accuracy = all(arm.measure == "accuracy" for arm in arms)
    best = leader.mean(leader.tested[mode])
    score = plus_minus(best, leader.ci95(leader.tested[mode]))
    measure = "accuracy" if accuracy else leader.measure
    known = [arm for arm in arms if math.isfinite(arm.mean(arm.tested[mode]))]
    if len(known) == 1:
        only = "Only one algorithm has finished: there is nothing to compare it with."
        return [f"{leader.label}: {measure} {score}.", only]
    ties = [arm.label for arm in known if arm.mean(arm.tested[mode]) == best]
    shared = f"{best:.4f} each" if len(ties) > 1 else score
    said = [f"{'Highest' if accuracy else 'Lowest'} mean {measure}: {listed(ties)}, {shared}."]
    if not accuracy:
        return [*said, "Differences of errors are not tested, so that this is no verdict."]
    if not pairs:
        return [*said, "No two algorithms have finished on the same test tasks, so that this is no verdict."]
    if len(known) > ALL_PAIRS:
        told = _verdicts([c for c in pairs if leader.label in (c.algo_a, c.algo_b)])
        return [*said, *told, f"Only pairs with {leader.label} are told here; the table of differences has all."]
    return said + _verdicts(pairs)


def _verdicts(pairs: Sequence[Comparison]) -> list[str]:
    return sentences((c.algo_a, c.algo_b, c.diff, c.judged) for c in pairs)
