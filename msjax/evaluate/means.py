"""Means over questions and their errors, clustered, and never 0 because nothing happened to differ.

Shares and their differences are smoothed by two further observations, as Agresti and Min do for
paired shares.

Reference: docs/theory.md F10; Agresti & Min (2005), Statistics in Medicine 24, 729-740.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import special

from msjax.intervals import NOT_IDENTIFIED, Interval

__all__ = [
    "DIFFERENCES",
    "SHARES",
    "UNBOUNDED",
    "Means",
    "Smoothing",
    "mean_interval",
    "means",
    "ratio_interval",
    "smoothed",
    "student",
]

LEVEL = 0.9
"""Probability that an interval holds, where none is asked for."""


@dataclass(frozen=True)
class Smoothing:
    """Observations added to a mean: their number, sum and sum of squares."""

    number: float
    total: float
    square: float


SHARES = Smoothing(2.0, 1.0, 1.0)
"""One right and one wrong answer."""
DIFFERENCES = Smoothing(2.0, 0.0, 1.0)
"""Half a question repaired, half a question broken, and one that stays as it was."""
UNBOUNDED = Smoothing(0.0, 0.0, 0.0)
"""Nothing, for tokens, whose scale is not known beforehand."""


@dataclass(frozen=True)
class Means:
    """Means over questions of several columns, and what every cluster contributes to their errors.

    Attributes:
        estimate: mean over the questions that have a value.
        centre: the middle of intervals, after smoothing.
        error: standard error after smoothing; 0 where no question differs from the others.
        exact: whether the mean is what it is by construction.
        clusters, questions: how many of them the mean rests on.
        influence: what every cluster contributes to the error of `centre`.
    """

    estimate: Float[np.ndarray, " column"]
    centre: Float[np.ndarray, " column"]
    error: Float[np.ndarray, " column"]
    exact: Bool[np.ndarray, " column"]
    clusters: Int[np.ndarray, " column"]
    questions: Int[np.ndarray, " column"]
    influence: Float[np.ndarray, "cluster column"]


def means(
    values: Float[np.ndarray, "question column"],
    cluster: Int[np.ndarray, " question"],
    smoothing: Smoothing,
    exact: Bool[np.ndarray, " column"] | None = None,
) -> Means:
    """Means of columns over the questions that have a value.

    With G clusters, estimate m, sum V of squared contributions, and `a` added observations of sum s
    and sum of squares q

        centre = (G m + s) / (G + a),
        error^2 = (G^2 V + G (m - centre)^2 + q - 2 s centre + a centre^2) / (G + a)^2;

    where nothing is added error^2 = V G / (G - 1).

    Args:
        values: one column for each quantity; NaN where a question has none.
        cluster: which of 0, 1, ... each question belongs to.
        smoothing: what is added.
        exact: columns that are the same number for every question by construction.
    """
    known = ~np.isnan(values)
    questions = known.sum(axis=0)
    several = np.maximum(questions, 1)
    estimate = np.where(known, values, 0.0).sum(axis=0) / several
    influence = np.where(known, values - estimate, 0.0) / several
    clusters = questions
    number = int(cluster.max()) + 1
    if number < len(cluster):
        influence = _sums(influence, cluster, number)
        clusters = (_sums(known, cluster, number) > 0).sum(axis=0)
    centre, error = smoothed(estimate, (influence**2).sum(axis=0), clusters, smoothing)
    influence = influence * (clusters / np.maximum(clusters + smoothing.number, 1))
    if exact is None:
        exact = np.zeros(len(estimate), dtype=bool)
    centre, error = np.where(exact, estimate, centre), np.where(exact, 0.0, error)
    influence = np.where(exact, 0.0, influence)
    return Means(estimate, centre, error, exact, clusters, questions, influence)


def _sums(
    values: Shaped[np.ndarray, "question column"],
    cluster: Int[np.ndarray, " question"],
    number: int,
) -> Float[np.ndarray, "cluster column"]:
    """Sums over the questions of every cluster."""
    return np.stack([np.bincount(cluster, column, number) for column in values.T], axis=1)


def smoothed(
    estimate: Float[np.ndarray, "*shape"],
    variance: Float[np.ndarray, "*shape"],
    clusters: Int[np.ndarray, "*shape"],
    smoothing: Smoothing,
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Centre and standard error, see `means`; the error of a single observation is infinite."""
    a, s, q = smoothing.number, smoothing.total, smoothing.square
    if not a:
        factor = np.where(clusters > 1, clusters / np.maximum(clusters - 1, 1), np.inf)
        return estimate, np.sqrt(np.where(clusters > 1, variance, 1.0) * factor)
    centre = (clusters * estimate + s) / (clusters + a)
    total = clusters**2 * variance + clusters * (estimate - centre) ** 2
    return centre, np.sqrt(total + q - 2 * s * centre + a * centre**2) / (clusters + a)


def mean_interval(
    values: Shaped[np.ndarray, " question"],
    smoothing: Smoothing,
    *,
    cluster: Int[np.ndarray, " question"] | None = None,
    level: float = LEVEL,
) -> Interval:
    """Mean of one value per question with its interval, see `means`.

    centre -+ t error, t the quantile of Student's distribution for the number of clusters; within
    [0, 1] for `SHARES`, [-1, 1] for `DIFFERENCES`. NaN if a value is not known.

    Args:
        values: one for each question.
        smoothing: what is added: `SHARES`, `DIFFERENCES` or `UNBOUNDED`.
        cluster: which of 0, 1, ... each question belongs to; each one to its own if None.
        level: probability that the interval holds.
    """
    values = np.asarray(values, dtype=float)
    if np.isnan(values).any():
        return NOT_IDENTIFIED
    cluster = np.arange(len(values)) if cluster is None else cluster
    found = means(values[:, None], cluster, smoothing)
    estimate, centre, error = (float(x[0]) for x in (found.estimate, found.centre, found.error))
    half = float(student(special.ndtri((1 + level) / 2), found.clusters[0])) * error
    least, most = {SHARES: (0.0, 1.0), DIFFERENCES: (-1.0, 1.0)}.get(smoothing, (-np.inf, np.inf))
    return Interval(estimate, max(least, centre - half), min(most, centre + half))


def ratio_interval(
    above: Float[np.ndarray, " question"],
    below: Float[np.ndarray, " question"],
    *,
    cluster: Int[np.ndarray, " question"] | None = None,
    level: float = LEVEL,
) -> Interval:
    """Sum of `above` over sum of `below` with its interval: r -+ that of mean((a - r b) / mean(b)).

    NaN if a value is not known, or nothing is below.
    """
    total = float(np.sum(below))
    if not total > 0 or np.isnan(above).any():
        return NOT_IDENTIFIED
    ratio = float(np.sum(above)) / total
    errors = (above - ratio * below) * (len(below) / total)
    around = mean_interval(errors, UNBOUNDED, cluster=cluster, level=level)
    return Interval(ratio, ratio + around.low, ratio + around.high)


def student(normal: Any, clusters: Any) -> Float[np.ndarray, "..."]:
    """A multiplier for known standard errors as one for errors estimated from so many clusters."""
    number = np.asarray(clusters)
    tail = special.ndtr(-np.abs(np.asarray(normal, dtype=float)))
    return np.where(number > 1, -special.stdtrit(np.maximum(number - 1, 1), tail), np.inf)
