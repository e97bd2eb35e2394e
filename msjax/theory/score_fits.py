"""Fits of the distribution of one question's scores: truncated normal (likelihood or predicted
prior), Beta.

A fit needs a few numbers of constant size, `ScoreStatistics`, whatever the number of scores. Every
function acts elementwise on any shape of them, so thousands of questions are fitted at once.

Both families are exponential: the log-likelihood is concave in natural parameters and its first
two derivatives are moments. A safeguarded Newton method of two variables climbs it; moments of the
truncated normal are Gauss-Legendre sums of positive terms, taken from its highest point, so that
nothing cancels in float32 either. docs/theory.md D4 and D5 derive it.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import betainc, digamma, polygamma
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from msjax.errors import require
from msjax.theory._newton import Ascent, maximise, positive_curvature
from msjax.theory.best_of_n import TruncatedNormal, gauss_legendre, samples_needed

__all__ = [
    "LARGEST_CONCENTRATION",
    "LARGEST_SIGMA",
    "PRIOR_DEVIATION",
    "RESOLUTION",
    "BetaFit",
    "BetaScores",
    "ScoreStatistics",
    "TruncatedNormalFit",
    "add_score",
    "beta_samples_to_reach",
    "beta_score_log_cdf",
    "fit_beta",
    "fit_truncated_normal",
    "fit_truncated_normal_to_prior",
    "no_scores",
    "score_statistics",
]

RESOLUTION = 1e-4
"""Scores are told apart down to this: fits take no mean closer to 0 or 1 and no deviation below."""

LARGEST_SIGMA = 10.0
"""Above it a normal is flat on [0, 1], up to its slope: no fit gains .002 nats per score there."""

LARGEST_CONCENTRATION = 1e4
"""Bound on each of a and b of a Beta distribution; float32 statistics say nothing beyond."""

PRIOR_DEVIATION = 0.1
"""Standard deviation of the normal priors on mu and sigma in OptScale's code."""


class ScoreStatistics(NamedTuple):
    """Sufficient statistics of the scores of a question, for every model of scores here.

    The means and the central sum stand for the plain sums of s, s^2, log s and log(1 - s), because
    a difference of plain sums loses the spread of concentrated scores in float32.

    Attributes:
        number: scores seen, n.
        mean: sum s / n.
        squares: sum (s - mean)^2.
        mean_log: sum log s / n, with s clipped to [RESOLUTION, 1 - RESOLUTION].
        mean_log_complement: sum log(1 - s) / n, clipped likewise.
    """

    number: Int[Array, "*batch"]
    mean: Float[Array, "*batch"]
    squares: Float[Array, "*batch"]
    mean_log: Float[Array, "*batch"]
    mean_log_complement: Float[Array, "*batch"]


class TruncatedNormalFit(NamedTuple):
    """A fitted truncated normal.

    Attributes:
        distribution: the fitted distribution.
        degenerate: the likelihood has no maximum and `distribution` lies at a bound: sigma would
            run to infinity (the scores spread as much as an exponential distribution on [0, 1] of
            their mean, or more), or the scores are fewer than two, equal, or all at 0 or 1 to
            `RESOLUTION`.
    """

    distribution: TruncatedNormal
    degenerate: Bool[Array, "*batch"]


class BetaScores(NamedTuple):
    """The Beta distribution of one sample's score, density proportional to s^(a - 1) (1 - s)^(b -
    1).

    Attributes:
        a: first shape, > 0.
        b: second shape, > 0.
    """

    a: Float[Array, "*batch"]
    b: Float[Array, "*batch"]


class BetaFit(NamedTuple):
    """A fitted Beta distribution.

    Attributes:
        distribution: the fitted distribution.
        degenerate: fewer than two scores, or a shape at its bound `LARGEST_CONCENTRATION` (scores
            that are equal or nearly so).
    """

    distribution: BetaScores
    degenerate: Bool[Array, "*batch"]


