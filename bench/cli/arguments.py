"""What was typed, with the configuration file under it: flags as one namespace, and where a command works."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from bench.api import BenchError
from bench.cli import configfile
from bench.cli.flags import flag_names, folder, given, parser
from bench.registry import load_plugin
from bench.runs.launchers.launcher import launcher_of
from bench.runs.launchers.options import Options
from bench.runs.runner import Place
from bench.settings.protocols import Override, check_contradictions


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Return the flags of a command line, those of its ``--config`` under them.

    Raises:
        BenchError: what ``check_contradictions`` refuses, in either; a file that is no configuration.
    """
    p = parser()
    args = p.parse_args(argv)
    typed = _fields(args)
    check_contradictions([Override.parse(text) for text in args.set], typed)
    if args.config is None:
        return args
    words = configfile.arguments(args.config, p, args)
    below = p.parse_args(words)
    sets = [Override.parse(text) for text in below.set]
    check_contradictions(sets, _fields(below))
    # --set comes after flags, but what the user types comes after the file
    hidden = {f"--set={text}" for text, o in zip(below.set, sets) if o.name in typed}
    return p.parse_args([*(word for word in words if word not in hidden), *argv])


def _fields(args: argparse.Namespace) -> dict[str, str]:
    return {name: text for name in flag_names() if (text := getattr(args, name)) is not None}


def place_of(args: argparse.Namespace, argv: Sequence[str]) -> Place:
    """Return where a command reads and writes and how it makes its runs, its plugins loaded.

    Raises:
        BenchError: a folder or number that cannot be; a plugin that fails.
    """
    out, data_root = folder("--out", args.out), folder("--data-root", args.data_root)
    test_root = None if args.test_data_root is None else folder("--test-data-root", args.test_data_root)
    for flag, said, root in (
        ("--data-root", args.data_root, data_root), ("--test-data-root", args.test_data_root, test_root),
    ):  # fmt: skip
        if root is not None and root.exists() and not root.is_dir():
            raise BenchError(f"{flag} {str(said)!r} is not a folder; accepted: the one that holds the data")
    options = Options.of(args, 1 if args.jobs is None else given("--jobs", args.jobs, int))
    timeout_s = given("--run-timeout", args.run_timeout, float | None)
    log_file = None if args.log_file is None else folder("--log-file", args.log_file)
    for path in args.plugin:
        load_plugin(path)
    plugins = tuple(path.resolve() for path in args.plugin)
    command = shlex.join(["python", "run_bench.py", *argv])
    return Place(
        out, data_root, plugins, command, args.profile, options.jobs, timeout_s, not args.quiet, log_file,
        test_data_root=test_root, launcher=launcher_of(options),
    )  # fmt: skip
