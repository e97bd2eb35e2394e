"""What errors in the three parameters of a chain cost.

Derivatives of what follows from a chain; how precisely a pilot determines it; and the regret, the
worth lost by stopping where wrong parameters say. The worth of k rounds is `value` p_k - `cost` k
throughout, and a pilot observes whether X_0, ..., X_rounds are right for each of its questions.
What it costs to take questions for alike that are not is in `msjax.decision.heterogeneity`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Key, Real

from msjax.errors import InputError, require, require_value_and_cost
from msjax.theory.chain import (
    TwoStateChain,
    accuracy_after,
    accuracy_curve,
    eigenvalue,
    optimal_rounds,
)
from msjax.theory.path_distributions import correct_count_mean

__all__ = [
    "Gradients",
    "MeanRegret",
    "StandardErrors",
    "fisher_information",
    "gradients",
    "noise_regret",
    "pilot_regret",
    "regret",
    "regret_grid",
    "standard_errors",
]

_LARGEST_PILOT = 10**6  # of which every count is an integer in float32 too
_INTERVAL = 1.959964  # standard errors on either side that hold a normal estimate 95 % of the time


class Gradients(NamedTuple):
    """Derivatives in (p0, p_ic, p_ci), along the last axis.

    Attributes:
        stationary_accuracy: of pi (probability per probability), NaN for a frozen chain.
        eigenvalue: of r.
        accuracy: of p_k, k = 0, ..., rounds along the axis before.
        worth: of the best worth, max over k of value p_k - cost k (unit of value).
    """

    stationary_accuracy: Float[Array, "*batch 3"]
    eigenvalue: Float[Array, "*batch 3"]
    accuracy: Float[Array, "*batch answers 3"]
    worth: Float[Array, "*batch 3"]


class StandardErrors(NamedTuple):
    """Standard errors of estimates (probabilities); infinite where the pilot shows nothing.

    Attributes:
        p0, p_ic, p_ci: of the three parameters.
        stationary_accuracy: of pi, NaN for a frozen chain.
        accuracy: of p_k, k = 0, ..., rounds along the last axis.
    """

    p0: Float[Array, "*batch"]
    p_ic: Float[Array, "*batch"]
    p_ci: Float[Array, "*batch"]
    stationary_accuracy: Float[Array, "*batch"]
    accuracy: Float[Array, "*batch answers"]


class MeanRegret(NamedTuple):
    """Mean regret (unit of value) over simulated estimates, with its 95 % interval."""

    mean: Float[Array, "n"]
    low: Float[Array, "n"]
    high: Float[Array, "n"]


def gradients(
    chain: TwoStateChain,
    rounds: int,
    value: Real[ArrayLike, "..."] = 1.0,
    cost: Real[ArrayLike, "..."] = 0.0,
) -> Gradients:
    """Derivatives of pi, r, p_0, ..., p_rounds and of the best worth in (p0, p_ic, p_ci).

    The best worth is differentiated at its number of rounds N*: by the envelope theorem this is
    its derivative wherever N* is unique, and a one-sided one at ties.

    Args:
        chain: chain of any shape.
        rounds: largest k of the curve, >= 0.
        value: value of a correct answer, > 0, in any unit; broadcasts against the chain.
        cost: cost of one round in the same unit, >= 0; broadcasts likewise.

    Returns: `Gradients`.

    Raises:
        InputError: a negative number of rounds, value <= 0, cost < 0, or either not finite.

    Reference: docs/theory.md B4.
    """
    _require_rounds(rounds)
    require_value_and_cost(value, cost=cost)
    return _gradients(chain, rounds, value, cost)


def fisher_information(chain: TwoStateChain, rounds: int) -> Float[Array, "*batch 3 3"]:
    """Expected Fisher information of one path X_0, ..., X_rounds on (p0, p_ic, p_ci).

    diag(1 / (p0 (1 - p0)), W / (p_ic (1 - p_ic)), R / (p_ci (1 - p_ci))), where
    R = p_0 + ... + p_{rounds-1} and W = rounds - R are the expected numbers of rounds that a right
    and a wrong answer enters.

    Args:
        chain: chain of any shape.
        rounds: rounds observed after the first answer, >= 0.

    Returns: the matrix (per probability squared); a diagonal entry is infinite where the
    parameter is 0 or 1, and 0 where the state that the parameter governs is never entered.

    Raises:
        InputError: a negative number of rounds.

    Reference: docs/theory.md B4.
    """
    _require_rounds(rounds)
    information = _information(chain, rounds)
    return jnp.where(jnp.eye(3, dtype=bool), information[..., None], 0.0)


def standard_errors(
    chain: TwoStateChain, rounds: int, questions: Int[ArrayLike, "..."]
) -> StandardErrors:
    """Large-sample standard errors of the maximum-likelihood estimates from a pilot.

    sqrt(g^T I^{-1} g / n) with g the gradient and I the Fisher information of one path (delta
    method).

    Args:
        chain: chain of any shape.
        rounds: rounds observed after the first answer, >= 0.
        questions: size n of the pilot, >= 1, any shape that broadcasts against the chain.

    Returns: `StandardErrors` of the broadcast shape.

    Raises:
        InputError: a negative number of rounds, or fewer than one question.

    Reference: docs/theory.md B4.
    """
    _require_rounds(rounds)
    require("questions", questions, lambda n: n >= 1, "give a number of questions >= 1")
    return _standard_errors(chain, rounds, jnp.asarray(questions, chain.dtype))


def regret(
    chain: TwoStateChain,
    believed: TwoStateChain,
    value: Real[ArrayLike, "..."],
    cost: Real[ArrayLike, "..."],
) -> Float[Array, "..."]:
    """Worth lost by the N* of wrong parameters: worth at the true N* less worth at that one.

    Never negative, and at most 2 value max |p_k - believed p_k| over the two numbers of rounds.

    Args:
        chain: the true chain, any shape.
        believed: the chain from which N* is computed, any shape that broadcasts.
        value: value of a correct answer, > 0, in any unit.
        cost: cost of one round in the same unit, >= 0.

    Returns: the regret (unit of value), of the broadcast shape.

    Raises:
        InputError: value <= 0, cost < 0, or either not finite.

    Reference: docs/theory.md B4.
    """
    require_value_and_cost(value, cost=cost)
    return _regret(chain, believed, value, cost)


def regret_grid(
    chain: TwoStateChain,
    errors_ic: Real[ArrayLike, "ic"],
    errors_ci: Real[ArrayLike, "ci"],
    value: Real[ArrayLike, ""],
    cost: Real[ArrayLike, ""],
    error_p0: Real[ArrayLike, ""] = 0.0,
) -> Float[Array, "ic ci"]:
    """Regret of N* over a grid of errors (believed less true) in p_ic and p_ci.

    Args:
        chain: the true chain, one (scalar probabilities; `vmap` for more).
        errors_ic: errors in p_ic (probability, signed); estimates are cut off at 0 and 1.
        errors_ci: errors in p_ci.
        value: value of a correct answer, > 0, in any unit.
        cost: cost of one round in the same unit, >= 0.
        error_p0: error in p0, the same everywhere.

    Returns: the regret (unit of value), entry [i, j] for errors_ic[i] and errors_ci[j].

    Raises:
        InputError: a chain that is not scalar, or a value or cost that `optimal_rounds` refuses.

    Reference: docs/theory.md B4.
    """
    _require_one(chain)

    def shifted(p: Float[Array, ""], errors: ArrayLike) -> Float[Array, "..."]:
        return jnp.clip(p + jnp.asarray(errors, chain.dtype), 0, 1)

    p_ic, p_ci = jnp.meshgrid(
        shifted(chain.p_ic, errors_ic), shifted(chain.p_ci, errors_ci), indexing="ij"
    )
    return regret(chain, TwoStateChain(shifted(chain.p0, error_p0), p_ic, p_ci), value, cost)


def noise_regret(
    key: Key[Array, ""],
    chain: TwoStateChain,
    scale: Real[ArrayLike, "n"],
    draws: int,
    value: Real[ArrayLike, ""],
    cost: Real[ArrayLike, ""],
) -> MeanRegret:
    """Mean regret when normal noise of standard deviation `scale` is added to the three logits.

    The damage done by controlled noise in the estimates. All scales share the same noise, so that
    they differ by the scale alone. A parameter of 0 or 1 stays what it is.

    Args:
        key: typed random key, consumed.
        chain: the true chain, one (scalar probabilities; `vmap` for more).
        scale: standard deviations (log-odds), >= 0, a vector.
        draws: noisy estimates per scale, >= 2.
        value: value of a correct answer, > 0, in any unit.
        cost: cost of one round in the same unit, >= 0.

    Returns: `MeanRegret`, one entry per scale.

    Raises:
        InputError: a chain that is not scalar, a negative scale, too few draws, or a value or cost
            that `optimal_rounds` refuses.

    Reference: docs/theory.md B4; MarkovScale arXiv 2602.01120 (noise in the estimates,
    *interpretation*).
    """
    _require_one(chain)
    require("scale", scale, lambda x: x >= 0, "give a standard deviation >= 0")
    _require_draws(draws)
    require_value_and_cost(value, cost=cost)
    believed = _noisy(key, chain, jnp.asarray(scale, chain.dtype), draws)
    return _mean_regret(chain, believed, value, cost)


def pilot_regret(
    key: Key[Array, ""],
    chain: TwoStateChain,
    questions: Int[ArrayLike, "n"],
    rounds: int,
    draws: int,
    value: Real[ArrayLike, ""],
    cost: Real[ArrayLike, ""],
) -> MeanRegret:
    """Mean regret of the N* computed from a pilot, against the size of the pilot.

    Pilots are simulated through their sufficient counts, exactly, by binomial thinning. Each
    probability is estimated as (events + 1/2) / (trials + 1), which is defined for every pilot.

    Args:
        key: typed random key, consumed.
        chain: the true chain, one (scalar probabilities; `vmap` for more).
        questions: sizes of pilots, 1 to 10^6, a vector.
        rounds: rounds observed after the first answer, >= 0.
        draws: simulated pilots per size, >= 2.
        value: value of a correct answer, > 0, in any unit.
        cost: cost of one round in the same unit, >= 0.

    Returns: `MeanRegret`, one entry per size; compiled once for any sizes of one number.

    Raises:
        InputError: a chain that is not scalar, a size, rounds or draws out of range, or a value
            or cost that `optimal_rounds` refuses.

    Reference: docs/theory.md B4.
    """
    _require_one(chain)
    require(
        "questions",
        questions,
        lambda n: (n >= 1) & (n <= _LARGEST_PILOT),
        f"give numbers of questions from 1 to {_LARGEST_PILOT:,}",
    )
    _require_rounds(rounds)
    _require_draws(draws)
    require_value_and_cost(value, cost=cost)
    believed = _estimates(key, chain, jnp.asarray(questions, chain.dtype), rounds, draws)
    return _mean_regret(chain, believed, value, cost)


@partial(jax.jit, static_argnames="rounds")
def _gradients(chain: TwoStateChain, rounds: int, value: ArrayLike, cost: ArrayLike) -> Gradients:
    stop = optimal_rounds(chain, value, cost)
    return Gradients(
        stationary_accuracy=_limit_partials(chain),
        eigenvalue=_partials(eigenvalue, chain),
        accuracy=_partials(lambda c: accuracy_curve(c, rounds), chain),
        worth=_partials(lambda c: _worth(c, stop, value, cost), chain),
    )


@partial(jax.jit, static_argnames="rounds")
def _standard_errors(chain: TwoStateChain, rounds: int, n: Float[Array, "..."]) -> StandardErrors:
    shape = jnp.broadcast_shapes(chain.shape, n.shape)
    chain = jax.tree.map(lambda p: jnp.broadcast_to(p, shape), chain)
    variance = 1 / (_information(chain, rounds) * jnp.broadcast_to(n, shape)[..., None])

    def delta(slope: Float[Array, "... 3"], variance: Float[Array, "... 3"]) -> Array:
        # What does not depend on a parameter does not mind that nothing is known of it.
        terms = jnp.where(slope == 0, 0.0, slope**2 * variance)
        return jnp.sqrt(jnp.sum(terms, axis=-1))

    p0, p_ic, p_ci = jnp.moveaxis(jnp.sqrt(variance), -1, 0)
    curve = _partials(lambda c: accuracy_curve(c, rounds), chain)
    return StandardErrors(
        p0,
        p_ic,
        p_ci,
        stationary_accuracy=delta(_limit_partials(chain), variance),
        accuracy=delta(curve, variance[..., None, :]),
    )


def _partials(
    f: Callable[[TwoStateChain], Float[Array, "..."]], chain: TwoStateChain
) -> Float[Array, "... 3"]:
    """Derivatives of an elementwise function in (p0, p_ic, p_ci), along a new last axis."""
    leaves, structure = jax.tree.flatten(chain)
    directions = [
        jax.tree.unflatten(structure, [jnp.full_like(p, i == j) for j, p in enumerate(leaves)])
        for i in range(3)
    ]
    return jnp.stack([jax.jvp(f, (chain,), (d,))[1] for d in directions], axis=-1)


def _limit_partials(chain: TwoStateChain) -> Float[Array, "*batch 3"]:
    """Derivatives of pi, NaN for a frozen chain."""
    gap = chain.p_ic + chain.p_ci
    # Written out, so that a derivative of 0 is exactly 0: it may meet an infinite variance.
    return jnp.stack([0 / gap, chain.p_ci / gap / gap, -chain.p_ic / gap / gap], axis=-1)


def _worth(
    chain: TwoStateChain, k: Int[Array, "..."], value: ArrayLike, cost: ArrayLike
) -> Float[Array, "..."]:
    """Worth of k rounds, value p_k - cost k."""
    accuracy, rounds, worth, price = jnp.broadcast_arrays(
        accuracy_after(chain, k),
        k.astype(chain.dtype),
        jnp.asarray(value, chain.dtype),
        jnp.asarray(cost, chain.dtype),
    )
    return worth * accuracy - price * rounds


def _information(chain: TwoStateChain, rounds: int) -> Float[Array, "*batch 3"]:
    """Diagonal of the Fisher information."""
    right = wrong = jnp.zeros_like(chain.p0)
    if rounds:
        mirrored = TwoStateChain(1 - chain.p0, chain.p_ci, chain.p_ic)
        right = correct_count_mean(chain, rounds - 1)
        wrong = correct_count_mean(mirrored, rounds - 1)
    trials = jnp.stack([jnp.ones_like(chain.p0), wrong, right], axis=-1)
    p = jnp.stack([chain.p0, chain.p_ic, chain.p_ci], axis=-1)
    return jnp.where(trials > 0, trials / (p * (1 - p)), 0.0)


@partial(jax.jit, static_argnames="draws")
def _noisy(
    key: Key[Array, ""], chain: TwoStateChain, scale: Float[Array, "n"], draws: int
) -> TwoStateChain:
    """Chains of shape [n, draws] with noise in their logits."""
    p = jnp.stack([chain.p0, chain.p_ic, chain.p_ci])[:, None, None]
    noise = jax.random.normal(key, (3, 1, draws), chain.dtype)
    return TwoStateChain(*jax.nn.sigmoid(jax.scipy.special.logit(p) + scale[None, :, None] * noise))


@partial(jax.jit, static_argnames=("rounds", "draws"))
def _estimates(
    key: Key[Array, ""], chain: TwoStateChain, n: Float[Array, "n"], rounds: int, draws: int
) -> TwoStateChain:
    """Estimates of shape [n, draws] from simulated pilots of n questions."""
    questions = jnp.broadcast_to(n[:, None], (n.size, draws))
    # Before the first answer all are wrong and p0 repairs.
    first = jnp.stack([chain.p0, jnp.zeros_like(chain.p0)])
    later = jnp.stack([chain.p_ic, chain.p_ci])
    rates = jnp.stack([first] + rounds * [later])[..., None, None]

    def one_round(right: Array, step: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        round_key, rate = step
        trials = jnp.stack([questions - right, right])
        flips = jax.random.binomial(round_key, trials, rate, dtype=chain.dtype)
        return right + flips[0] - flips[1], (trials, flips)

    steps = jax.random.split(key, rounds + 1), rates
    _, (trials, flips) = jax.lax.scan(one_round, jnp.zeros_like(questions), steps)

    def estimate(events: Float[Array, "..."], trials: Float[Array, "..."]) -> Float[Array, "..."]:
        return (events + 0.5) / (trials + 1)

    return TwoStateChain(
        estimate(flips[0, 0], questions),
        *estimate(jnp.sum(flips[1:], axis=0), jnp.sum(trials[1:], axis=0)),
    )


@jax.jit
def _regret(
    chain: TwoStateChain, believed: TwoStateChain, value: ArrayLike, cost: ArrayLike
) -> Float[Array, "..."]:
    best = _worth(chain, optimal_rounds(chain, value, cost), value, cost)
    attained = _worth(chain, optimal_rounds(believed, value, cost), value, cost)
    best, attained = jnp.broadcast_arrays(best, attained)
    return jnp.maximum(best - attained, 0)


@jax.jit
def _mean_regret(
    chain: TwoStateChain, believed: TwoStateChain, value: ArrayLike, cost: ArrayLike
) -> MeanRegret:
    """Mean over the last axis of `believed`, with the normal interval of a mean."""
    lost = _regret(chain, believed, value, cost)
    mean = jnp.mean(lost, axis=-1)
    reach = _INTERVAL * jnp.std(lost, axis=-1, ddof=1) / jnp.sqrt(lost.shape[-1])
    return MeanRegret(mean, low=jnp.maximum(mean - reach, 0), high=mean + reach)


def _require_one(chain: TwoStateChain) -> None:
    if chain.shape != ():
        raise InputError(f"chain has shape {chain.shape}; give one chain (scalar probabilities)")


def _require_rounds(rounds: int) -> None:
    require("rounds", rounds, lambda x: x >= 0, "give a number of rounds >= 0")


def _require_draws(draws: int) -> None:
    require("draws", draws, lambda x: x >= 2, "give a number of draws >= 2")