def no_scores(dtype: Any = None) -> ScoreStatistics:
    """Statistics before the first score, of the default floating type unless another is named."""
    zero = jnp.zeros((), jnp.result_type(float) if dtype is None else dtype)
    return ScoreStatistics(jnp.int32(0), zero, zero, zero, zero)


@jax.jit
def add_score(statistics: ScoreStatistics, score: Float[Array, "*batch"]) -> ScoreStatistics:
    """Statistics with one more score each; NaN adds nothing, others are clipped to [0, 1].

    Reference: docs/theory.md D4; Welford (1962) for the running sum of squares.
    """
    seen = ~jnp.isnan(score)
    s = jnp.clip(jnp.where(seen, score, 0.5), 0, 1).astype(statistics.mean.dtype)
    logs = _logs(s)
    count = statistics.number + 1
    mean = statistics.mean + (s - statistics.mean) / count
    more = ScoreStatistics(
        count,
        mean,
        statistics.squares + (s - statistics.mean) * (s - mean),
        statistics.mean_log + (logs[0] - statistics.mean_log) / count,
        statistics.mean_log_complement + (logs[1] - statistics.mean_log_complement) / count,
    )
    return jax.tree.map(lambda new, old: jnp.where(seen, new, old), more, statistics)


def score_statistics(scores: Real[ArrayLike, "*batch score"]) -> ScoreStatistics:
    """Statistics of the scores along the last axis, NaN standing for no score.

    Raises:
        InputError: a score outside [0, 1].

    Reference: docs/theory.md D4.
    """
    require("scores", scores, lambda s: ~((s < 0) | (s > 1)), "a score must lie in [0, 1]")
    return _score_statistics(jnp.asarray(scores, jnp.result_type(float, scores)))


@jax.jit
def _score_statistics(array: Float[Array, "*batch score"]) -> ScoreStatistics:
    seen = ~jnp.isnan(array)
    count = jnp.sum(seen, axis=-1, dtype=jnp.int32)
    s = jnp.where(seen, array, 0.5)

    def average(x: Float[Array, "*batch score"]) -> Float[Array, "*batch"]:
        return jnp.sum(jnp.where(seen, x, 0), axis=-1) / jnp.maximum(count, 1)

    mean = average(s)
    squares = jnp.sum(jnp.where(seen, (s - mean[..., None]) ** 2, 0), axis=-1)
    return ScoreStatistics(count, mean, squares, *map(average, _logs(s)))


@jax.jit
def fit_truncated_normal(statistics: ScoreStatistics) -> TruncatedNormalFit:
    """Maximum likelihood of a normal truncated to [0, 1] (OptScale's "0").

    Bounds: sigma <= LARGEST_SIGMA, and the mean and standard deviation of the scores are taken as
    no nearer to an end and no smaller than RESOLUTION. From these follow sigma >= RESOLUTION and
    |mu - 1/2| <= about LARGEST_SIGMA^2 / RESOLUTION = 1e6. Without them mu and sigma run to
    infinity together whenever scores pile up at an end; what is left then is the exponential
    distribution of the slope (mu - 1) / sigma^2, to which the fit at the bound is equal to
    within 1 %.

    Args:
        statistics: any shape.

    Returns: the distribution, and whether it lies at a bound. Without scores it is uniform (mu =
        1/2).

    Reference: docs/theory.md D4; OptScale arXiv 2506.22376 (maximum likelihood).
    """
    mean, variance, at_end = _bounded_moments(statistics)
    # No exponential distribution on [0, 1] varies more, so a larger variance leads to the same
    # bound.
    variance = jnp.minimum(variance, 2 * jnp.minimum(mean, 1 - mean) ** 2)
    flattest = jnp.full_like(mean, LARGEST_SIGMA**-2)

    def climb(slope: Array, curvature: Array) -> Ascent:
        distribution = _moments(mean, slope, curvature)
        return Ascent(
            (-distribution.mean, (distribution.square - variance) / 2),
            (distribution.var, -distribution.cov / 2, distribution.var_square / 4),
        )

    start = _half_normal_start(mean, variance, flattest)
    slope, curvature = maximise(climb, start, lower=flattest)
    flat = curvature <= flattest * (1 + 1e-4)
    distribution = TruncatedNormal(mean + slope / curvature, jax.lax.rsqrt(curvature))
    return TruncatedNormalFit(distribution, flat | at_end | (statistics.number < 2))


