"""What a choice between the first answer and the last could reach, whatever the questions' chains.

Reference: docs/theory.md B2; docs/decisions.md.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

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


def gating_bounds(
    right: Bool[np.ndarray, "run answer"], question: Int[np.ndarray, " run"] | None = None
) -> GatingBounds | None:
    """The sets in which upper and lower bound lie.

    With X_0 and X_K right or wrong and p_0 and p_K their probabilities on a question,

        max(E p_0, E p_K) <= E max(p_0, p_K) <= E max(X_0, X_K),

    and the lower bound follows from upper + lower = E p_0 + E p_K. One run of each question tells
    no more. Where questions were run several times, X_0 and X_K are means over the runs of one,
    which brings the upper end down to E max(p_0, p_K) as runs become many; and what one gets who
    chooses first or last answer of a run by the other runs of its question is no more than that.

    Args:
        right: complete runs, labels after 0, 1, ..., K rounds.
        question: which question each run is of; each of its own if None.

    Returns: None without runs or rounds.
    """
    if right.shape[0] == 0 or right.shape[1] < 2:
        return None
    ends = right[:, [0, -1]].astype(float)
    _, number = np.unique(
        np.arange(len(right)) if question is None else question, return_inverse=True
    )
    runs = np.bincount(number).astype(float)
    total = np.stack([np.bincount(number, weights=end) for end in ends.T], axis=1)
    share = total / runs[:, None]
    first, last = share.mean(axis=0)
    others = (total[number] - ends) / np.maximum(runs[number] - 1, 1)[:, None]
    better = np.sign(others[:, 1] - others[:, 0])
    chosen = ends.mean(axis=1) + better * (ends[:, 1] - ends[:, 0]) / 2
    by_others = np.bincount(number, weights=chosen) / runs
    attained = float(by_others.mean()) if (runs > 1).all() else 0.0
    upper_low, upper_high = max(first, last, attained), share.max(axis=1).mean()
    both = first + last
    return GatingBounds(*map(float, (upper_low, upper_high, both - upper_high, both - upper_low)))
