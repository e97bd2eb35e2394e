"""Errors of many means at once, and multipliers that hold for the one chosen among them.

Every quantity of a policy (its accuracy, its tokens, its difference to the first answer) is a mean
over questions. Its error is a sum of what each question, or cluster of questions, contributes, so
the errors of all quantities are jointly normal with the covariance of these contributions.

Reference: docs/theory.md F10; docs/decisions.md.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Float

from msjax.evaluate.means import Means

__all__ = ["joint_errors", "multiplier", "normal_points"]

POINTS = 4096
"""Points of the normal distribution that multipliers are computed from."""


def joint_errors(
    columns: Sequence[Means], points: Float[np.ndarray, "point dimension"]
) -> list[Float[np.ndarray, "point column"]]:
    """Errors of all means at points of a standard normal distribution, one array for each of them.

    Their covariance is that of the contributions, with the squared standard errors on its diagonal.
    """
    # Part by part, since one array of all columns is as large as everything else together.
    parts = [one.influence for one in columns]
    covariance = np.block([[one.T @ other for other in parts] for one in parts])
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