@jax.jit
def fit_truncated_normal_to_prior(
    statistics: ScoreStatistics, prior: TruncatedNormal
) -> TruncatedNormal:
    """Posterior mode of a normal truncated to [0, 1] around a predicted one (OptScale's "t").

    Maximises n l(mu, sigma) - ((mu - mu_0)^2 + (sigma - sigma_0)^2) / (2 PRIOR_DEVIATION^2), where
    n l is the log-likelihood and (mu_0, sigma_0) the prediction. The standard deviation of the
    scores is taken as no smaller than RESOLUTION, so that a maximum always exists. There can be
    two, one of them near sigma = RESOLUTION, when scores are few and far from the prediction: the
    one found is uphill from a compromise of prediction and scores.

    Args:
        statistics: any shape.
        prior: the prediction, of a shape that broadcasts. It is returned where there are no scores.

    Reference: docs/theory.md D4; OptScale arXiv 2506.22376 (maximum a posteriori).
    """
    mean, variance, _ = _bounded_moments(statistics)
    predicted_mu, predicted_sigma, mean, variance, count = jnp.broadcast_arrays(
        prior.mu, prior.sigma, mean, variance, statistics.number
    )
    data, strictness = count / (count + 1), PRIOR_DEVIATION**-2 / (count + 1)

    def climb(offset: Array, log_sigma: Array) -> Ascent:
        sigma = jnp.exp(log_sigma)
        curvature = sigma**-2
        slope = offset * curvature
        distribution = _moments(mean, slope, curvature)
        by_slope, by_curvature = -distribution.mean, (distribution.square - variance) / 2
        cov, var = -distribution.cov / 2, distribution.var_square / 4
        away_mu, away_sigma = mean + offset - predicted_mu, sigma - predicted_sigma
        uphill = slope * by_slope + curvature * by_curvature
        gradient = (
            data * curvature * by_slope - strictness * away_mu,
            -2 * data * uphill - strictness * sigma * away_sigma,
        )
        expected = (
            data * curvature**2 * distribution.var + strictness,
            -2 * data * curvature * (slope * distribution.var + curvature * cov),
            4
            * data
            * (slope**2 * distribution.var + 2 * slope * curvature * cov + curvature**2 * var)
            + strictness * sigma**2,
        )
        observed = (
            expected[0],
            expected[1] + 2 * data * curvature * by_slope,
            expected[2] - 4 * data * uphill + strictness * sigma * away_sigma,
        )
        return Ascent(gradient, positive_curvature(observed, expected))

    # The mode without truncation for the predicted sigma, then about that of sigma.
    doubt = predicted_sigma**2 / PRIOR_DEVIATION**2
    away = (predicted_mu - mean) * doubt / (count + doubt)
    spread = (count * (variance + away**2) + 2 * predicted_sigma**2) / (count + 2)
    start = (away, jnp.log(spread) / 2)
    offset, log_sigma = maximise(climb, start, longest=(jnp.inf, 2.0))
    empty = count == 0
    return TruncatedNormal(
        jnp.where(empty, predicted_mu, mean + offset),
        jnp.where(empty, predicted_sigma, jnp.exp(log_sigma)),
    )


