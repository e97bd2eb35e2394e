"""What it costs to describe a benchmark whose questions differ by one chain.

The accuracy of such a benchmark is a mean over chains, and the chain with its first-round rates
follows that mean for one round only.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real
from scipy import special

from msjax.errors import require
from msjax.theory.chain import accuracy_curve, stationary_accuracy
from msjax.theory.population import Population, limit_accuracy, mean_accuracy_curve, pooled_chain

__all__ = ["HomogeneityError", "heterogeneity_curve", "homogeneity_error"]

_NEGLIGIBLE = 27.0  # exp(-27) of a density's peak is nothing
_LOG_ODDS_STEP = 0.75


class HomogeneityError(NamedTuple):
    """Accuracy of a population less that of its pooled chain (probability, signed).

    Attributes:
        curve: after k = 0, ..., rounds.
        limit: after many rounds.
    """

    curve: Float[Array, "answers"]
    limit: Float[Array, ""]


def homogeneity_error(population: Population, rounds: int) -> HomogeneityError:
    """Accuracy of a benchmark less what one chain with its first-round rates predicts.

    E[p_k] - p_k(pooled), whose entries k = 0 and 1 are 0.

    Args:
        population: the benchmark.
        rounds: largest k, >= 0.

    Returns: `HomogeneityError`; its limit is taken as in `limit_accuracy`.

    Raises:
        InputError: a negative number of rounds, or a population that `pooled_chain` refuses.

    Reference: docs/theory.md B1 and B4.
    """
    pooled = pooled_chain(population)
    pi = stationary_accuracy(pooled)
    return HomogeneityError(
        curve=mean_accuracy_curve(population, rounds) - accuracy_curve(pooled, rounds),
        limit=limit_accuracy(population) - jnp.where(jnp.isnan(pi), pooled.p0, pi),
    )


def heterogeneity_curve(
    p_ic: float,
    p_ci: float,
    correlation_ic: Real[ArrayLike, "..."],
    correlation_ci: Real[ArrayLike, "..."],
) -> Float[np.ndarray, "..."]:
    """Limit error of the pooled chain, E[pi] - p_ic / (p_ic + p_ci), against the spread of rates.

    Over questions the rates are independent, Beta(m s, (1 - m) s) of means m = `p_ic` and `p_ci`.
    The correlation of two flips of the same question, rho = 1 / (1 + s), measures their spread:
    Var = rho m (1 - m). The distribution of p0, independent of the rates, does not matter.

    Args:
        p_ic: mean of the repair rate (probability), in (0, 1).
        p_ci: mean of the breaking rate (probability), in (0, 1).
        correlation_ic: intra-question correlation of repairs, in [0, 1); 0 is all alike.
        correlation_ci: that of breaks; any shape that broadcasts.

    Returns: the error (probability, signed), to about 1e-10, float64 on the host.

    Raises:
        InputError: a mean outside (0, 1) or a correlation outside [0, 1).

    Reference: docs/theory.md B4.
    """
    for name, mean in (("p_ic", p_ic), ("p_ci", p_ci)):
        require(name, mean, lambda x: (x > 0) & (x < 1), "a mean rate must lie in (0, 1)")
    given = {"correlation_ic": correlation_ic, "correlation_ci": correlation_ci}
    for name, correlation in given.items():
        require(name, correlation, lambda x: (x >= 0) & (x < 1), "give a correlation in [0, 1)")

    def limit_error(rho_ic: float, rho_ci: float) -> float:
        log_ic, share_ic = _log_beta_nodes(p_ic, rho_ic)
        log_ci, share_ci = _log_beta_nodes(p_ci, rho_ci)
        # From logarithms, since both rates may be too small for floats while pi is not.
        limits = [share_ci @ special.expit(log_rate - log_ci) for log_rate in log_ic]
        return share_ic @ limits - p_ic / (p_ic + p_ci)

    return np.vectorize(limit_error, otypes=[float])(correlation_ic, correlation_ci)


def _log_beta_nodes(
    mean: float, correlation: float
) -> tuple[Float[np.ndarray, "nodes"], Float[np.ndarray, "nodes"]]:
    """Logarithms of rates, and shares, of a Beta distribution, by quadrature.

    In log-odds its density is analytic and decays exponentially on both sides, so the plain sum
    over equidistant points converges geometrically, also where the distribution crowds at 0.
    """
    if correlation == 0:
        return np.log([mean]), np.ones(1)
    strength = 1 / correlation - 1
    a, b = mean * strength, (1 - mean) * strength
    # Near its peak the density is a normal one of this width, far away exponential.
    width = 1 / np.sqrt(strength * mean * (1 - mean))
    step = min(_LOG_ODDS_STEP, width / 2)
    below, above = (np.ceil((_NEGLIGIBLE / rate + 8 * width) / step) for rate in (a, b))
    log_odds = special.logit(mean) + step * np.arange(-below, above + 1)
    log_rate = special.log_expit(log_odds)
    log_density = a * log_rate + b * special.log_expit(-log_odds)
    density = np.exp(log_density - log_density.max())
    return log_rate, density / density.sum()
