"""The parts of a self-contained HTML page: its templates, states in tables, embedded images."""

import base64
from typing import Any, Literal, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["Picture", "State", "image", "render"]

_TEMPLATES = Environment(
    loader=PackageLoader("msjax.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


class State(NamedTuple):
    """The cell of a table that says how something came out, by a sign and a word."""

    kind: Literal["good", "bad", "soft"]
    word: str


class Picture(NamedTuple):
    """A PNG inside a page.

    Attributes:
        png: its bytes, as base64.
        says: what it shows, for who does not see it.
        caption: what stands below it.
    """

    png: str
    says: str
    caption: str


def image(png: bytes, says: str, caption: str) -> Picture:
    """A picture from the bytes of a PNG; see `Picture`."""
    return Picture(base64.b64encode(png).decode(), says, caption)


def render(template: str, **values: Any) -> str:
    """A whole page; texts in `values` are escaped, those of type Markup are taken as HTML.

    Args:
        template: name of a file in `msjax/report/templates`.
        values: what its names stand for; a name without a value is an error.
    """
    return _TEMPLATES.get_template(template).render(**values)
