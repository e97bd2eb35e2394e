"""What a choice between the first answer and the last could reach, whatever the questions' chains.

Reference: docs/theory.md B2; docs/decisions.md.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

__all__ = ["GatingBounds", "gating_bounds"]


class GatingBounds(NamedTuple):
    """Sets that hold the bounds of a benchmark after all rounds recorded; estimates, not intervals.

    Attributes:
        upper_low, upper_high: ends of the set of E[max(p_0, p_K)].
        lower_low, lower_high: ends of the set of E[min(p_0, p_K)].
    """

    upper_low: float
    upper_high: float
    lower_low: float
    lower_high: float


def gating_bounds(right: Bool[np.ndarray, "question answer"]) -> GatingBounds | None:
    """The sets in which upper and lower bound lie.

    With X_0 and X_K right or wrong and p_0 and p_K their probabilities on a question,

        max(E p_0, E p_K) <= E max(p_0, p_K) <= E max(X_0, X_K),

    and the lower bound follows from upper + lower = E p_0 + E p_K. One run of each question tells
    no more.

    Args:
        right: complete runs, labels after 0, 1, ..., K rounds.

    Returns: None without runs or rounds.
    """
    if right.shape[0] == 0 or right.shape[1] < 2:
        return None
    first, last = right[:, 0].mean(), right[:, -1].mean()
    upper_low, upper_high = max(first, last), (right[:, 0] | right[:, -1]).mean()
    total = first + last
    return GatingBounds(*map(float, (upper_low, upper_high, total - upper_high, total - upper_low)))