@jax.jit
def fit_beta(statistics: ScoreStatistics) -> BetaFit:
    """Maximum likelihood of a Beta distribution.

    Solves psi(a) - psi(a + b) = mean log s and psi(b) - psi(a + b) = mean log(1 - s), scores being
    clipped to [RESOLUTION, 1 - RESOLUTION], with a + b bounded by LARGEST_CONCENTRATION.

    Args:
        statistics: any shape.

    Returns: the distribution, and whether it lies at the bound. Without scores it is uniform (a = b
        = 1).

    Reference: docs/theory.md D5.
    """
    mean, variance, _ = _bounded_moments(statistics)
    empty = statistics.number == 0
    logs = statistics.mean_log, statistics.mean_log_complement
    mean_log, mean_log_complement = (jnp.where(empty, -1, x) for x in logs)

    def climb(log_odds: Array, log_narrowness: Array) -> Ascent:
        p, total = jax.nn.sigmoid(log_odds), jnp.exp(-log_narrowness)
        a, b = p * total, jax.nn.sigmoid(-log_odds) * total
        by_a = mean_log - digamma(a) + digamma(total)
        by_b = mean_log_complement - digamma(b) + digamma(total)
        odds_rate = a * b / total
        gradient = (odds_rate * (by_a - by_b), -(a * by_a + b * by_b))
        curved_a, curved_b, curved = (polygamma(1, x) for x in (a, b, total))
        expected = (
            odds_rate**2 * (curved_a + curved_b),
            odds_rate * (b * curved_b - a * curved_a),
            a**2 * curved_a + b**2 * curved_b - total**2 * curved,
        )
        observed = (
            expected[0] - (1 - 2 * p) * gradient[0],
            expected[1] + gradient[0],
            expected[2] + gradient[1],
        )
        # Digamma functions are rounded, so at large a + b the slope is never quite zero.
        rounding = (16 * jnp.finfo(p.dtype).eps * (1 + total)) ** 2
        return Ascent(gradient, positive_curvature(observed, expected), rounding)

    narrowest = jnp.full_like(mean, -math.log(LARGEST_CONCENTRATION))
    total = jnp.clip(mean * (1 - mean) / variance - 1, 0.1, LARGEST_CONCENTRATION / 2)
    start = (jnp.log(mean) - jnp.log1p(-mean), -jnp.log(total))
    log_odds, log_narrowness = maximise(climb, start, lower=narrowest, longest=(2.0, 2.0))
    total = jnp.exp(-log_narrowness)
    distribution = BetaScores(jax.nn.sigmoid(log_odds) * total, jax.nn.sigmoid(-log_odds) * total)
    degenerate = (log_narrowness <= narrowest + 1e-4) | (statistics.number < 2)
    return BetaFit(distribution, degenerate)


