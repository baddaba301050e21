"""Speed on the work of issue 3: this project beside the peers, the supervised yardstick and the matrix-product rate.

``python -m bench.speed --settings S1,S2 --rounds 5 --device cpu --out results/speed`` leaves speed.csv, speed.md and
speed.png in ``--out``. It needs no files: the images are made up. What is compared is in ``peers.py``, on what work and
how its arithmetic is counted in ``work.py``, how it is measured in ``measure.py``.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.api import BenchError
from bench.registry import unknown
from bench.report.drawing.pictures import write_pictures
from bench.report.encoding import write_both
from bench.settings.values import check_range
from bench.speed.measure import (
    Disagreement,
    agreement,
    interleaved,
    problem,
    products,
    settle,
    start_seconds,
    task_seconds,
)
from bench.speed.peers import PROJECT, VARIANTS, YARDSTICK
from bench.speed.report import Results, SpeedRow, markdown, plot, ratio
from bench.speed.variant import Variant, VariantProcess
from bench.speed.work import SETTINGS, Work, gflop, supervised_gflop
from bench.system.files import write_atomic
from bench.system.machine import device_name, git_commit

FAILED, USAGE, INTERRUPTED = 1, 2, 130

Case = tuple[str, str]  # algorithm and variant


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write and print; return the exit status: 1 if variants disagree, 2 for wrong usage."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args = parser().parse_args(argv)
    try:
        _measure(args, shlex.join(["python", "-m", "bench.speed", *argv]))
    except Disagreement as error:
        print(f"bench.speed: {error}", file=sys.stderr)
        return FAILED
    except (BenchError, OSError) as error:
        print(f"bench.speed: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("bench.speed: interrupted; nothing was written", file=sys.stderr)
        return INTERRUPTED
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    p = argparse.ArgumentParser("python -m bench.speed", description=__doc__.splitlines()[0], allow_abbrev=False)
    p.add_argument("--settings", default=",".join(SETTINGS), metavar="S1,S2", help="which work [%(default)s]")
    p.add_argument("--rounds", type=int, default=5, metavar="N", help="interleaved rounds [%(default)s]")
    p.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="[%(default)s]")
    p.add_argument("--threads", type=int, metavar="N", help="CPU threads [OMP_NUM_THREADS, else one per core]")
    p.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True, help="measure peak memory too")
    p.add_argument("--start", action=argparse.BooleanOptionalAction, default=True, help="time run_bench.py's start too")
    p.add_argument("--out", type=Path, default=Path("results/speed"), metavar="DIR", help="[%(default)s]")
    return p


def _measure(args: argparse.Namespace, command: str) -> None:
    names = [name.strip() for name in args.settings.split(",")]
    for name in names:
        if name not in SETTINGS:
            raise BenchError(unknown("setting", name, SETTINGS))
    check_range("--rounds", args.rounds, least=1)
    check_range("--threads", args.threads, least=1)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise BenchError("--device cuda: torch finds no GPU here; accepted here: cpu")
    device, load = torch.device(args.device), os.getloadavg()[0]
    said = os.environ.get("OMP_NUM_THREADS", "")
    threads = args.threads or (int(said) if said.isdecimal() and int(said) else len(os.sched_getaffinity(0)))
    settle(threads)
    args.out.mkdir(parents=True, exist_ok=True)  # refused now rather than after minutes of measuring
    works = [SETTINGS[name] for name in dict.fromkeys(names)]
    facts = {
        "device": device.type, "device_name": device_name(device), "threads": threads, "rounds": args.rounds,
        "torch_version": torch.__version__, "git_commit": git_commit(),
    }  # fmt: skip

    errors = [error for work in works for algo in work.algos for error in agreement(work, algo, device).values()]
    print(f"meta-gradients agree in float64: relative errors up to {max(errors):.1e}", flush=True)
    results = Results([], max(errors), command, load)
    for work in works:
        times, variants = time_variants(work, device, args.rounds, threads, args.memory)
        results.rows.extend(rows_of(work, device, times, variants, facts))
        if "maml" in work.algos:
            results.second_to_first[work.name] = ratio(times["maml", PROJECT], times["fomaml", PROJECT])
    if args.start:
        algos = list(dict.fromkeys(algo for work in works for algo in work.algos))
        results.starts.update(start_seconds(algos, device, threads))
    page = markdown(results)
    write_both(args.out / "speed.csv", results.rows, SpeedRow.columns())
    write_pictures(args.out, "speed", partial(plot, results))
    write_atomic(args.out / "speed.md", page)
    print(f"\n{page}\nIn {args.out}: speed.md, speed.csv, speed.png")


def start_variant(
    work: Work, algo: str, name: str, device: torch.device, threads: int, memory: bool
) -> Variant | VariantProcess:
    """Set a variant up: on a card in this process, since the heap that asks for others is a CPU's."""
    kind = Variant if device.type == "cuda" else VariantProcess
    return kind(work, algo, name, device, threads, memory)


