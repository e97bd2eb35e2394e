"""Exact distributions without closed forms: rational recursion and the sum over all paths.

These are the oracles that closed forms are held against, so they share no code with them: numbers
are `fractions.Fraction`, a round is one matrix product, and a distribution is a sum over all 2^T
paths.
"""

from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Float

__all__ = ["all_paths", "exact_curve", "path_distribution"]


def exact_curve(p0: float, p_ic: float, p_ci: float, rounds: int) -> list[Fraction]:
    """P(correct after k rounds) for k = 0..rounds, one exact multiplication per round.

    The parameters are taken as the binary fractions they are.
    """
    repair, keep = Fraction(p_ic), 1 - Fraction(p_ci)
    curve = [Fraction(p0)]
    for _ in range(rounds):
        correct = curve[-1]
        curve.append(correct * keep + (1 - correct) * repair)
    return curve


def all_paths(answers: int) -> Bool[np.ndarray, "paths answers"]:
    """All 2^answers sequences of wrong and right answers, one per row."""
    return (np.arange(2**answers)[:, None] >> np.arange(answers)[None] & 1).astype(bool)


def path_distribution(
    p0: float, p_ic: float, p_ci: float, answers: int
) -> Float[np.ndarray, "paths"]:
    """Probability of each path of `all_paths(answers)`: the product along it, in float64."""
    paths = all_paths(answers)
    to_correct = np.where(paths[:, :-1], 1 - p_ci, p_ic)
    steps = np.where(paths[:, 1:], to_correct, 1 - to_correct)
    return np.where(paths[:, 0], p0, 1 - p0) * np.prod(steps, axis=1)
