"""Published values beside ours, as sections of summary.md."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.analysis.published import CHOICE, DRIFT, FAIR_SEEDS, Beside
from bench.system.text import escape, fraction, markdown_table, plus_minus


def published(lines: Sequence[Beside]) -> list[str]:
    """Return the blocks on published values, none without ``lines``."""
    if not lines:
        return []
    blocks = [
        "## Published values beside ours",
        "Ours: mean over seeds ± half-width of its 95% interval over test tasks, spread over seeds beside it. "
        "Difference: ours minus published. Reproduced: it is within the tolerance, the larger of the published ± and "
        f"twice our standard error over seeds, plus {DRIFT:.3f} for what differs between frameworks and "
        f"{CHOICE:.3f} for another choice of test characters. "
        f"**Only {FAIR_SEEDS} or more seeds with the published budget and settings make a fair verdict**; any other "
        "says what it lacks. A large spread over our seeds widens the tolerance: read it first.",
    ]
    where = dict.fromkeys((line.anchor.dataset, line.anchor.protocol) for line in lines)
    for dataset, protocol in where:
        here = [line for line in lines if (line.anchor.dataset, line.anchor.protocol) == (dataset, protocol)]
        if len(where) > 1:
            blocks.append(f"### {escape(f'{dataset}, protocol {protocol}')}")
        blocks.append(_judged([line for line in here if line.anchor.kind == "anchor"]))
        if context := [line for line in here if line.anchor.kind != "anchor"]:
            apart = (
                "Superseded values, and what other code bases report under their own rules; no verdict goes by them:"
            )
            blocks += [apart, _context(context)]
    cited = dict.fromkeys(
        f"{a.paper}, arXiv {a.arxiv} ({a.version}), read in {a.source}"
        for a in (line.anchor for line in lines)
        if a.kind == "anchor"
    )
    sources = "; ".join(map(escape, cited))
    return [*blocks, f"Sources: {sources}. Tags are explained in `bench/analysis/published.toml`."]


def _judged(lines: Sequence[Beside]) -> str:
    headers = ["algorithm", "setting", "mode", "ours", "published", "verdict", "difference", "tolerance"]
    rows = []
    for line in lines:
        a = line.anchor
        paper = f"{a.published_meta_steps:,}"
        rows.append(
            [
                line.label or a.algo,
                _setting(line),
                a.mode,
                "-" if line.test_acc is None else plus_minus(line.test_acc, line.test_acc_ci95 or math.nan),
                plus_minus(a.published, a.published_pm or math.nan),
                line.verdict,
                "-" if line.diff is None else f"{line.diff:+.4f}",
                fraction(line.tolerance),
                fraction(line.seed_sd),
                line.seeds or "-",
                f"- of {paper}" if line.meta_steps is None else f"{line.meta_steps:,} of {paper}",
            ]
        )
    return markdown_table([*headers, "sd over seeds", "seeds", "meta-steps"], rows)


def _context(lines: Sequence[Beside]) -> str:
    settings = dict.fromkeys(_setting(line) for line in sorted(lines, key=lambda x: (x.anchor.n_way, x.anchor.k_shot)))
    systems: dict[tuple[str, ...], dict[str, str]] = {}
    for line in lines:
        a = line.anchor
        origin = "; ".join(filter(None, (f"arXiv {a.arxiv}" if a.arxiv else None, a.source, a.note)))
        cells = systems.setdefault((a.system, a.mode or "-", origin), {})
        cells[_setting(line)] = plus_minus(a.published, math.nan if a.published_pm is None else a.published_pm)
    rows = [
        [system, mode, *(cells.get(s, "-") for s in settings), told] for (system, mode, told), cells in systems.items()
    ]
    return markdown_table(["system", "mode", *settings, "source"], rows)


def _setting(line: Beside) -> str:
    return f"{line.anchor.n_way}-way {line.anchor.k_shot}-shot"
