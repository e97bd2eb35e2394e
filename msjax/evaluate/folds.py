"""Folds of questions: what is learnt on some of them is judged on the others.

Folds come from a hash of the names of the questions, so the same questions fall into the same folds
in any order and with any seed.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int

__all__ = ["FOLDS", "divisions", "folds"]

FOLDS = 5


def folds(names: Sequence[str], folding: int = 0) -> Int[np.ndarray, " question"]:
    """Fold 0, ..., `FOLDS` - 1 of every question; equal names fall into the same one.

    Args:
        names: of the questions, or of the clusters they belong to.
        folding: which of many foldings, 0, 1, ...
    """
    known = {name: i for i, name in enumerate(dict.fromkeys(names))}
    order = np.argsort(np.array([_hash(name, folding) for name in known]))
    fold = np.empty(len(known), int)
    fold[order] = np.arange(len(known)) % FOLDS
    return fold[np.fromiter(map(known.__getitem__, names), int, len(names))]


def divisions(
    names: Sequence[str], foldings: int = 1
) -> Iterator[tuple[Bool[np.ndarray, " question"], Int[np.ndarray, " judged"]]]:
    """Which questions are learnt from, and the positions of those judged, for every fold in turn.

    Every question is judged once in each of `foldings` foldings.
    """
    for folding in range(foldings):
        fold = folds(names, folding)
        for number in range(FOLDS):
            yield fold != number, np.flatnonzero(fold == number)


def _hash(name: str, folding: int) -> bytes:
    return hashlib.blake2b(f"{folding} {name}".encode(), digest_size=16).digest()
