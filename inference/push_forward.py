"""Posterior of whatever follows from a chain: carry every draw through a function.

Whatever needs a parameter that the data do not identify is NaN, draw by draw, so that no summary
can mistake the prior for a finding.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from inference.posterior import PARAMETERS, ChainPosterior
from msjax.chain import (
    Regime,
    TwoStateChain,
    accuracy_curve,
    eigenvalue,
    optimal_rounds_with_costs,
    regime,
    stationary_accuracy,
)
from msjax.errors import InputError

INTERVAL = 0.90
MIN_ROUNDS = 10


class Estimate(NamedTuple):
    """Posterior mean, median and equal-tailed 90 % credible interval of one number."""

    mean: float
    median: float
    low: float
    high: float


class Quantities(NamedTuple):
    """Draws of the usual quantities, NaN where not identified; k runs over 0..K.

    `r` and `pi` as in docs/theory.md A1 (pi is the limit of the accuracy); `accuracy` is p_k;
    `optimal_rounds` is N* among 0..K; `helps` is 1 where refining raises accuracy.
    """

    r: Float[np.ndarray, "draw benchmark"]
    pi: Float[np.ndarray, "draw benchmark"]
    accuracy: Float[np.ndarray, "draw benchmark k"]
    optimal_rounds: Float[np.ndarray, "draw benchmark"]
    helps: Float[np.ndarray, "draw benchmark"]


def push_forward(
    posterior: ChainPosterior,
    function: Callable[[TwoStateChain], Shaped[Array, "draw benchmark *event"]],
    needs: Sequence[str] = PARAMETERS,
) -> Float[np.ndarray, "draw benchmark *event"]:
    """Posterior draws of `function(chain)`, for an elementwise function of chains.

    `function` gets all draws at once, as a chain of shape [draw, benchmark], under jit. `needs`
    names the parameters it depends on; where one of them is not identified the result is NaN.

    Raises InputError when `needs` names no parameter of a chain.
    """
    strangers = set(needs) - set(PARAMETERS)
    if strangers:
        raise InputError(f"needs: {sorted(strangers)} unknown; choose from {PARAMETERS}")
    rows = [PARAMETERS.index(name) for name in needs]
    known = posterior.identified[rows].all(axis=0)
    draws = np.asarray(jax.jit(function)(posterior.chain), dtype=float)
    return np.where(known.reshape(-1, *[1] * (draws.ndim - 2)), draws, np.nan)


def quantities(posterior: ChainPosterior, *, value: float, price: float) -> Quantities:
    """Draws of r, pi, p_k, N* and "refining helps", k up to max(10, rounds observed).

    N* maximises value p_k - price (tokens of rounds 1..k), with the mean tokens per round of the
    posterior's own runs; rounds beyond those observed cost what the last one did.

    Args:
        posterior: draws, as `inference.fit` or `inference.store.load` give them.
        value: worth of a correct answer, > 0, in any unit.
        price: price of one token in that unit, >= 0.

    Raises:
        InputError: value or price out of range or not finite.

    Reference: docs/theory.md A1, A2, A6.
    """
    if not (np.isfinite(value) and value > 0):
        raise InputError(f"value is {value}; a correct answer must be worth something, > 0")
    if not (np.isfinite(price) and price >= 0):
        raise InputError(f"price is {price}; give a finite price per token, >= 0")
    costs = jnp.asarray(price * round_tokens(posterior))
    best = jax.vmap(
        lambda chain, costs: optimal_rounds_with_costs(chain, value, costs), (1, 0), out_axes=1
    )
    go = partial(push_forward, posterior)
    accuracy = go(lambda chain: accuracy_curve(chain, costs.shape[1]))
    accuracy[..., 0] = go(lambda chain: chain.p0, ["p0"])
    return Quantities(
        r=go(eigenvalue, ["p_ic", "p_ci"]),
        pi=go(stationary_accuracy, ["p_ic", "p_ci"]),
        accuracy=accuracy,
        optimal_rounds=go(lambda chain: best(chain, costs)),
        helps=go(lambda chain: regime(chain) == Regime.BENEFICIAL),
    )


def round_tokens(posterior: ChainPosterior) -> Float[np.ndarray, "benchmark round"]:
    """Mean tokens of refinement rounds 1..K, K = max(10, rounds observed).

    Rounds that were not observed take the last observed one's; a benchmark without any refinement
    round takes its first answer's.
    """
    rounds = max(MIN_ROUNDS, posterior.tokens_per_round.shape[1] - 1)
    tokens = np.empty((len(posterior.benchmarks), rounds))
    for row, observed in zip(tokens, posterior.tokens_per_round, strict=True):
        observed = observed[~np.isnan(observed)]
        later = observed[1:]
        row[: len(later)] = later
        row[len(later) :] = observed[-1]
    return tokens


def estimate(draws: Float[np.ndarray, " draw"]) -> Estimate | None:
    """Summary of draws, or None ("not identified") when they are NaN.

    Quantiles are draws themselves, so that those of whole numbers are whole numbers.
    """
    if np.isnan(draws).any():
        return None
    tail = (1 - INTERVAL) / 2
    low, median, high = np.quantile(draws, [tail, 0.5, 1 - tail], method="inverted_cdf")
    return Estimate(float(draws.mean()), float(median), float(low), float(high))
