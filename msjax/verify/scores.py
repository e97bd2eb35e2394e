"""Claims on the best of several scored samples, and on fits of their distribution: D1 to D5."""

import math
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key
from scipy import integrate, optimize, special, stats

from msjax.theory import best_of_n as theory
from msjax.theory import score_fits
from msjax.theory.best_of_n import TruncatedNormal
from msjax.theory.chain import UNBOUNDED
from msjax.verify.claim import Claim, Laboratory
from msjax.verify.evidence import Evidence, join, of_counts, of_means
from msjax.verify.sampling import generator

__all__ = ["CLAIMS"]

ScoreSetting = tuple[Any, Any, Any]
"""(mu, sigma, n): n scores, a whole number, from a normal truncated to [0, 1]."""

SETTINGS: tuple[ScoreSetting, ...] = (
    (0.5, 0.2, 1.0),
    (0.5, 0.2, 4.0),
    (0.9, 0.1, 8.0),  # scores pile up below 1
    (1.3, 0.4, 3.0),  # the mode is cut off
    (-0.2, 0.3, 2.0),
)
SPREADS: tuple[tuple[Any, Any], ...] = ((0.5, 0.1), (0.35, 0.15), (0.8, 0.08))
"""(mean, standard deviation) of the scores of a question."""

BETA: tuple[tuple[Any, Any, float], ...] = (
    (4.0, 2.0, 3.0),
    (2.0, 3.0, 8.0),
    (1.0, 1.0, 1.0),
    (12.0, 1.0, 4.0),  # scores pile up at 1
)
"""(a, b, n): n scores from a Beta distribution with whole shapes."""

EXCEEDANCES: tuple[tuple[Any], ...] = ((1.0,), (0.9,), (0.5,), (0.3,), (0.05,), (0.01,), (0.0,))

_S = np.array([0.0, 0.2, 0.5, 0.8, 0.9, 0.97, 1.0])
_CONFIDENCES = ("0.5", "0.9", "0.95", "0.99")

Values = Float[np.ndarray, "..."]


def best_scores(
    key: Key[Array, ""], laboratory: Laboratory, mu: float, sigma: float, n: float
) -> Float[np.ndarray, "samples"]:
    """Largest of n scores, by inverting the normal distribution itself."""
    rng = generator(key)
    low, high = special.ndtr(-mu / sigma), special.ndtr((1 - mu) / sigma)
    best = np.zeros(laboratory.n_chains)
    for _ in range(int(n)):
        uniform = low + (high - low) * rng.random(laboratory.n_chains)
        best = np.maximum(best, mu + sigma * special.ndtri(uniform))
    return np.clip(best, 0, 1)


def uniforms(key: Key[Array, ""], laboratory: Laboratory) -> Float[np.ndarray, "samples"]:
    """What distributions are inverted at."""
    return generator(key).random(laboratory.n_chains)


def best_beta_scores(
    key: Key[Array, ""], laboratory: Laboratory, a: float, b: float, n: float
) -> Float[np.ndarray, "samples"]:
    """Largest of n scores from a Beta distribution."""
    rng = generator(key)
    best = np.zeros(laboratory.n_chains)
    for _ in range(int(n)):
        best = np.maximum(best, rng.beta(a, b, laboratory.n_chains))
    return best


def waiting_times(
    key: Key[Array, ""], laboratory: Laboratory, exceedance: float
) -> Float[np.ndarray, "samples"]:
    """How many scores it takes until one passes."""
    return generator(key).geometric(exceedance, laboratory.n_chains).astype(float)


def _best_cdf(setting: ScoreSetting) -> ArrayLike:
    mu, sigma, n = setting
    return jnp.exp(theory.best_score_log_cdf(TruncatedNormal(mu, sigma), _S, jnp.int32(n)))


def _exact_best_cdf(setting: ScoreSetting) -> Values:
    mu, sigma, n = setting
    distribution = stats.truncnorm(-mu / sigma, (1 - mu) / sigma, mu, sigma)
    return distribution.cdf(_S) ** n


def _simulated_best_cdf(lab: Laboratory, setting: ScoreSetting, predicted: Values) -> Evidence:
    best = lab.run(best_scores, *setting)
    return of_counts((best[:, None] <= _S).sum(0), lab.n_chains, predicted)


def _needed(setting: tuple[Any]) -> ArrayLike:
    return theory.samples_needed(setting[0], np.array([float(c) for c in _CONFIDENCES]))


def _exact_needed(setting: tuple[Any]) -> Values:
    failure = 1 - Fraction(str(setting[0]))
    if failure == 1:
        return np.full(len(_CONFIDENCES), float(UNBOUNDED))
    found = []
    for confidence in _CONFIDENCES:
        n = 1
        while 1 - failure**n < Fraction(confidence):
            n += 1
        found.append(n)
    return np.array(found, float)


def _simulated_needed(lab: Laboratory, setting: tuple[Any], predicted: Values) -> Evidence | None:
    if setting[0] == 0:
        return None
    waited, parts = lab.run(waiting_times, *setting), []
    for confidence, n in zip(_CONFIDENCES, np.round(predicted), strict=True):
        for enough, side in ((n, 1), (n - 1, -1)):
            passed = int((waited <= enough).sum())
            parts.append(of_counts(passed, lab.n_chains, float(confidence), side))
    return join(*parts)


