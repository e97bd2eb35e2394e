"""Answers as numbers."""

from collections.abc import Sequence

__all__ = ["answer_ids"]


def answer_ids(answers: Sequence[str | None]) -> list[int]:
    """Answers numbered in order of first appearance; -1 for no answer."""
    known: dict[str, int] = {}
    return [-1 if answer is None else known.setdefault(answer, len(known)) for answer in answers]
