"""Mathematics as MathML, which browsers show by themselves: no script, no font, no network."""

from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx


def render(source: str, block: bool = False) -> str:
    """Return LaTeX as a ``<math>`` element, of a line of its own with ``block``.

    Raises:
        docutils.utils.math.MathError: not the LaTeX that docutils knows.
    """
    return latex2mathml.tex2mathml(source, as_block=block)


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(render(node.astext()))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{render(node.astext(), block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Offer the renderer under the name ``mathml``."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
