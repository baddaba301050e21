"""What was compared: episodes, settings, whether the training tasks were the same, and what departs from the papers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bench.analysis.arms import Arm, budgets
from bench.analysis.outcomes import unequal_budgets, unequal_steps
from bench.analysis.verdicts import listed
from bench.records.run import Run
from bench.registry import ALGORITHMS, create_algorithm, hyperparameter_names, search_spaces
from bench.report.words.parts import per_setting
from bench.settings.protocols import load_protocol, protocol_names
from bench.system.text import escape, markdown_table


def episodes(arms: Sequence[Arm]) -> list[str]:
    """Return per setting its episodes, seeds, training tasks and the settings of its arms."""

    def describe(members: list[Arm]) -> list[str]:
        s = members[0].setting
        asked = s.k_query if s.eval_k_query is None else s.eval_k_query
        classes = members[0].measure == "accuracy"
        what = "images per class" if classes else "points"
        episode = f"{s.k_query} query {what} in training, {asked} in evaluation; backbone {s.backbone}"
        if classes:
            trained = dict.fromkeys(run.row.train_rotation for arm in members for run in arm.ok.values())
            episode += f"; rotation in training {' or '.join(t or 'not recorded' for t in trained)}, at test "
            episode += s.test_rotation or "not recorded"
        seeds = "; ".join(f"{arm.label}: seeds {', '.join(map(str, arm.ok))}" for arm in members)
        points = [escape(episode), escape(seeds), _streams(members)]
        if unequal_steps(members):
            points.append("**Inner steps differ**, so times and memory compare these settings, not equal inner loops.")
        if bare := _on_defaults(members):
            points.append(f"Protocol {escape(s.protocol)} sets nothing for {listed(bare)}: they run on defaults.")
        return ["\n".join(f"- {point}" for point in points), _settings(members)]

    return per_setting(arms, describe)


def _on_defaults(arms: Sequence[Arm]) -> list[str]:
    """Name the algorithms for which their protocol sets no hyperparameter."""
    protocol = arms[0].setting.protocol
    presets = load_protocol(protocol).presets if protocol in protocol_names() else ()
    chosen = {algo for preset in presets if (algo := preset.where.get("algo")) in ALGORITHMS.names()
              if {*preset.values} & {*hyperparameter_names(ALGORITHMS.get(algo))}}  # fmt: skip
    return sorted({arm.algo for arm in arms} - chosen) if chosen else []


def _settings(arms: Sequence[Arm]) -> str:
    """Return the table of what each algorithm ran with."""
    columns: tuple[str, ...] = (
        *("inner_steps", "inner_lr", "inner_optimizer", "eval_inner_steps"),
        *("meta_optimizer", "meta_lr", "meta_batch"),
    )
    if any(arm.runs[-1].row.tuning_trials for arm in arms):
        columns = (*columns, "tuning_trials", "tuning_trial_steps", "tuning_steps", "tuning_s")
    rows = []
    for arm in arms:
        row = arm.runs[-1].row
        if row.inner_steps is None:  # what does not adapt by steps
            row = replace(row, eval_inner_steps=None)
        rows.append([arm.label, *(_told(getattr(row, c)) for c in columns), own_settings(arm.runs[-1], columns)])
    if any(own != "-" for *_, own in rows):
        return markdown_table(["algorithm", *columns, "searched or changed settings"], rows)
    return markdown_table(["algorithm", *columns], [row[:-1] for row in rows])


def _told(value: Any) -> str:
    """Return a value with as many digits as matter: searches find some of seventeen."""
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def own_settings(run: Run, told: Sequence[str]) -> str:
    """Return the hyperparameters that are no column: those that are searched, and what is not as its class has it.

    All of them where the class is not here.
    """
    config = run.details.get("config")
    found = config.get("hyperparameters", {}) if isinstance(config, dict) else {}
    found = {n: v for n, v in found.items() if n not in told} if isinstance(found, dict) else {}
    if run.row.algo in ALGORITHMS.names():
        cls = ALGORITHMS.get(run.row.algo)
        defaults, searched = vars(create_algorithm(run.row.algo)), search_spaces(cls)
        found = {n: v for n, v in found.items() if n in searched or v != defaults.get(n)}
    return escape(", ".join(f"{n} {'none' if v is None else _told(v)}" for n, v in found.items())) or "-"


def _streams(arms: Sequence[Arm]) -> str:
    """Say whether the algorithms of one setting saw the same training tasks."""
    if len(arms) < 2:
        return "Only one algorithm has finished: there is nothing to compare it with."
    shared = sorted(set.intersection(*(set(arm.ok) for arm in arms)))
    if not shared:
        return "**No seed in common**: the training tasks were not the same."
    hashes = {seed: {arm.ok[seed].row.stream_sha256 for arm in arms} for seed in shared}
    if seen := unequal_budgets(arms):
        told = "; ".join(f"{escape(name)} {' or '.join(f'{n:,}' for n in budget)}" for name, budget in seen.items())
        return f"**Training budgets differ.** Tasks seen: {told}."
    if any(None in found for found in hashes.values()):
        return "**Not recorded** whether the training tasks were the same."
    if any(len(found) > 1 for found in hashes.values()):
        return "**Training tasks differ** although the budgets are equal."
    named = ", ".join(f"{escape(next(iter(found)))[:12]} for seed {seed}" for seed, found in hashes.items())
    budget = " or ".join(f"{n:,}" for n in budgets(arms)[arms[0].label])
    rest = "" if all(set(arm.ok) == set(shared) for arm in arms) else " **Other seeds were not run for all.**"
    return f"Identical training tasks for all, {budget} in each run (sha256 {named}).{rest}"


def cautions(arms: Sequence[Arm]) -> list[str]:
    """Return what their protocols want read first, a sentence or two each."""
    names = dict.fromkeys(arm.setting.protocol for arm in arms)
    return [found for name in names if name in protocol_names() and (found := load_protocol(name).caution)]


def deviations(arms: Sequence[Arm]) -> list[str]:
    """Return what the protocols of these runs say of where they depart from the papers."""
    blocks = []
    for name in dict.fromkeys(arm.setting.protocol for arm in arms):
        if name in protocol_names() and (found := load_protocol(name).deviations):
            lines = "\n".join(f"- {escape(text)}" for text in found)
            blocks.append(f"Protocol {escape(name)}, besides what a verdict below names:\n\n{lines}")
    return ["## Deviations from the papers", *blocks] if blocks else []
