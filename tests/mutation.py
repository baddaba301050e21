"""Mutation testing with mutmut: ``python tests/mutation.py GROUP`` says how many small faults the tests notice.

Groups are in ``mutation.toml``, results in ``mutation.md``. Mutants are made and run in a copy of the repository.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import math
import random
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KILLED, SURVIVED, NO_TESTS = 1, 0, 33  # exit codes that mutmut keeps; negative, 24 and 36 are crashes and timeouts
NOTHING = "no*such*mutant"


def settings(group: dict[str, Any]) -> str:
    """Return the pyproject.toml that mutmut reads, for one group."""
    arguments = ["-n0", "-pno:cacheprovider", *(["-k", f"not ({group['without']})"] if group["without"] else [])]
    return "\n".join(
        [
            "[tool.mutmut]",
            'source_paths = ["bench", "algorithms", "datasets"]',
            'also_copy = ["run_bench.py", "README.md", "ruff.toml"]',
            f"only_mutate = {json.dumps(group['mutate'])}",
            f"pytest_add_cli_args = {json.dumps(arguments)}",
            f"pytest_add_cli_args_test_selection = {json.dumps(group['tests'])}",
        ]
    )


def results(where: Path) -> dict[str, int | None]:
    """Return exit code by mutant, None for those not run."""
    found: dict[str, int | None] = {}
    for path in sorted(where.glob("mutants/**/*.meta")):
        found |= json.loads(path.read_text())["exit_code_by_key"]
    return found


def with_plain_classes(source: str) -> str:
    """Return ``source`` with its classes' decorators called below them: mutmut leaves alone what is decorated."""
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.ClassDef) and node.decorator_list:
            calls = [f"{node.name} = ({ast.unparse(x)})({node.name})" for x in reversed(node.decorator_list)]
            lines[node.end_lineno : node.end_lineno] = ["", *calls]
            del lines[node.decorator_list[0].lineno - 1 : node.lineno - 1]
    return "\n".join([*lines, ""])


def wilson(k: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95% interval of a share."""
    z, p = 1.96, k / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


@contextlib.contextmanager
def copied(keep: Path | None) -> Iterator[Path]:
    """Copy the working tree to ``keep``, or to a folder that goes at the end."""
    with tempfile.TemporaryDirectory() as folder:
        where = keep or Path(folder) / "tree"
        shutil.rmtree(where, ignore_errors=True)
        files = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for name in files.stdout.splitlines():
            if (ROOT / name).exists() and not name.startswith("results/"):
                (where / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, where / name)
        yield where


def main() -> None:
    """Mutate a group, or a sample of its mutants, and print the share killed and the survivors."""
    groups = tomllib.loads((ROOT / "tests" / "mutation.toml").read_text())
    p = argparse.ArgumentParser(description=main.__doc__)
    p.add_argument("group", choices=groups)
    p.add_argument("--sample", type=int, metavar="N", help="so many mutants, drawn at random [all]")
    p.add_argument("--seed", type=int, default=0, help="of the draw [%(default)s]")
    p.add_argument("--only", nargs="+", metavar="MUTANT", help="these mutants alone, by name")
    p.add_argument("--keep", type=Path, metavar="DIR", help="work there, and leave it for `mutmut show MUTANT`")
    args = p.parse_args()
    with copied(args.keep) as where:
        (where / "pyproject.toml").write_text(settings(groups[args.group]))
        for path in (path for pattern in groups[args.group]["mutate"] for path in where.glob(pattern)):
            path.write_text(with_plain_classes(path.read_text()))
        mutmut = [sys.executable, "-c", "from mutmut.__main__ import cli; cli()"]
        # The first call makes the mutants and finds which tests run them; it stops at a name that matches none.
        subprocess.run([*mutmut, "run", "--max-children", "1", NOTHING], cwd=where, capture_output=True, check=False)
        mutants = sorted(results(where))
        if not mutants:
            sys.exit("mutmut made no mutants; its own output: run it in --keep DIR")
        chosen = args.only or random.Random(args.seed).sample(mutants, min(args.sample or len(mutants), len(mutants)))
        subprocess.run([*mutmut, "run", "--max-children", "2", *chosen], cwd=where, stdout=sys.stderr, check=True)
        codes = {name: code for name, code in results(where).items() if name in set(chosen)}
        alive = [name for name, code in codes.items() if code in (SURVIVED, NO_TESTS, None)]
        for name in alive:
            print(f"\n{name}: {'no test runs it' if codes[name] == NO_TESTS else 'survived'}")
            shown = subprocess.run([*mutmut, "show", name], cwd=where, capture_output=True, text=True, check=False)
            print("\n".join(x for x in shown.stdout.splitlines() if x[:1] in "+-" and x[:3] not in "+++---"))
        killed, n = len(codes) - len(alive), len(codes)
        low, high = wilson(killed, n)
        share = f"{killed / n:.1%}; 95% interval {low:.1%} to {high:.1%}"
        print(f"\n{args.group}: {killed} of {n} killed ({share}), of {len(mutants)} mutants; by module:")
        for module, of_all in Counter(name.split(".x")[0] for name in codes).items():
            print(f"  {module}: {of_all - sum(name.startswith(module) for name in alive)} of {of_all}")


if __name__ == "__main__":
    main()