def beta_score_log_cdf(scores: BetaScores, s: Real[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Log of the distribution function of a Beta distribution, log I_s(a, b).

    Raises:
        InputError: a score outside [0, 1] or NaN.

    Reference: docs/theory.md D5.
    """
    require("s", s, lambda x: (x >= 0) & (x <= 1), "a score must lie in [0, 1]")
    return _beta_score_log_cdf(scores, jnp.asarray(s, scores.a.dtype))


@jax.jit
def _beta_score_log_cdf(scores: BetaScores, s: Float[Array, "..."]) -> Float[Array, "..."]:
    a, b, s = jnp.broadcast_arrays(scores.a, scores.b, s)
    upper = s * (a + b) > a
    tail = betainc(jnp.where(upper, b, a), jnp.where(upper, a, b), jnp.where(upper, 1 - s, s))
    return jnp.where(upper, jnp.log1p(-tail), jnp.log(tail))


def beta_samples_to_reach(
    scores: BetaScores, s_min: Real[ArrayLike, "..."], confidence: Real[ArrayLike, "..."]
) -> Int[Array, "..."]:
    """Samples until the best of a Beta distribution exceeds s_min, as `best_of_n.samples_to_reach`.

    Raises:
        InputError: s_min outside [0, 1] or a confidence outside (0, 1).

    Reference: docs/theory.md D2, D5.
    """
    require("s_min", s_min, lambda x: (x >= 0) & (x <= 1), "a score must lie in [0, 1]")
    return samples_needed(_beta_exceedance(scores, jnp.asarray(s_min, scores.a.dtype)), confidence)


@jax.jit
def _beta_exceedance(scores: BetaScores, s: Float[Array, "..."]) -> Float[Array, "..."]:
    a, b, s = jnp.broadcast_arrays(scores.a, scores.b, s)
    return jnp.clip(betainc(b, a, 1 - s), 0, 1)


class _Moments(NamedTuple):
    """Of y under a density proportional to exp(slope y - curvature y^2 / 2): E y, E y^2, Var y,
    Cov(y, y^2), Var y^2.
    """

    mean: Array
    square: Array
    var: Array
    cov: Array
    var_square: Array


def _logs(s: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """The logarithms of s and of 1 - s, s clipped."""
    clipped = jnp.clip(s, RESOLUTION, 1 - RESOLUTION)
    return jnp.log(clipped), jnp.log1p(-clipped)


def _bounded_moments(
    statistics: ScoreStatistics,
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"], Bool[Array, "*batch"]]:
    """Mean and variance of the scores kept off their bounds, and whether they had to be."""
    empty = statistics.number == 0
    variance = statistics.squares / jnp.maximum(statistics.number, 1)
    mean = jnp.clip(statistics.mean, RESOLUTION, 1 - RESOLUTION)
    at_bound = (variance < RESOLUTION**2) | (mean != statistics.mean)
    variance = jnp.maximum(variance, RESOLUTION**2)
    # Those of a uniform distribution.
    return jnp.where(empty, 0.5, mean), jnp.where(empty, 1 / 12, variance), at_bound


def _moments(centre: Array, slope: Array, curvature: Array) -> _Moments:
    """Moments of y = s - centre for s in [0, 1]; curvature > 0.

    Sums over x = y - top, where top is the highest point of the density on [0, 1], over the stretch
    where the density is above rounding.
    """
    # exp(-drop) is one rounding unit, and so many nodes integrate such a bell to it.
    drop, nodes = (37.0, 44) if slope.dtype == jnp.float64 else (16.0, 18)
    low, high = -centre, 1 - centre
    top = jnp.clip(slope / curvature, low, high)
    fall = slope - curvature * top
    reach = 2 * drop / (jnp.abs(fall) + jnp.sqrt(fall**2 + 2 * drop * curvature))
    start = jnp.maximum(low - top, -reach)
    width = jnp.minimum(high - top, reach) - start

    def add(sums: list[Array], at: tuple[Array, Array]) -> tuple[list[Array], None]:
        node, weight = at
        x = start + node * width
        terms = [weight * jnp.exp(x * (fall - curvature / 2 * x))]
        for _ in range(4):
            terms.append(terms[-1] * x)
        return [total + term for total, term in zip(sums, terms, strict=True)], None

    rule = jax.tree.map(jnp.asarray, gauss_legendre(nodes, slope.dtype))
    sums, _ = jax.lax.scan(add, [jnp.zeros_like(slope)] * 5, rule)
    x1, x2, x3, x4 = (total / sums[0] for total in sums[1:])
    var, cov, var_square = x2 - x1**2, x3 - x1 * x2, x4 - x2**2
    return _Moments(
        mean=top + x1,
        square=top**2 + 2 * top * x1 + x2,
        var=var,
        cov=2 * top * var + cov,
        var_square=4 * top**2 * var + 4 * top * cov + var_square,
    )


def _half_normal_start(mean: Array, variance: Array, flattest: Array) -> tuple[Array, Array]:
    """Slope and curvature at the mean, nearly those of a normal truncated at the nearer end alone.

    Cohen's (1959) correction sigma^2 = variance + theta d^2, mu = mean + theta d away from that
    end, where d is its distance to the mean; theta, a function of the variance over that of an
    exponential distribution, is matched roughly. Only the number of steps depends on it.
    """
    distance = jnp.minimum(mean, 1 - mean)
    ratio = jnp.minimum(
        variance / (distance**2 * (1 - 1.886 * distance * jnp.sqrt(distance))), 0.999
    )
    theta = 2 * ratio**3 / (1 - ratio)
    curvature = jnp.maximum(1 / (variance + theta * distance**2), flattest)
    towards = jnp.where(mean < 0.5, -1, 1) * theta * distance
    return towards * curvature, curvature
