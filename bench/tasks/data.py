"""Which data set a comparison runs on: the one asked for, or the first that can be had."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.api import BenchError, DataMissing, TaskSource
from bench.registry import DATASETS, blaming, create_dataset, unknown

AUTO = "auto"
"""What a flag is called whose value the harness chooses; of a data set, the first that can be had."""


def load_data(
    name: str,
    root: Path,
    cache: Path,
    warn: Callable[[str], None] = lambda line: None,
    options: Mapping[str, Any] | None = None,
) -> TaskSource:
    """Return the data set ``name``; for ``auto`` the first one, by ``auto_rank``, that is there or can be fetched.

    Args:
        root: the user's data root.
        cache: where prepared data may be kept if ``root`` cannot be written.
        warn: called with one line if ``auto`` had to fall back.
        options: of the data set, where it has any.
    Raises:
        DataError: the data is damaged; ``auto`` does not hide that behind another data set.
        DataMissing: nothing to be had.
        BenchError: no such data set, or one that fails or breaks the contract; the message names it.
    """
    if name != AUTO:
        if name not in DATASETS.names():
            raise BenchError(unknown("dataset", name, [AUTO, *DATASETS.names()]))
        return _load(name, root, cache, options)
    ranks = {name: DATASETS.get(name).auto_rank for name in DATASETS.names()}
    ranked = sorted((rank, name) for name, rank in ranks.items() if rank is not None)
    missing: list[str] = []
    for _, candidate in ranked:
        try:
            source = _load(candidate, root, cache)
        except DataMissing as error:
            missing.append(str(error))
            continue
        if missing:
            warn(f"NOT {ranked[0][1]}: running on {source.name!r}, whose accuracies compare with no published number. "
                 f"Reason: {missing[0]}")  # fmt: skip
        return source
    raise DataMissing("; ".join(missing) or "no data set takes part in --dataset auto")


def _load(name: str, root: Path, cache: Path, options: Mapping[str, Any] | None = None) -> TaskSource:
    with blaming(f"dataset {name!r}"):
        source = create_dataset(name, **(options or {})).load(root, cache)
        if not isinstance(source, TaskSource):
            raise BenchError(f"dataset {name!r}: load returned {type(source).__name__}; it must return a TaskSource")
    return source
