"""What simulation says about predictions: how far off, and how rarely chance alone is.

A prediction fails when, were it true, data at least as far off would be rarer than its share of
`FALSE_ALARM`. That tail is exact for counts (binomial), and for means of independent terms it is
Bernstein's bound with the sample variance. Where nothing is left to chance the match is exact
to rounding.
"""

import dataclasses

import numpy as np
from jaxtyping import ArrayLike, Float, Int
from scipy import stats

__all__ = ["FALSE_ALARM", "Evidence", "join", "of_counts", "of_means"]

FALSE_ALARM = 1e-6
"""Probability that a run of correct claims reports any failure at all."""

_CERTAIN = 1e-9  # a probability this near to 0 or 1 is meant to be it
_ROUNDING = 1e-7  # of a prediction in float32


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Comparisons of prediction and estimate; `tail` bounds the chance of a worse mismatch."""

    predicted: Float[np.ndarray, "m"]
    estimate: Float[np.ndarray, "m"]
    standard_error: Float[np.ndarray, "m"]
    tail: Float[np.ndarray, "m"]

    @property
    def z(self) -> Float[np.ndarray, "m"]:
        """Standard errors between estimate and prediction; infinite where none are allowed."""
        apart = self.estimate - self.predicted
        apart = np.where(np.abs(apart) <= _ROUNDING, 0.0, apart)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(apart == 0, 0.0, apart / self.standard_error)


def of_counts(
    counts: Int[ArrayLike, "..."],
    n: Int[ArrayLike, "..."],
    probability: Float[ArrayLike, "..."],
    side: int = 0,
) -> Evidence:
    """Counts predicted Binomial(n, p) with p equal to (side 0), at least (1) or at most (-1)."""
    counts, n, p = np.broadcast_arrays(*np.atleast_1d(counts, n, np.asarray(probability, float)))
    sense = (p >= -_CERTAIN) & (p <= 1 + _CERTAIN)
    p = np.where(p < _CERTAIN, 0.0, np.where(p > 1 - _CERTAIN, 1.0, p))
    few, many = stats.binom.cdf(counts, n, p), stats.binom.sf(counts - 1, n, p)
    tail = {0: np.minimum(few, many), 1: few, -1: many}[side]
    tail = np.where(sense, np.minimum(1, 2 * tail), 0.0)
    return Evidence(p, counts / n, np.sqrt(p * (1 - p) / n), tail)


def of_means(
    estimate: Float[ArrayLike, "..."],
    predicted: Float[ArrayLike, "..."],
    variance: Float[ArrayLike, "..."],
    largest: Float[ArrayLike, "..."],
    side: int = 0,
) -> Evidence:
    """Sums of independent terms predicted equal to (side 0), at least (1) or at most (-1) a value.

    Shapes broadcast.

    Args:
        estimate: the sums.
        predicted: what is claimed of their means.
        variance: variance of each sum.
        largest: how far one term can lie from its mean.
        side: which deviations count against the prediction.
    """
    estimate, predicted, variance, largest = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(x, float)) for x in (estimate, predicted, variance, largest))
    )
    variance = np.maximum(variance, 0.0)
    apart = estimate - predicted
    off = {0: np.abs(apart), 1: np.maximum(-apart, 0), -1: np.maximum(apart, 0)}[side]
    chance = variance + largest * off / 3
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = np.minimum(1, 2 * np.exp(-(off**2) / (2 * chance)))
    exact = np.where(off <= _ROUNDING, 1.0, 0.0)
    tail = np.where(variance > 0, bound, exact)
    return Evidence(predicted, estimate, np.sqrt(variance), tail)


def join(*parts: Evidence) -> Evidence:
    """All comparisons of `parts` as one."""
    names = [field.name for field in dataclasses.fields(Evidence)]
    return Evidence(*(np.concatenate([np.ravel(getattr(p, n)) for p in parts]) for n in names))