def time_variants(
    work: Work, device: torch.device, rounds: int, threads: int, memory: bool
) -> tuple[dict[Case, list[float]], dict[Case, Variant | VariantProcess]]:
    """Return seconds per round by algorithm and variant, and the variants for what else is known of them.

    The matrix products, interleaved with the rest, go under an empty algorithm.
    """
    cases = [(algo, name) for algo in work.algos for name in VARIANTS]
    variants: dict[Case, Variant | VariantProcess] = {}
    try:
        for algo, name in cases:
            variants[algo, name] = start_variant(work, algo, name, device, threads, memory)
        clocks: dict[Case, Callable[[], float]] = {case: v for case, v in variants.items() if not v.reason}
        clocks |= {("", str(product)): product.clock(device) for product in products(device)}
        return interleaved(clocks, rounds), variants
    finally:
        for variant in variants.values():
            variant.close()


def rows_of(
    work: Work,
    device: torch.device,
    times: Mapping[Case, list[float]],
    variants: Mapping[Case, Variant | VariantProcess],
    facts: Mapping[str, Any],
) -> list[SpeedRow]:
    """Return the rows of a setting, saying a line for each as it comes."""
    rates = [max(p.gflop / times["", str(p)][i] for p in products(device)) for i in range(facts["rounds"])]
    rows = []
    for algo in work.algos:
        for name in VARIANTS:
            if reason := variants[algo, name].reason:
                rows.append(SpeedRow(setting=work.name, algo=algo, variant=name, status=reason, **facts))
                continue
            seconds, supervised = times[algo, name], name == YARDSTICK
            amount = supervised_gflop(work) if supervised else gflop(work, algo)
            row = SpeedRow(
                setting=work.name,
                algo=algo,
                variant=name,
                **_milliseconds(seconds),
                tasks_per_s=None if supervised else work.meta_batch / median(seconds),
                ratio_to_project=ratio(seconds, times[algo, PROJECT]),
                gflop=amount,
                gflop_least=amount if supervised else gflop(work, algo, least=True),
                gflop_per_s=amount / median(seconds),
                share_of_matmul_rate=median(amount / s / rate for s, rate in zip(seconds, rates)),
                peak_mem_mib=variants[algo, name].peak,
                launches=variants[algo, name].launches,
                how=variants[algo, name].how or None,
                task_share=task_seconds(problem(work, algo, device)) / median(seconds) if name == PROJECT else None,
                **facts,
            )
            rows.append(row)
            print(f"{work.name} {algo} {name}: {row.ms_median:.1f} ms", flush=True)
    for product in products(device):
        seconds, amount = times["", str(product)], product.gflop
        row = SpeedRow(setting=work.name, variant=str(product), **_milliseconds(seconds), gflop=amount, **facts)
        rows.append(dataclasses.replace(row, gflop_per_s=amount / median(seconds)))
    return rows


def _milliseconds(seconds: list[float]) -> dict[str, Any]:
    return {"ms_median": 1e3 * median(seconds), "ms_min": 1e3 * min(seconds), "ms_max": 1e3 * max(seconds)}
