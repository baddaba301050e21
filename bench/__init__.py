"""A benchmark for meta-learning: identical tasks, equal measuring, tables and plots; it knows no algorithm by name."""

from typing import Any

from bench.system.version import __version__ as __version__


def __getattr__(name: str) -> Any:
    """Return ``bench.compare`` and ``bench.load_results``, imported when first asked for.

    What needs only ``bench.api`` waits for neither pandas nor the command line.
    """
    if name == "compare":
        from bench.cli.compare import compare

        return compare
    if name == "load_results":
        from bench.records.frame import load_results

        return load_results
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
