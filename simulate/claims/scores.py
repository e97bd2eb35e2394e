"""Claims on the best of several scored samples: sections D1 to D3."""

from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key
from scipy import integrate, special, stats

from msjax import best_of_n as theory
from msjax.best_of_n import TruncatedNormal
from msjax.chain import UNBOUNDED
from simulate.claims.claim import Claim, Laboratory
from simulate.claims.evidence import Evidence, join, of_counts, of_means
from simulate.claims.sampling import generator

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
EXCEEDANCES: tuple[tuple[Any], ...] = ((1.0,), (0.9,), (0.5,), (0.3,), (0.05,), (0.01,), (0.0,))

_S = np.array([0.0, 0.2, 0.5, 0.8, 0.9, 0.97, 1.0])
_CONFIDENCES = ("0.5", "0.9", "0.95", "0.99")

Values = Float[np.ndarray, "..."]


def best_scores(
    key: Key[Array, ""], laboratory: Laboratory, mu: float, sigma: float, n: float
) -> Float[np.ndarray, "samples"]:
    """Largest of n scores, by inverting the normal law itself."""
    rng = generator(key)
    low, high = special.ndtr(-mu / sigma), special.ndtr((1 - mu) / sigma)
    best = np.zeros(laboratory.n_chains)
    for _ in range(int(n)):
        uniform = low + (high - low) * rng.random(laboratory.n_chains)
        best = np.maximum(best, mu + sigma * special.ndtri(uniform))
    return np.clip(best, 0, 1)


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
    law = stats.truncnorm(-mu / sigma, (1 - mu) / sigma, mu, sigma)
    return law.cdf(_S) ** n


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
)
