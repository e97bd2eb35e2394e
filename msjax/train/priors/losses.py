"""Evidence of predicted priors: the probability of what questions showed, their parameters
integrated out.

A rate has a Beta distribution, so counts are Beta-binomial, exactly. A distribution of scores has
the conjugate prior of the truncated normal, which counts as `weight` scores of a predicted mean and
variance; its two integrals are sums over a grid of distributions. docs/training.md derives both.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from msjax.theory.best_of_n import gauss_legendre
from msjax.theory.score_fits import LARGEST_SIGMA, ScoreStatistics

__all__ = [
    "LARGEST_WEIGHT",
    "SMALLEST_SIGMA",
    "BetaPrior",
    "DistributionGrid",
    "ScorePrior",
    "beta_binomial_log_evidence",
    "expected_distribution",
    "distribution_grid",
    "distribution_log_prior",
    "score_log_evidence",
]

LARGEST_WEIGHT = 32.0
"""Most scores that a prior may count for."""

SMALLEST_SIGMA = 0.01
"""Narrower distributions of scores count as this narrow."""

_LARGEST_SLOPE = 1000.0
"""Log-density per score at an end of [0, 1], beyond what scores piled up there show."""

_STEP = 1.6
"""Distance of distributions on the grid, in standard deviations of the narrowest posterior."""


class BetaPrior(NamedTuple):
    """The distribution of a rate over questions with the same features.

    Attributes:
        mean: of the rate (probability).
        icc: intra-question correlation of its trials, 1 / (a + b + 1) for Beta(a, b); 0 is a rate
            that is known, 1 a rate that is 0 or 1.
    """

    mean: Float[Array, "*batch"]
    icc: Float[Array, "*batch"]

    @property
    def strength(self) -> Float[Array, "*batch"]:
        """Trials that the prior counts for, a + b."""
        return (1 - self.icc) / self.icc


class ScorePrior(NamedTuple):
    """The prior of a question's distribution of scores: as if so many scores had been seen.

    Attributes:
        mean: mean of these scores.
        variance: their variance, within questions and of the mean between them.
        weight: their number, > 0.
    """

    mean: Float[Array, "*batch"]
    variance: Float[Array, "*batch"]
    weight: Float[Array, "*batch"]


class DistributionGrid(NamedTuple):
    """Normals truncated to [0, 1], and their share of the area of natural parameters.

    The density is proportional to exp(slope y - curvature y^2 / 2), y = s - centre.

    Attributes:
        centre: mean of the distribution, in [0, 1].
        slope, curvature: as above; curvature > 0.
        log_mass: log of the integral of exp(slope y - curvature y^2 / 2) over s in [0, 1].
        variance: of the distribution.
        log_area: log of the area that the distribution stands for.
    """

    centre: Float[np.ndarray, " distribution"]
    slope: Float[np.ndarray, " distribution"]
    curvature: Float[np.ndarray, " distribution"]
    log_mass: Float[np.ndarray, " distribution"]
    variance: Float[np.ndarray, " distribution"]
    log_area: Float[np.ndarray, " distribution"]


def beta_binomial_log_evidence(
    prior: BetaPrior, yes: Int[ArrayLike, ""], no: Int[ArrayLike, ""], most: int
) -> Float[Array, ""]:
    """Log-probability of a sequence of trials with so many successes and failures.

        P = prod_(i < yes) (m (1 - icc) + i icc) prod_(i < no) ((1 - m) (1 - icc) + i icc)
            / prod_(i < yes + no) (1 - icc + i icc),

    the integral of q^yes (1 - q)^no over q ~ Beta. This form has no singularity at icc = 0 and no
    difference of large numbers.

    Args:
        prior: of one question, scalar, means and icc inside (0, 1).
        yes: successes.
        no: failures.
        most: an upper bound of yes + no (static).

    Reference: docs/training.md; Skellam (1948), A probability distribution derived from the
        binomial distribution.
    """
    i = jnp.arange(most)
    m, icc = prior.mean, prior.icc
    free = 1 - icc
    return (
        jnp.where(i < yes, jnp.log(m * free + i * icc), 0).sum()
        + jnp.where(i < no, jnp.log((1 - m) * free + i * icc), 0).sum()
        - jnp.where(i < yes + no, jnp.log(free + i * icc), 0).sum()
    )


@functools.cache
def distribution_grid(scores: int) -> DistributionGrid:
    """Distributions so close that posteriors of at most `scores` scores, prior included, are
    resolved.

    With a the slope at s = 1/2 and b the curvature, distributions are equidistant in log b, from
    LARGEST_SIGMA^-2 to SMALLEST_SIGMA^-2, and in asinh(a / scale(b)), which is proportional to a
    where the mode lies inside [0, 1] and to log a far outside. A smooth function that vanishes at
    both ends is summed with an error that falls exponentially with the number of points.
    """
    step = _STEP / math.sqrt(scores)
    low, high = LARGEST_SIGMA**-2, SMALLEST_SIGMA**-2
    levels = math.ceil(math.log(high / low) / (math.sqrt(2) * step)) + 1
    log_curvature = np.linspace(math.log(low), math.log(high), levels)
    found = []
    for b in np.exp(log_curvature):
        length, scale = max(1.5, math.sqrt(b) / 2), math.sqrt(b + 12)
        last = math.asinh((b / 2 + _LARGEST_SLOPE) / (length * scale))
        u, du = np.linspace(-last, last, 2 * math.ceil(last * length / step) + 1, retstep=True)
        a = length * scale * np.sinh(u)
        area = length * scale * np.cosh(u) * du * b * (log_curvature[1] - log_curvature[0])
        found.append((*_distribution(a, b), np.log(area)))
    return DistributionGrid(
        *(np.concatenate(x).astype(np.float32) for x in zip(*found, strict=True))
    )


def distribution_log_prior(
    prior: ScorePrior, grid: DistributionGrid
) -> Float[Array, " distribution"]:
    """Log of prior density times area of every distribution, up to a constant; of one question."""
    log_density = _log_likelihood(grid, prior.weight, prior.mean, prior.variance)
    return log_density + jnp.asarray(grid.log_area)


def score_log_evidence(
    prior: ScorePrior, statistics: ScoreStatistics, grid: DistributionGrid
) -> Float[Array, ""]:
    """Log density of a question's scores, its distribution integrated out.

    With t = (s, s^2), theta the natural parameters of the truncated normal and A its log-mass, the
    prior is proportional to exp(w (theta . t_0 - A(theta))) d theta, t_0 the moments predicted and
    w the weight. n scores of moments t add n (theta . t - A(theta)) to the exponent, so that the
    posterior mode is the maximum likelihood fit to predicted and seen scores together.

    Args:
        prior: of one question, scalar.
        statistics: of one question, scalar.
        grid: made for at least as many scores as are seen and as the prior counts for.

    Reference: docs/training.md; Diaconis and Ylvisaker (1979), Conjugate priors for exponential
        families.
    """
    n = statistics.number.astype(jnp.float32)
    variance = statistics.squares / jnp.maximum(n, 1)
    before = distribution_log_prior(prior, grid)
    after = before + _log_likelihood(grid, n, statistics.mean, variance)
    return jax.nn.logsumexp(after) - jax.nn.logsumexp(before)


def expected_distribution(
    prior: ScorePrior, grid: DistributionGrid
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Prior expectations of the mean and of the standard deviation of a question's scores.

    The variance that a `ScorePrior` predicts is larger: it has that of the mean in it.
    """
    share = jax.nn.softmax(distribution_log_prior(prior, grid))
    return share @ jnp.asarray(grid.centre), share @ jnp.sqrt(jnp.asarray(grid.variance))


