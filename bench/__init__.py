"""The benchmark harness: streams, measuring, evaluation, records; it knows no algorithm by name."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Return ``bench.load_results``, imported when first asked for: what needs only bench.api waits for no pandas."""
    if name != "load_results":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bench.records.frame import load_results

    return load_results
