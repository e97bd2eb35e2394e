"""Texts of unknown origin, such as names and answers, made harmless for where they are written."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from hashlib import sha256

__all__ = ["csv_cell", "figure_text", "file_names", "latex_text", "markdown_cell", "visible"]

# Control characters but tab and newline, marks that turn the direction of text, surrogates.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff]"
)
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "[": "{[}",  # a bracket after \\ or \midrule would be an argument of these
        "]": "{]}",
        **{sign: f"\\{sign}" for sign in "{}$&#%_"},
    }
)
# Some spreadsheets take wide signs for these as well, and pass over what is not seen before them.
_FORMULA = re.compile(r"[\s\x00-\x1f\ufeff\u200b-\u200f\u2060]*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_LONGEST = 50
_MARKED = re.compile("-[0-9a-f]{8}$")


def visible(text: str) -> str:
    r"""The text with an escape such as ``\x1b`` for all that a terminal would obey, not show."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def latex_text(text: str) -> str:
    """The text as LaTeX prints it: no command, formula, column or argument."""
    return " ".join(visible(text).split()).translate(_LATEX)


def figure_text(text: str) -> str:
    """The text as matplotlib draws it: no formula."""
    return visible(text).replace("$", r"\$")


def markdown_cell(text: str) -> str:
    """The text as a cell of a Markdown table: no other column, row or HTML."""
    line = " ".join(visible(text).split())
    return line.replace("\\", r"\\").replace("|", r"\|").replace("<", "&lt;")


def csv_cell(value: object) -> object:
    """A cell of a CSV file; before a text that a spreadsheet would take for a formula stands '."""
    if isinstance(value, str) and _FORMULA.match(value):
        try:
            float(value)
        except ValueError:
            return f"'{value}"
    return value


def file_names(names: Iterable[str]) -> dict[str, str]:
    """For each of these names a part of a file's name; no two are alike, in small letters either.

    Where two would be, each ends with a hash of its name.
    """
    stems = {
        name: re.sub(r"[^\w-]+", "_", unicodedata.normalize("NFC", name)).strip("_")[:_LONGEST]
        for name in names
    }
    times = Counter(stem.casefold() for stem in stems.values())
    return {
        name: stem
        if stem and times[stem.casefold()] == 1 and not _MARKED.search(stem)
        else f"{stem}-{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
        for name, stem in stems.items()
    }