def _log_likelihood(grid: DistributionGrid, number: Array, mean: Array, variance: Array) -> Array:
    """Of so many scores of that mean and variance, under every distribution."""
    away = mean - grid.centre
    each = grid.slope * away - grid.curvature / 2 * (away**2 + variance) - grid.log_mass
    return number * each


def _distribution(a: np.ndarray, b: float) -> tuple[np.ndarray, ...]:
    """Mean, slope there, curvature, log-mass about the mean, variance; a is the slope at 1/2."""
    top = np.clip(a / b, -0.5, 0.5)
    fall = a - b * top
    # exp(-40) is nothing, and so many nodes integrate such a bell.
    reach = 80 / (np.abs(fall) + np.sqrt(fall**2 + 80 * b))
    start = np.maximum(-0.5 - top, -reach)
    width = np.minimum(0.5 - top, reach) - start
    nodes, weights = (np.asarray(x, float) for x in gauss_legendre(48, np.float64))
    x = start[:, None] + nodes * width[:, None]
    density = weights * np.exp(x * (fall[:, None] - b / 2 * x))
    total = density.sum(axis=1)
    mean = (density * x).sum(axis=1) / total
    variance = (density * (x - mean[:, None]) ** 2).sum(axis=1) / total
    log_mass = np.log(total * width) - mean * (fall - b / 2 * mean)
    return 0.5 + top + mean, fall - b * mean, np.full_like(a, b), log_mass, variance
