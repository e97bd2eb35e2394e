"""Means of many policies on the same questions, and intervals that hold for the one chosen.

Every quantity of a policy (its accuracy, its tokens, its difference to the first answer) is a mean
over questions. Its error is a sum of what each question, or cluster of questions, contributes, so
the errors of all quantities are jointly normal with the covariance of these contributions. Shares
and their differences are smoothed by two further observations, so that no interval has width 0
because nothing happened to differ.

Reference: docs/theory.md F10; docs/decisions.md; Agresti & Min (2005), Statistics in Medicine 24,
729-740, who add the same two observations to a difference of paired shares.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

__all__ = [
    "DIFFERENCES",
    "SHARES",
    "UNBOUNDED",
    "Means",
    "Smoothing",
    "joint_errors",
    "means",
    "multiplier",
    "normal_points",
    "smoothed",
    "student",
]

POINTS = 4096
"""Points of the normal distribution that multipliers are computed from."""


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
        member = np.zeros((number, len(cluster)))
        member[cluster, np.arange(len(cluster))] = 1
        influence, clusters = member @ influence, (member @ known > 0).sum(axis=0)
    centre, error = smoothed(estimate, (influence**2).sum(axis=0), clusters, smoothing)
    influence = influence * (clusters / np.maximum(clusters + smoothing.number, 1))
    if exact is None:
        exact = np.zeros(len(estimate), dtype=bool)
    centre, error = np.where(exact, estimate, centre), np.where(exact, 0.0, error)
    influence = np.where(exact, 0.0, influence)
    return Means(estimate, centre, error, exact, clusters, questions, influence)


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


def joint_errors(
    columns: Sequence[Means], points: Float[np.ndarray, "point dimension"]
) -> list[Float[np.ndarray, "point column"]]:
    """Errors of all means at points of a standard normal distribution, one array for each of them.

    Their covariance is that of the contributions, with the squared standard errors on its diagonal.
    """
    influence = np.concatenate([one.influence for one in columns], axis=1)
    covariance = influence.T @ influence
    error = np.concatenate([np.where(np.isfinite(one.error), one.error, 0.0) for one in columns])
    np.fill_diagonal(covariance, error**2)
    values, vectors = np.linalg.eigh(covariance)
    # The symmetric root, which rounding hardly moves even where eigenvalues are equal.
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    ends = np.cumsum([one.error.size for one in columns])[:-1]
    return np.split(points @ root, ends, axis=1)


@cache
def normal_points(dimension: int, part: int = 0) -> Float[np.ndarray, "point dimension"]:
    """Fixed points of the standard normal distribution, as good as random.

    Different parts are independent of each other. They are the same for every set of runs, so
    nothing depends on a seed. A quantile of .9 is that of .9 +- .005.
    """
    return np.random.default_rng([dimension, part]).standard_normal((POINTS, dimension))


def multiplier(ratios: Float[np.ndarray, " point"], level: float) -> float:
    """The least number that |error| / standard error stays below with probability `level`."""
    return float(np.quantile(np.abs(ratios), level)) if ratios.size else 0.0


def student(normal: Any, clusters: Any) -> Float[np.ndarray, "..."]:
    """A multiplier for known standard errors as one for errors estimated from so many clusters."""
    number = np.asarray(clusters)
    tail = special.ndtr(-np.abs(np.asarray(normal, dtype=float)))
    return np.where(number > 1, -special.stdtrit(np.maximum(number - 1, 1), tail), np.inf)
