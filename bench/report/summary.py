"""summary.md: the whole comparison in words and tables, readable as it is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from bench.analysis.anchors import Beside
from bench.analysis.comparison import Arm, Comparison, budgets, by_setting
from bench.analysis.curves import adaptation
from bench.analysis.naming import heading, place
from bench.records.run import MODES, Run
from bench.report import sections
from bench.system.text import escape, fraction, markdown_table, number, plus_minus

_ERROR_CHARS = 300

MEMORY = {
    "cuda": "peak memory allocated by torch since the end of warm-up, in brackets what it reserved",
    "cpu": "peak resident size above the size just before training",
}


_TITLES = {"accuracy": "Accuracy", "mse": "Mean squared error (mse)"}


def summary(
    runs: Sequence[Run],
    arms: Sequence[Arm],
    comparisons: Sequence[Comparison],
    published: Sequence[Beside],
    plots: Sequence[str],
    problems: Sequence[str],
) -> str:
    """Return the text of summary.md; ``plots`` are paths of pictures and ``problems`` lines on files left out."""
    blocks = written(runs, arms, comparisons, published, problems)
    if any(arm.ok for arm in arms):
        blocks += ["## Plots", *(f"![{escape(path)}]({path})" for path in plots)]
    return "\n\n".join(blocks) + "\n"


def written(
    runs: Sequence[Run],
    arms: Sequence[Arm],
    comparisons: Sequence[Comparison],
    published: Sequence[Beside],
    problems: Sequence[str],
) -> list[str]:
    """Return what summary.md says but its plots, as blocks of Markdown: the title, then sections below ``## `` lines.

    Whatever comes from outside is escaped, so that the blocks hold no HTML.
    """
    datasets = list(dict.fromkeys(escape(arm.setting.dataset) for arm in arms))
    if arms:
        blocks = [f"# Comparison on {escape(heading(arm.setting for arm in arms))}"]
        blocks.append(
            f"**All results here are on {' and '.join(datasets)}. They are not comparable with numbers measured on "
            f"another data set or under another protocol{'' if published else ', published ones included'}.**"
        )
    else:
        blocks = ["# Comparison", "No run has finished yet."]
    if lines := [f"- {escape(problem)}" for problem in problems]:
        blocks += ["**Files left out because they are damaged:**", "\n".join(lines)]
    if compared := [arm for arm in arms if arm.ok]:
        blocks += ["## What was compared", *_compared(compared)]
        blocks += sections.deviations(compared)
        blocks += [f"## {_measures(compared)} on meta-test", *_accuracies(compared)]
        blocks += ["## Paired differences", *_differences(comparisons, compared)]
    blocks += sections.published(published)
    if compared:
        blocks += ["## Cost", *_costs(compared)]
        blocks += sections.times(compared)
        blocks += _adaptation(compared)
    if failed := [run for run in runs if not run.ok]:
        blocks += ["## Runs that are not in the comparison", _failures(failed)]
    if runs:
        blocks += ["## Environment", _environment(runs), *_commands(runs)]
    return blocks


def _per_setting(arms: Sequence[Arm], table_of: Any) -> list[str]:
    blocks = []
    for _, members in by_setting(arms):
        blocks += [f"### {escape(place(members[0], arms))}", *table_of(members)]
    return blocks


def _compared(arms: Sequence[Arm]) -> list[str]:
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
        if len({run.row.inner_steps for arm in members for run in arm.ok.values()}) > 1:
            points.append("**Inner steps differ**, so times and memory compare these settings, not equal inner loops.")
        return ["\n".join(f"- {point}" for point in points), _settings(members)]

    return _per_setting(arms, describe)


def _settings(arms: Sequence[Arm]) -> str:
    """Return the table of what each algorithm ran with."""
    columns = (
        "inner_steps",
        "inner_lr",
        "inner_optimizer",
        "eval_inner_steps",
        "meta_optimizer",
        "meta_lr",
        "meta_batch",
    )
    rows = []
    for arm in arms:
        row = arm.runs[-1].row
        rows.append([arm.label, *("-" if getattr(row, c) is None else str(getattr(row, c)) for c in columns)])
    return markdown_table(["algorithm", *columns], rows)


def _streams(arms: Sequence[Arm]) -> str:
    """Say whether the algorithms of one setting saw the same training tasks."""
    if len(arms) < 2:
        return "Only one algorithm has finished: there is nothing to compare it with."
    shared = sorted(set.intersection(*(set(arm.ok) for arm in arms)))
    if not shared:
        return "**No seed in common**: the training tasks were not the same."
    hashes = {seed: {arm.ok[seed].row.stream_sha256 for arm in arms} for seed in shared}
    seen = budgets(arms)
    if len({tuple(budget) for budget in seen.values()}) > 1:
        told = "; ".join(f"{escape(name)} {' or '.join(f'{n:,}' for n in budget)}" for name, budget in seen.items())
        return f"**Training budgets differ.** Tasks seen: {told}."
    if any(None in found for found in hashes.values()):
        return "**Not recorded** whether the training tasks were the same."
    if any(len(found) > 1 for found in hashes.values()):
        return "**Training tasks differ** although the budgets are equal."
    named = ", ".join(f"{escape(next(iter(found)))[:12]} for seed {seed}" for seed, found in hashes.items())
    budget = " or ".join(f"{n:,}" for n in seen[arms[0].label])
    rest = "" if all(set(arm.ok) == set(shared) for arm in arms) else " **Other seeds were not run for all.**"
    return f"Identical training tasks for all, {budget} in each run (sha256 {named}).{rest}"


def modes(arm: Arm) -> list[str]:
    """Return the headers of both test modes, which name the measure where it is not accuracy."""
    return [mode if arm.measure == "accuracy" else f"{mode} {arm.measure}" for mode in MODES]


def _measures(arms: Sequence[Arm]) -> str:
    return " and ".join(dict.fromkeys(_TITLES.get(arm.measure, arm.measure) for arm in arms))


def _accuracies(arms: Sequence[Arm]) -> list[str]:
    sd = "sd over seeds"

    def table(members: list[Arm]) -> list[str]:
        rows = []
        for arm in members:
            columns = arm.tested.values()
            scores = [s for c in columns for s in (plus_minus(arm.mean(c), arm.ci95(c)), fraction(arm.sd(c)))]
            tasks = sum(arm.values("test_tasks"))
            before = arm.mean(f"{arm.tested['plain'].removeprefix('test_')}_before_adaptation")
            rows.append([arm.label, len(arm.ok), *scores, fraction(before), f"{tasks:,.0f}"])
        plain, transductive = modes(members[0])
        headers = ["algorithm", "seeds", plain, sd, transductive, sd, "unadapted", "test tasks"]
        return [markdown_table(headers, rows)]

    measures = {arm.measure for arm in arms}
    query = "image" if measures == {"accuracy"} else "example"
    intro = (
        "Mean over seeds ± half-width of its 95% interval over test tasks; the spread over seeds, which the interval "
        f"does not cover, stands beside it. Plain: each query {query} alone with the support set; transductive: all "
        f"query {query}s in one batch. Unadapted: plain, before the first adaptation step."
    )
    if "accuracy" in measures:
        intro += " Accuracies are fractions."
    if measures != {"accuracy"}:
        intro += " Of an error, less is better."
    return [intro, *_per_setting(arms, table)]


def _no_pairs(arms: Sequence[Arm]) -> str:
    if any(arm.measure != "accuracy" for arm in arms):
        return "Paired differences are made of accuracies only."
    return "No two algorithms have finished on the same test tasks."


def _differences(comparisons: Sequence[Comparison], arms: Sequence[Arm]) -> list[str]:
    if not comparisons:
        return [_no_pairs(arms)]

    def table(members: list[Arm]) -> list[str]:
        found = [c for c in comparisons if c.setting == members[0].setting]
        several = any(c.seeds > 1 for c in found)
        headers = ["A - B", "mode", "difference", "95% interval", "p", "p (Holm)"]
        headers += ["95% interval over seeds", "p over seeds", "p over seeds (Holm)"] if several else []
        rows = []
        for c in found:
            row = [f"{c.algo_a} - {c.algo_b}", c.mode, f"{c.diff:+.4f}", _interval(c.ci95_low, c.ci95_high)]
            row += [_p(c.p_value), _p(c.p_value_holm)]
            if several:
                row += [_interval(c.seed_ci95_low, c.seed_ci95_high), _p(c.seed_p_value), _p(c.seed_p_value_holm)]
            rows.append([*row, f"{c.test_tasks:,}", c.seeds, c.verdict])
        return [markdown_table([*headers, "pairs", "seeds", "verdict"], rows) if rows else _no_pairs(members)]

    intro = (
        "Accuracy of A minus accuracy of B on identical test tasks: paired t interval, two-sided sign-flip test, and "
        "its p-value after Holm's correction for all comparisons of the table. These say how the models trained here "
        "compare on further tasks of the same classes, not what training again with other seeds would give. With "
        "several seeds a t test takes each seed's mean difference as one observation, corrected alike; only where "
        'both tests and all seeds agree does a verdict say "better" without a word on seeds. Intervals are those of '
        "one comparison, not corrected."
    )
    return [intro, *_per_setting(arms, table)]


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _costs(arms: Sequence[Arm]) -> list[str]:
    headers = ["algorithm", "train s", "evaluation s", "set-up s", "step ms", "p95 ms", "tasks/s", "peak MiB", "device"]
    columns = ("train_s", "eval_s", "setup_s", "step_ms_median", "step_ms_p95", "tasks_per_s")

    def table(members: list[Arm]) -> list[str]:
        rows = []
        for arm in members:
            row = next(iter(arm.ok.values())).row
            mark = " *" if any(arm.values("beside")) else ""
            peak = number(max(arm.values("peak_mem_mib"), default=None))
            reserved = arm.values("peak_mem_reserved_mib")
            peak += f" ({number(max(reserved))})" if reserved else ""
            device = f"{row.device}: {row.device_name}" if row.device_name else row.device
            rows.append([arm.label, *(number(arm.mean(c)) + mark for c in columns), peak, device])
        return [markdown_table(headers, rows)]

    rows = [run.row for arm in arms for run in arm.ok.values()]
    intro = "Means over seeds, but the peak is the largest. Training time is meta-steps only; step is the median."
    for device in sorted({row.device.partition(":")[0] for row in rows}):
        intro += f" Peak on {escape(device)}: {MEMORY.get(device, 'as that device reports it')}."
    if others := max((row.beside or 0 for row in rows), default=0):
        intro += (
            f" **Times marked \\* were measured beside other runs on the same machine, up to {others} at once: they "
            "say what that machine gave, not what the algorithm takes.**"
        )
    if len({(row.device, row.device_name) for row in rows}) > 1:
        intro += " **Times and memory of different devices are not comparable.**"
    return [intro, *_per_setting(arms, table)]


def _adaptation(arms: Sequence[Arm]) -> list[str]:
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
        f"## {_measures(adapted)} after adaptation steps",
        *([intro] if counts else []),
        *_per_setting(adapted, table),
    ]


def _failures(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        r, error = run.row, " ".join((run.row.error or "").split())
        short = error if len(error) <= _ERROR_CHARS else error[:_ERROR_CHARS] + " ..."
        rows.append([r.run_id, r.algo, f"{r.n_way}-way {r.k_shot}-shot", r.seed, r.status, short])
    return markdown_table(["run", "algorithm", "setting", "seed", "status", "error"], rows)


def _environment(runs: Sequence[Run]) -> str:
    names = (
        "device",
        "device_name",
        "threads",
        "torch_version",
        "git_commit",
        "dataset",
        "data_pipeline",
        "data_sha256",
    )
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        environment = run.details.get("environment")
        further = dict(environment) if isinstance(environment, Mapping) else {}
        for name, value in {**further, **{name: getattr(run.row, name) for name in names}}.items():
            if value is not None:
                found.setdefault(name, {})[_flat(value)] = None
    order = [name for name in names if name in found] + [name for name in found if name not in names]
    counted = f"Runs: {len(runs)}."
    if unsealed := [escape(run.row.run_id) for run in runs if not run.sealed]:
        counted += (
            f" From an earlier version, not sealed, so that nothing tells if they were altered: {', '.join(unsealed)}."
        )
    return markdown_table(["", "value"], ([name, "; ".join(found[name])] for name in order)) + f"\n\n{counted}"


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_flat(item)}" for key, item in value.items())
    return ", ".join(map(_flat, value)) if isinstance(value, list) else str(value)


def _commands(runs: Sequence[Run]) -> list[str]:
    given = (run.details.get("command") for run in runs)
    commands = list(dict.fromkeys(shlex.join(map(str, c)) if isinstance(c, list) else str(c) for c in given if c))
    text = "\n".join(commands)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return ["Commands:", f"{fence}\n{text}\n{fence}"] if commands else []
