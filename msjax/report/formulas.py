"""Formulas as they are written in programs, set for a page: p_k becomes a letter with an index."""

import re

from markupsafe import Markup, escape

__all__ = ["as_html"]

_SIGNS = {
    r"&lt;=": "≤",
    r"&gt;=": "≥",
    r"-&gt;": "→",
    r"(?<= )-(?= )": "−",
    r"\bpi\b": "π",
    r"\beps\b": "ε",
    r"\brho\b": "ρ",
    r"\balpha\b": "α",
    r"\bsum_": "Σ_",
    r"(?<=\b[A-Za-z])&#39;(?![A-Za-z])": "′",
}
_SUPERSCRIPT = re.compile(r"\^(?:\(([^()]*)\)|(\|[^|]*\||\w+))")
_SUBSCRIPT = re.compile(r"\b([A-Za-zΣ])_(?:\(([^()]*)\)|([A-Za-z0-9]+))")
_START = re.compile(r"\bp0\b")


def as_html(formula: str) -> Markup:
    """A formula in the notation of docs/theory.md's claims, such as p_k = pi + r^k (p0 - pi)."""
    text = str(escape(formula))
    for written, sign in _SIGNS.items():
        text = re.sub(written, sign, text)
    text = _SUBSCRIPT.sub(lambda x: f"{x[1]}<sub>{x[2] or x[3]}</sub>", text)
    text = _SUPERSCRIPT.sub(lambda x: f"<sup>{x[1] or x[2]}</sup>", text)
    return Markup(_START.sub("p<sub>0</sub>", text))
