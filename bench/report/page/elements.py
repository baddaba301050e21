"""What pages are made of: templates, libraries, and data that no browser takes for code."""

from __future__ import annotations

import functools
import importlib.util
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from bench.report.page.sections import slug

FOLDER = Path(__file__).parent
_NO_END = "</script"  # would end a script element wherever it stands


def libraries() -> dict[str, Markup]:
    """Return the library of sortable tables, for every template."""
    return {
        "table_library": script(package("itables", "html/dt_bundle.js")),
        "table_style": Markup(package("itables", "html/dt_bundle.css").replace("</style", r"<\/style")),
    }


@functools.cache
def environment() -> Environment:
    """Return the templates of this folder, whose variables are escaped."""
    found = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["slug"] = slug
    found.filters["soft"] = lambda text: Markup(str(escape(text)).replace("=", "=<wbr>"))
    found.globals["included"] = lambda name: Markup((FOLDER / name).read_text(encoding="utf-8"))
    return found


@functools.cache
def package(name: str, path: str) -> str:
    """Return a file that an installed package carries, without importing the package."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / path).read_text(encoding="utf-8")


def script(text: str) -> Markup:
    """Return a library's code as the contents of a script element."""
    return Markup(text.replace(_NO_END, r"<\/script"))


def as_json(value: Any) -> Markup:
    """Return JSON for a script element: no ``<`` in it, so that no text can end the element, and no NaN."""
    text = json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
