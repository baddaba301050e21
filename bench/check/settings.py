"""What plugins of every kind must declare: a name, a paper, and settings that flags can change."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from typing import Any

from bench.check.verdicts import Broken
from bench.registry import hyperparameter_names, hyperparameter_types


def settings(name: str, cls: type[Any]) -> str:
    """Return what a plugin declares, in words.

    Raises:
        Broken: something is missing or would not work with flags.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
        raise Broken(
            f"the name {name!r} does not fit flags and folders",
            "use letters, digits, dashes and dots: first-order-anil",
        )
    if not cls.paper:
        raise Broken(
            "says nothing of where it comes from", 'add paper = "Author et al. 2020, arXiv:..."; --list shows it'
        )
    known = hyperparameter_names(cls)
    if fixed := [name for name in known if "ClassVar" in str(_base_hints(cls).get(name, ""))]:
        raise Broken(
            f"{fixed[0]} is a constant of the class and no setting",
            f"write it without a type: {fixed[0]} = {getattr(cls, fixed[0], None)!r}",
        )
    if untyped := [n for n in vars(cls) if n in _annotated_below(cls) and n not in _annotated(cls)]:
        raise Broken(
            f"{untyped[0]} has no type, so that it is no setting",
            f"write {untyped[0]}: {type(vars(cls)[untyped[0]]).__name__} = {vars(cls)[untyped[0]]!r}",
        )
    if lost := [field for field in _annotated(cls) if field not in known]:
        raise Broken(
            f"{lost[0]} is annotated like a setting but is none",
            f"put @dataclass(frozen=True) below the line that registers the class, so that --set {lost[0]}=... works",
        )
    if known and not cls.__dataclass_params__.frozen:
        raise Broken("the dataclass can be changed", "write @dataclass(frozen=True)")
    for field, kind in hyperparameter_types(cls).items():
        kinds = {int, float, str, bool, type(None)}
        if not (typing.get_origin(kind) is typing.Literal or set(typing.get_args(kind) or (kind,)) <= kinds):
            raise Broken(
                f"setting {field} is a {kind}, which no flag can give",
                "use int, float, str, bool, Literal, or one of them or None",
            )
    for f in dataclasses.fields(cls) if known else ():
        if f.default is dataclasses.MISSING:
            raise Broken(f"setting {f.name} has no default", "give it one, that of the paper if there is one")
    return f"settings: {', '.join(known) or 'none'}"


def _base_hints(cls: type) -> dict[str, object]:
    """Return what the contract's own class annotates."""
    contract = next((base for base in reversed(cls.__mro__) if base.__module__ == "bench.api"), cls)
    return inspect.get_annotations(contract)


def _annotated_below(cls: type) -> set[str]:
    """Return what the classes that it is made from annotate as settings."""
    return {name for base in cls.__mro__[1:] if base is not object for name in _annotated(base)}


def _annotated(cls: type) -> list[str]:
    """Return what the class itself annotates, but for class variables."""
    own = inspect.get_annotations(cls)
    return [n for n, hint in own.items() if "ClassVar" not in str(hint) and not n.startswith("_")]
