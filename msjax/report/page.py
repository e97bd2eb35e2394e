"""The parts of a self-contained HTML page: its frame, tables and embedded images."""

import base64
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

__all__ = ["frame", "image", "render", "table"]

_TEMPLATES = Environment(
    loader=PackageLoader("msjax.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """A whole page; texts in `values` are escaped, those of type Markup are taken as HTML.

    Args:
        template: name of a file in `msjax/report/templates`.
        values: what its names stand for; a name without a value is an error.
    """
    return _TEMPLATES.get_template(template).render(**values)


def frame(title: str, body: Sequence[str]) -> str:
    """A whole page of the parts in `body`, which are HTML; the title is plain text."""
    return render("base.html.j2", title=title, body=Markup("\n".join(body)))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[int] = ()) -> Markup:
    """A table of escaped cells that scrolls in its own box; `text` names columns of sentences."""

    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = (" class=text" if i in text else "" for i in range(len(cells)))
        filled = (
            f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
        )
        return f"<tr>{''.join(filled)}</tr>"

    body = "\n".join(line("td", row) for row in rows)
    return Markup(
        f"<div class=scroll><table><thead>{line('th', header)}</thead><tbody>\n{body}\n"
        "</tbody></table></div>"
    )


def image(png: bytes, caption: str) -> str:
    """A PNG inside the page; the caption is its alternative text."""
    data = base64.b64encode(png).decode()
    return f"<p><img alt='{escape(caption)}' src='data:image/png;base64,{data}'></p>"
