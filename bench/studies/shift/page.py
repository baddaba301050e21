"""shift.md: what was trained, a table and a picture per family of shift, differences between algorithms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.records.run import Run
from bench.settings.config import RunConfig
from bench.settings.protocols import chosen_for, load_protocol
from bench.studies.arms.tables import MODES
from bench.studies.shift.losses import Losses, LossRow
from bench.studies.shift.shifts import NAME, PROTOCOL, Family
from bench.system.text import fraction, markdown_table, plus_minus

_SHOWN = 40  # differences on the page; the CSV has all


def family_table(family: Family, rows: Sequence[LossRow]) -> str:
    """Return what each algorithm loses at each value as a Markdown table, beside its accuracy without the shift."""
    own = str(family.unshifted)
    values = list(dict.fromkeys(row.value for row in rows if row.value != own))
    lines = []
    for algo in dict.fromkeys(row.algo for row in rows):
        mine = {row.value: row for row in rows if row.algo == algo}
        first = mine.get(own)
        lost = [_lost(mine[value]) if value in mine else "-" for value in values]
        lines.append([algo, "-" if first is None else plus_minus(first.acc, first.acc_ci95), *lost])
    return markdown_table(["algorithm", f"accuracy at {own}", *(f"lost at {value}" for value in values)], lines)


def strongest_table(by_family: Mapping[str, tuple[Family, Sequence[LossRow]]]) -> str:
    """Return what is lost at the last value of each family, a column per algorithm."""
    algos = list(dict.fromkeys(row.algo for _, rows in by_family.values() for row in rows))
    lines = []
    for family, rows in by_family.values():
        shifted = [row for row in rows if row.value != str(family.unshifted)]
        if not shifted:
            continue
        last = shifted[-1].value
        here = {row.algo: _lost(row) for row in shifted if row.value == last}
        lines.append([f"{family.label}: {last}", *(here.get(algo, "-") for algo in algos)])
    return markdown_table(["accuracy lost", *algos], lines)


def _lost(row: LossRow) -> str:
    return plus_minus(row.lost, (row.lost_ci95_high - row.lost_ci95_low) / 2)


def markdown(
    configs: Sequence[RunConfig], by_family: Mapping[str, tuple[Family, Sequence[LossRow]]], found: Losses,
    runs: Mapping[str, Run],
) -> str:  # fmt: skip
    """Return the study's page."""
    config, seeds = configs[0], ", ".join(map(str, dict.fromkeys(c.seed for c in configs)))
    rows = [runs[c.run_id].row for c in configs if c.run_id in runs]
    machines = "; ".join(dict.fromkeys(f"{r.device_name or r.device}, threads: {r.threads}" for r in rows if r.device))
    facts = [
        f"Training: {config.dataset}{f' ({config.data_options})' if config.data_options else ''}, {config.n_way}-way"
        f" {config.k_shot}-shot, backbone {config.network}, {config.meta_steps:,} meta-steps of {config.meta_batch}"
        f" tasks, else as protocol {PROTOCOL}; seeds {seeds}. Each run is trained once and then tested again from its"
        f" weights. {chosen_for(load_protocol(PROTOCOL).presets)}",
        f"Test: {config.test_tasks:,} meta-test tasks for each seed and shift, the same for all algorithms.",
        "A corruption changes support and query images alike. The tasks without and with it are the same, pictures and"
        " all; another data set, other ways or other shots are other tasks.",
        "Where the network has an output for each class, more ways than in training repeat the outputs of its head, and"
        " fewer take the first of them. Chance is 1 / ways.",
        *([machines + "."] if machines else []),
    ]
    parts = [
        "# Accuracy under shift",
        "\n".join(f"- {fact}" for fact in facts),
        f"**Missing**: {', '.join(found.missing)}." if found.missing else "",
        f"{MODES} This page shows plain accuracy; {NAME}.csv has both. Accuracy lost is that of the run's own test less"
        " that under the shift, ± half of the 95% interval of their difference over tasks (mean over seeds), which are"
        " paired where both tests have the same tasks; the interval takes the trained models as given.",
        "## At the end of each family",
        strongest_table(by_family),
    ]
    for name, (family, members) in by_family.items():
        picture = f"![accuracy under shift: {family.label}](plots/{name}.png)"
        parts += [f"## {family.label[:1].upper()}{family.label[1:]}", family.note, picture]
        parts.append(family_table(family, members))
    parts += ["## Differences", _differences(by_family, found)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _differences(by_family: Mapping[str, tuple[Family, Sequence[LossRow]]], found: Losses) -> str:
    plain = [d for d in found.differences if d.mode == "plain"]
    surest = sorted(plain, key=lambda d: d.p_value_holm)[:_SHOWN]
    lines = [
        [
            *(f"{by_family[d.family][0].label}: {d.value}", f"{d.algo_a} - {d.algo_b}", f"{d.diff:+.4f}"),
            *(f"{d.ci95_low:+.4f} to {d.ci95_high:+.4f}", f"{d.p_value_holm:.2g}", f"{d.test_tasks:,}", d.seeds),
        ]
        for d in plain
        if d in surest
    ]
    few = sum(d.p_value_holm < 0.05 for d in plain)
    said = (
        "What A loses less what B loses, paired by task and seed: below zero A loses less. The p-value of the sign-flip"
        " test is corrected (Holm) for all comparisons of the study, both test modes. It says how the models trained"
        f" here compare on further tasks. {few} of {len(plain)} plain comparisons are below {fraction(0.05)}."
    )
    if len(plain) > _SHOWN:
        said += f" The {_SHOWN} surest are shown; differences.csv has all."
    headers = ["shift", "A - B", "difference of losses", "95% interval", "p (Holm)", "pairs", "seeds"]
    return f"{said}\n\n{markdown_table(headers, lines)}" if lines else "Fewer than two algorithms have been tested."
