"""Values of settings: text turned into the type that is wanted, and the range that they must be in."""

from __future__ import annotations

import math
import types
import typing
from typing import Any

from bench.api import BenchError

LARGEST_INT = 2**31 - 1
"""Of any whole number but a seed: beyond it tables and file formats would have to give up digits or fail."""


def check_range(
    name: str, value: Any, *, least: float | None = None, most: float | None = None, choices: Any = None
) -> None:
    """Refuse a value out of its range; that of a whole number ends at ``LARGEST_INT`` unless ``most`` says otherwise.

    Raises:
        BenchError: names the value and what is accepted.
    """
    if choices and value not in choices:
        raise BenchError(f"{name} {value!r}; accepted: {', '.join(choices)}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if most is None and isinstance(value, int):
        most = LARGEST_INT
    if isinstance(value, float) and not math.isfinite(value):
        raise BenchError(f"{name} {value!r}; accepted: finite numbers")
    if least is not None and value < least:
        raise BenchError(f"{name} {value!r}; accepted: {least} or more")
    if most is not None and value > most:
        raise BenchError(f"{name} {value!r}; accepted: {most} or less")


def coerce(name: str, value: Any, annotation: Any, none: str = "none") -> Any:
    """Turn text (or a TOML value) into the type that ``annotation`` asks for; ``none`` is what None is called.

    Raises:
        BenchError: it is not of that type; the message names the value and what is accepted.
    """
    if typing.get_origin(annotation) is typing.Literal:
        accepted = typing.get_args(annotation)
        if value not in accepted:
            raise BenchError(f"{name} {value!r}; accepted: {', '.join(map(str, accepted))}")
        return value
    kinds = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    if type(None) in kinds and (value is None or str(value).lower() in ("none", "auto")):
        return None
    for kind in (bool, int, float, str):
        if kind in kinds:
            try:
                return _to(kind, value)
            except ValueError:
                continue
    if not any(kind in (bool, int, float, str) for kind in kinds):
        return value
    words = {**_WORDS, type(None): none}
    raise BenchError(f"{name} {value!r}; accepted: {' or '.join(words.get(kind, str(kind)) for kind in kinds)}")


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _to(kind: type, value: Any) -> Any:
    if kind is bool:
        words = {"true": True, "false": False}
        if str(value).lower() not in words:
            raise ValueError
        return words[str(value).lower()]
    if isinstance(value, bool) or (kind is int and isinstance(value, float)):
        raise ValueError
    if kind is str and not isinstance(value, str):
        raise ValueError
    return kind(value)
