"""A warning, and so a failed build, for every page that would load something from the network."""

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

LOADED = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?\s(?:src|href)=["']((?:https?:)?//[^"']+)""")


def loaded(page: str) -> list[str]:
    """Return the addresses in the network that an HTML page loads by itself; links that people follow are none."""
    return LOADED.findall(page)


def _check(app: Sphinx, error: Exception | None) -> None:
    for path in sorted(Path(app.outdir).rglob("*.html")) if error is None else ():
        for address in loaded(path.read_text(encoding="utf-8")):
            logging.getLogger(__name__).warning("%s loads %s", path.relative_to(app.outdir), address)


def setup(app: Sphinx) -> dict[str, bool]:
    """Look at all pages when they are there."""
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