def _expected_best(setting: ScoreSetting) -> ArrayLike:
    mu, sigma, n = setting
    return theory.expected_best_score(TruncatedNormal(mu, sigma), jnp.int32(n))


def _exact_expected_best(setting: ScoreSetting) -> float:
    mu, sigma, n = setting
    low, high = special.ndtr(-mu / sigma), special.ndtr((1 - mu) / sigma)

    def exceeds(s: float) -> float:
        return 1 - ((special.ndtr((s - mu) / sigma) - low) / (high - low)) ** n

    return integrate.quad(exceeds, 0, 1, epsabs=1e-12, epsrel=1e-12)[0]


def _simulated_expected_best(lab: Laboratory, setting: ScoreSetting, predicted: Values) -> Evidence:
    best = lab.run(best_scores, *setting)
    return of_means(best.mean(), predicted, best.var() / best.size, 1 / best.size)


def _fit(setting: tuple[Any, Any]) -> ArrayLike:
    mean, deviation = (jnp.asarray(x) for x in setting)
    n = jnp.int32(100)
    nothing = jnp.zeros_like(mean)
    scores = score_fits.ScoreStatistics(n, mean, n * deviation**2, nothing, nothing)
    distribution = score_fits.fit_truncated_normal(scores).distribution
    return jnp.stack([distribution.mu, distribution.sigma])


def _exact_fit(setting: tuple[Any, Any]) -> Values:
    """Where the distribution's mean and standard deviation are those of the scores."""

    def off(parameters: Values) -> Values:
        mu, sigma = parameters
        distribution = stats.truncnorm(-mu / sigma, (1 - mu) / sigma, mu, sigma)
        return np.array([distribution.mean(), distribution.std()]) - setting

    return optimize.root(off, setting, tol=1e-13).x


def _simulated_fit(lab: Laboratory, setting: tuple[Any, Any], predicted: Values) -> Evidence:
    """Scores from the fitted distribution spread as those to which it was fitted."""
    mean, deviation = setting
    mu, sigma = predicted
    low, high = special.ndtr(-mu / sigma), special.ndtr((1 - mu) / sigma)
    scores = mu + sigma * special.ndtri(low + (high - low) * lab.run(uniforms))
    squares = (scores - mean) ** 2
    return join(
        *(
            of_means(x.mean(), wanted, x.var() / x.size, 1 / x.size)
            for x, wanted in ((scores, mean), (squares, deviation**2))
        )
    )


def _beta_best_cdf(setting: ScoreSetting) -> ArrayLike:
    a, b, n = setting
    distribution = score_fits.BetaScores(jnp.asarray(a), jnp.asarray(b))
    return jnp.exp(n * score_fits.beta_score_log_cdf(distribution, jnp.asarray(_S)))


def _exact_beta_best_cdf(setting: ScoreSetting) -> Values:
    """I_s(a, b) is the chance of at least a successes in a + b - 1 trials."""
    a, b, n = map(int, setting)
    trials, found = a + b - 1, []
    for s in (Fraction(str(x)) for x in _S):
        hits = range(a, trials + 1)
        cdf = sum(math.comb(trials, j) * s**j * (1 - s) ** (trials - j) for j in hits)
        found.append(float(cdf**n))
    return np.array(found)


def _simulated_beta_best_cdf(lab: Laboratory, setting: ScoreSetting, predicted: Values) -> Evidence:
    best = lab.run(best_beta_scores, *setting)
    return of_counts((best[:, None] <= _S).sum(0), lab.n_chains, predicted)


_OPTSCALE = "arXiv 2506.22376"

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "D1.best_score",
        "P(best of n scores <= s) = F(s)^n",
        _OPTSCALE,
        SETTINGS,
        _best_cdf,
        _exact_best_cdf,
        _simulated_best_cdf,
    ),
    Claim(
        "D2.samples_needed",
        "P(best of N passes) >= alpha from N* = ceil(log(1 - alpha) / log F) on, not before",
        _OPTSCALE,
        EXCEEDANCES,
        _needed,
        _exact_needed,
        _simulated_needed,
    ),
    Claim(
        "D3.expected_best",
        "E[best of n scores] = 1 - integral of F(s)^n",
        _OPTSCALE,
        SETTINGS,
        _expected_best,
        _exact_expected_best,
        _simulated_expected_best,
        tolerance=1e-10,  # both sides are quadratures
    ),
    Claim(
        "D4.maximum_likelihood",
        "the most likely truncated normal has the mean and variance of the scores",
        _OPTSCALE,
        SPREADS,
        _fit,
        _exact_fit,
        _simulated_fit,
        tolerance=1e-8,  # where Newton steps end, and SciPy's
    ),
    Claim(
        "D5.best_beta_score",
        "scores from Beta(a, b): P(best of n <= s) = I_s(a, b)^n",
        "docs/theory.md D5",
        BETA,
        _beta_best_cdf,
        _exact_beta_best_cdf,
        _simulated_beta_best_cdf,
    ),
)
