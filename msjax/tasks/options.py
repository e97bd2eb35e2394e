"""The options of a multiple-choice question: from a field of its record, or from its text."""

import re
from collections.abc import Mapping
from typing import Any

from msjax.tasks.characters import clean
from msjax.tasks.math_form import canonical_math

__all__ = ["chosen", "options_of"]

_FIELDS = ("options", "choices")
_LINE = re.compile(
    r"^[ \t>*_-]*(?:[Oo]ption\s+)?[(\[]?([A-Z])(?:[)\].:][*_]*|[*_]+[).:]?)\s+(\S[^\n]*)$",
    re.MULTILINE,
)
_WITHIN = re.compile(r"\(([A-Z])\)\s*(.+?)(?=\s*[,;]?\s*(?:\b(?:and|or)\s+)?\([A-Z]\)|[?\n]|$)")


def options_of(text: str, metadata: Mapping[str, Any]) -> dict[str, str]:
    """The options of a question by letter; none where it has none.

    They are taken from the field "options" or "choices" (a list, a dictionary of letters, or one of
    two lists, text and label), else from lines of the text such as "A) Paris", "(B) Rome", else
    from "(A) Paris (B) Rome" within a line.

    Args:
        text: of the question.
        metadata: the other fields of its record.
    """
    for name in _FIELDS:
        if found := _given(metadata.get(name)):
            return found
    text = clean(text)
    for pattern in (_LINE, _WITHIN):
        named = pattern.findall(text)
        # Letters in any order, each once, from A on.
        letters = sorted(letter for letter, _ in named)
        if len(letters) >= 2 and letters == [chr(ord("A") + i) for i in range(len(letters))]:
            return {letter: option.strip(" \t,;") for letter, option in named}
    return {}


def _given(field: Any) -> dict[str, str]:
    if isinstance(field, Mapping) and isinstance(field.get("text"), (list, tuple)):
        labels, texts = field.get("label"), field["text"]
        if isinstance(labels, (list, tuple)) and len(labels) == len(texts):
            pairs = list(zip(labels, texts, strict=True))
        else:
            pairs = _lettered(texts)
    elif isinstance(field, Mapping):
        pairs = list(field.items())
    elif isinstance(field, (list, tuple)):
        named = [_LINE.fullmatch(str(one)) for one in field]
        if field and all(named):
            return {one[1]: one[2].strip() for one in named if one is not None}
        pairs = _lettered(field)
    else:
        return {}
    found = {str(letter).strip().upper(): str(option).strip() for letter, option in pairs}
    plain = all(re.fullmatch("[A-Z]", letter) for letter in found)
    return found if plain and len(found) == len(pairs) else {}


def _lettered(texts: Any) -> list[tuple[str, Any]]:
    return [(chr(ord("A") + i), text) for i, text in enumerate(texts)] if len(texts) <= 26 else []


def chosen(said: str, options: Mapping[str, str]) -> str | None:
    """The letter of the only option whose text is said; None if there is none or several."""
    spoken = _plain(said)
    found = [letter for letter, option in options.items() if option and _plain(option) == spoken]
    return found[0] if len(found) == 1 else None


def _plain(text: str) -> str:
    """A text without case, article and marks around it; a number or formula in one spelling."""
    bare = canonical_math(text).casefold().removesuffix(" dollars")
    return re.sub(r"^(?:the|a|an)\s+", "", bare).strip(" \t.,;:!\"'")
