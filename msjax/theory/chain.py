"""The two-state refinement chain and its closed forms.

An answer is correct (C) or incorrect (I). It starts correct with probability `p0`; each
refinement round repairs a wrong answer with probability `p_ic` and breaks a right one with
probability `p_ci`. Everything below follows from those three numbers; docs/theory.md derives it.

Written throughout: `gap` = p_ic + p_ci, r = 1 - gap (the second eigenvalue),
pi = p_ic / gap (the stationary accuracy) and d = p_ic (1 - p0) - p_ci p0 = p_1 - p_0 (the gain of
the first round). Every function acts elementwise: the shape of the chain broadcasts against its
other arguments, and `jit`, `vmap` and (where the result is smooth) `grad` apply.
"""

import dataclasses
import enum
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Real

from msjax.errors import InputError, require, require_probability, require_value_and_cost
from msjax.theory._arrays import together

__all__ = [
    "UNBOUNDED",
    "AccuracyRange",
    "Regime",
    "TwoStateChain",
    "accuracy_after",
    "accuracy_curve",
    "accuracy_range",
    "eigenvalue",
    "half_life",
    "marginal_gain",
    "optimal_rounds",
    "optimal_rounds_with_costs",
    "regime",
    "rounds_to_within",
    "stationary_accuracy",
    "total_variation",
]

UNBOUNDED: int = 2**31 - 1
"""A number of rounds that stands for "no finite number is enough".

The largest int32, so that `jnp.minimum(rounds, cap)` and `accuracy_after(chain, rounds)` keep
their meaning without a special case.
"""

_ROUND_BITS = 31


class Regime(enum.IntEnum):
    """What refinement does to a chain's accuracy."""

    HARMFUL = -1
    NEUTRAL = 0
    BENEFICIAL = 1


class AccuracyRange(NamedTuple):
    """The least upper and greatest lower bound of p_k over all k >= 0 (probabilities)."""

    supremum: Float[Array, "*batch"]
    infimum: Float[Array, "*batch"]


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, init=False, eq=False)
class TwoStateChain:
    """The distribution of one question's correctness over refinement rounds.

    P(X_0 = C) = p0, P(X_{k+1} = C | X_k = I) = p_ic, P(X_{k+1} = I | X_k = C) = p_ci.

    A frozen pytree of three arrays brought to one shape and one floating type when it is made.
    Concrete values are checked then; traced ones cannot be and are taken as they are.

    Args:
        p0: probability that the first answer is right, any shape.
        p_ic: probability per round that a wrong answer becomes right, any shape.
        p_ci: probability per round that a right answer becomes wrong, any shape.

    Raises:
        InputError: a value outside [0, 1] or NaN, or shapes that do not broadcast.

    Reference: docs/theory.md A1; arXiv 2508.16456 writes CS for p_ic and CL for 1 - p_ci.
    """

    p0: Float[Array, "*batch"]
    p_ic: Float[Array, "*batch"]
    p_ci: Float[Array, "*batch"]

    def __init__(self, p0: ArrayLike, p_ic: ArrayLike, p_ci: ArrayLike) -> None:
        given = {"p0": p0, "p_ic": p_ic, "p_ci": p_ci}
        for name, value in given.items():
            require_probability(name, value)
        try:
            arrays = together(*given.values())
        except ValueError as error:
            shapes = {name: jnp.shape(value) for name, value in given.items()}
            raise InputError(
                f"shapes {shapes} do not broadcast; give p0, p_ic and p_ci one shape or scalars"
            ) from error
        for name, array in zip(given, arrays, strict=True):
            object.__setattr__(self, name, array)

    @property
    def shape(self) -> tuple[int, ...]:
        """The common shape of the three probabilities."""
        return self.p0.shape

    @property
    def dtype(self) -> Any:
        """The common floating type of the three probabilities."""
        return self.p0.dtype

    def tree_flatten_with_keys(self) -> tuple[tuple[tuple[Any, Any], ...], None]:
        """The three probabilities as named leaves, for JAX."""
        names = ("p0", "p_ic", "p_ci")
        return tuple((jax.tree_util.GetAttrKey(n), getattr(self, n)) for n in names), None

    @classmethod
    def tree_unflatten(cls, _: None, leaves: tuple[Any, Any, Any]) -> "TwoStateChain":
        """A chain of any leaves, for JAX: tracers and placeholders too, so nothing is checked."""
        chain = object.__new__(cls)
        for name, leaf in zip(("p0", "p_ic", "p_ci"), leaves, strict=True):
            object.__setattr__(chain, name, leaf)
        return chain


@jax.jit
def eigenvalue(chain: TwoStateChain) -> Float[Array, "*batch"]:
    """Second eigenvalue of the transition matrix, r = 1 - p_ic - p_ci, in [-1, 1].

    Returns: r, of the chain's shape. 1 is frozen, 0 independent rounds, -1 alternating.

    Reference: docs/theory.md A1; arXiv 2508.16456 (its alpha, CL - CS).
    """
    return 1 - _gap(chain)


@jax.jit
def stationary_accuracy(chain: TwoStateChain) -> Float[Array, "*batch"]:
    """Stationary accuracy, pi = p_ic / (p_ic + p_ci).

    Returns: pi (probability), of the chain's shape; NaN for a frozen chain (p_ic = p_ci = 0),
    which keeps any accuracy it starts with. It is the limit of p_k whenever |r| < 1.

    Reference: docs/theory.md A1; arXiv 2508.16456 (its Upp).
    """
    gap = _gap(chain)
    return jnp.where(gap > 0, chain.p_ic / _nonzero(gap), jnp.nan)


def accuracy_after(chain: TwoStateChain, k: Int[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Accuracy after k rounds, p_k = pi + r^k (p0 - pi).

    Evaluated as p0 + d (1 + r + ... + r^{k-1}), which is the same number but has no pole at the
    frozen chain; correct and differentiable for every chain, to a few units of rounding.

    Args:
        chain: chain of any shape.
        k: rounds, integers >= 0 (up to `UNBOUNDED`), any shape that broadcasts.

    Returns: p_k (probability), of the broadcast shape.

    Raises:
        InputError: a negative or fractional number of rounds.

    Reference: docs/theory.md A1; MarkovScale arXiv 2602.01120 (transient); arXiv 2508.16456.
    """
    return _accuracy_after(chain, _rounds(k))


def accuracy_curve(chain: TwoStateChain, rounds: int) -> Float[Array, "*batch {rounds}+1"]:
    """The accuracies p_0, p_1, ..., p_rounds along a new last axis.

    Args:
        chain: chain of any shape.
        rounds: number of rounds, >= 0.

    Returns: p_k (probability) at `[..., k]`.

    Raises:
        InputError: a negative number of rounds.

    Reference: docs/theory.md A1.
    """
    require("rounds", rounds, lambda x: x >= 0, "give a number of rounds >= 0")
    return jax.vmap(accuracy_after, in_axes=(None, 0), out_axes=-1)(chain, jnp.arange(rounds + 1))


def marginal_gain(chain: TwoStateChain, k: Int[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Gain of one more round after k, p_{k+1} - p_k = r^k d = p_ic - (p_ic + p_ci) p_k.

    Args:
        chain: chain of any shape.
        k: rounds already done, integers >= 0, any shape that broadcasts.

    Returns: the gain (probability, signed), accurate relative to its own size however small.

    Raises:
        InputError: a negative or fractional number of rounds.

    Reference: docs/theory.md A5; MarkovScale arXiv 2602.01120 (*interpretation*).
    """
    return _marginal_gain(chain, _rounds(k))


@jax.jit
def regime(chain: TwoStateChain) -> Int[Array, "*batch"]:
    """Whether refinement helps: the sign of d = p_ic (1 - p0) - p_ci p0, that is of pi - p0.

    For |r| < 1 this is the sign of p_k - p_0 at every k >= 1. It is not the sign of p_ic - p_ci:
    p0 = .9, p_ic = .4, p_ci = .2 is harmful.

    Returns: `Regime` values as int32, of the chain's shape. A difference that rounding of the
    three probabilities could have made counts as `NEUTRAL`, and so does a frozen chain.

    Reference: docs/theory.md A2; MarkovScale arXiv 2602.01120 Theorem 3.1 (*interpretation*: the
    beneficial, neutral and harmful cases are known from its abstract and reviews).
    """
    return jnp.sign(_resolved_first_gain(chain)).astype(jnp.int32)


@jax.jit
def accuracy_range(chain: TwoStateChain) -> AccuracyRange:
    """Bounds of the whole curve: sup_k p_k = max(p0, p_1, pi), inf_k p_k = min(p0, p_1, pi).

    p_1 decides only when r < 0: the curve then overshoots pi and k = 1 is its extreme. Frozen
    chains have p0 for both. The supremum at pi is approached, not attained, when 0 < r < 1.

    Returns: `AccuracyRange` of probabilities, each of the chain's shape.

    Reference: docs/theory.md A3; MarkovScale arXiv 2602.01120 (bounds for one question,
    *interpretation*).
    """
    pi = stationary_accuracy(chain)
    limit = jnp.where(jnp.isnan(pi), chain.p0, pi)
    first = accuracy_after(chain, 1)
    return AccuracyRange(
        supremum=jnp.maximum(jnp.maximum(chain.p0, first), limit),
        infimum=jnp.minimum(jnp.minimum(chain.p0, first), limit),
    )


def total_variation(chain: TwoStateChain, k: Int[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Distance of the distribution after k rounds from the stationary one, |p_k - pi| = |r|^k |p0 -
    pi|.

    Args:
        chain: chain of any shape.
        k: rounds, integers >= 0, any shape that broadcasts.

    Returns: the total variation distance (probability), accurate relative to its own size; NaN
    for a frozen chain, which has no single stationary distribution.

    Raises:
        InputError: a negative or fractional number of rounds.

    Reference: docs/theory.md A4.
    """
    return _total_variation(chain, _rounds(k))


def rounds_to_within(chain: TwoStateChain, eps: Real[ArrayLike, "..."]) -> Int[Array, "..."]:
    """Rounds until p_k stays within eps of its limit, ceil(log(eps / |p0 - pi|) / log|r|).

    The smallest k with |p_k - limit| <= eps, where eps is met to within rounding. A frozen chain
    is at its limit p0 from the start; independent rounds (r = 0) need at most one.

    Args:
        chain: chain of any shape.
        eps: tolerance (probability), >= 0, any shape that broadcasts.

    Returns: int32 rounds, `UNBOUNDED` where no k will do (r = -1, or eps = 0 with 0 < |r| < 1).

    Raises:
        InputError: a negative or NaN tolerance.

    Reference: docs/theory.md A4.
    """
    require("eps", eps, lambda x: x >= 0, "give a tolerance >= 0")
    return _rounds_to_within(chain, jnp.asarray(eps, chain.dtype))


@jax.jit
def half_life(chain: TwoStateChain) -> Float[Array, "*batch"]:
    """Rounds in which the distance to pi halves, log 2 / -log|r|.

    Returns: half-life (rounds, a real number), of the chain's shape: 0 for r = 0, infinite for
    |r| = 1.

    Reference: docs/theory.md A4.
    """
    decay = -_log_abs_eigenvalue(_gap(chain))
    return jnp.where(decay > 0, math.log(2) / _nonzero(decay), jnp.inf)


def optimal_rounds(
    chain: TwoStateChain, value: Real[ArrayLike, "..."], cost: Real[ArrayLike, "..."]
) -> Int[Array, "..."]:
    """The number of rounds N* that maximises `value` p_k - `cost` k; ties go to the smaller k.

    0 < r < 1: max(0, ceil(log(cost / (value d)) / log r)) if d > 0, else 0.
    r <= 0:    1 if value d > cost, else 0 (no later round beats the first).
    r = 1:     0.

    N* attains the maximum to within rounding of the parameters: where two neighbouring k are
    tied to that accuracy, the smaller is returned.

    Args:
        chain: chain of any shape.
        value: value of a correct answer, > 0, in any unit (tokens, say).
        cost: cost of one round in the same unit, >= 0.

    Returns: int32 rounds of the broadcast shape. `UNBOUNDED` when rounds are free and 0 < r < 1
    and d > 0: the supremum pi is then only approached. With a cap the best is `min(N*, cap)`.

    Raises:
        InputError: value <= 0, cost < 0, or either not finite.

    Reference: docs/theory.md A6; MarkovScale arXiv 2602.01120 (optimal scaling,
    *interpretation*).
    """
    require_value_and_cost(value, cost=cost)
    worth, price = (jnp.asarray(x, chain.dtype) for x in (value, cost))
    return _optimal_rounds(chain, worth, price)


def optimal_rounds_with_costs(
    chain: TwoStateChain, value: Real[ArrayLike, ""], costs: Real[ArrayLike, "rounds"]
) -> Int[Array, "*batch"]:
    """The k in 0..rounds that maximises `value` p_k - (costs[0] + ... + costs[k-1]).

    For rounds whose cost differs, as when the context grows. Ties, to within rounding, go to the
    smaller k.

    Args:
        chain: chain of any shape.
        value: value of a correct answer, > 0, in any unit.
        costs: cost of each round in the same unit, >= 0; its length is the largest k considered.

    Returns: int32 rounds, of the chain's shape.

    Raises:
        InputError: value <= 0, a negative cost, either not finite, or costs not a vector.

    Reference: docs/theory.md A6.
    """
    require_value_and_cost(value, costs=costs)
    if jnp.ndim(costs) != 1:
        raise InputError(f"costs has shape {jnp.shape(costs)}; give one cost per round, a vector")
    worth, per_round = (jnp.asarray(x, chain.dtype) for x in (value, costs))
    return _optimal_rounds_with_costs(chain, worth, per_round)


def _rounds(k: ArrayLike) -> Int[Array, "..."]:
    """`k` as an int32 array, checked to be whole and non-negative."""
    if not jnp.issubdtype(jnp.result_type(k), jnp.integer):
        raise InputError(f"k is {k}; give the number of rounds as an integer")
    require("k", k, lambda x: x >= 0, "give a number of rounds >= 0")
    return jnp.asarray(k, jnp.int32)


# The closed forms behind their checks, which need values: one program for each, not one for each
# operation.


@jax.jit
def _accuracy_after(chain: TwoStateChain, k: Int[Array, "..."]) -> Float[Array, "..."]:
    gap, first_gain, p0, rounds = jnp.broadcast_arrays(_gap(chain), _first_gain(chain), chain.p0, k)
    accuracy = p0 + first_gain * _geometric_sum(gap, rounds)
    # Rounding may leave [0, 1] by an ulp. Clipping the value alone keeps the slope at p0 = 0 or 1.
    return accuracy + jax.lax.stop_gradient(jnp.clip(accuracy, 0, 1) - accuracy)


@jax.jit
def _marginal_gain(chain: TwoStateChain, k: Int[Array, "..."]) -> Float[Array, "..."]:
    gap, first_gain, rounds = jnp.broadcast_arrays(_gap(chain), _first_gain(chain), k)
    return first_gain * _eigenvalue_power(gap, rounds)


@jax.jit
def _total_variation(chain: TwoStateChain, k: Int[Array, "..."]) -> Float[Array, "..."]:
    gap, first_gain, rounds = jnp.broadcast_arrays(_gap(chain), _first_gain(chain), k)
    distance = jnp.abs(first_gain) / _nonzero(gap) * jnp.abs(_eigenvalue_power(gap, rounds))
    return jnp.where(gap > 0, distance, jnp.nan)


@jax.jit
def _rounds_to_within(chain: TwoStateChain, eps: Float[Array, "..."]) -> Int[Array, "..."]:
    gap, first_gain, condition, tolerance = jnp.broadcast_arrays(
        _gap(chain),
        jnp.abs(_resolved_first_gain(chain)),
        _condition(chain),
        eps,
    )
    distance = first_gain / _nonzero(gap)
    ratio = jnp.where(distance > 0, tolerance / _nonzero(distance), 1.0)
    rounds = _solve_decay(jnp.log(jnp.minimum(ratio, 1)), gap, condition)
    rounds = jnp.where(gap == 1, 1, jnp.where(gap == 2, UNBOUNDED, rounds))
    return jnp.where(distance <= tolerance, 0, rounds)


@jax.jit
def _optimal_rounds(
    chain: TwoStateChain, value: Float[Array, "..."], cost: Float[Array, "..."]
) -> Int[Array, "..."]:
    gap, first_gain, condition, worth, price = jnp.broadcast_arrays(
        _gap(chain),
        _resolved_first_gain(chain),
        _condition(chain),
        value,
        cost,
    )
    log_ratio = jnp.log(price / worth) - jnp.log(jnp.where(first_gain > 0, first_gain, 1.0))
    several = _solve_decay(log_ratio, gap, condition)
    one = (log_ratio < -_rounding(gap, condition)).astype(jnp.int32)
    return jnp.where(first_gain > 0, jnp.where(gap < 1, several, one), 0)


@jax.jit
def _optimal_rounds_with_costs(
    chain: TwoStateChain, value: Float[Array, ""], per_round: Float[Array, " rounds"]
) -> Int[Array, "*batch"]:
    spent = jnp.concatenate([jnp.zeros(1, chain.dtype), jnp.cumsum(per_round)])
    curve = value * accuracy_curve(chain, per_round.shape[0])
    curve, spent = jnp.broadcast_arrays(curve, spent)
    worth = curve - spent
    slack = 4 * jnp.finfo(chain.dtype).eps * jnp.max(curve + spent, axis=-1, keepdims=True)
    best = jnp.max(worth, axis=-1, keepdims=True)
    return jnp.argmax(worth >= best - slack, axis=-1).astype(jnp.int32)


def _nonzero(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x` with its zeros replaced by ones: a divisor for results that `where` discards there."""
    return jnp.where(x == 0, 1.0, x)


def _gap(chain: TwoStateChain) -> Float[Array, "*batch"]:
    return chain.p_ic + chain.p_ci


def _first_gain(chain: TwoStateChain) -> Float[Array, "*batch"]:
    return chain.p_ic * (1 - chain.p0) - chain.p_ci * chain.p0


def _resolved_first_gain(chain: TwoStateChain) -> Float[Array, "*batch"]:
    """d, or 0 where rounding of p0, p_ic and p_ci alone could have produced it."""
    first_gain = _first_gain(chain)
    noise = 4 * jnp.finfo(chain.dtype).eps * (chain.p_ic + chain.p_ci * chain.p0)
    return jnp.where(jnp.abs(first_gain) <= noise, 0.0, first_gain)


def _condition(chain: TwoStateChain) -> Float[Array, "*batch"]:
    """Factor by which computing d amplifies relative rounding errors of the probabilities."""
    return (chain.p_ic + chain.p_ci * chain.p0) / _nonzero(jnp.abs(_first_gain(chain)))


def _rounding(gap: Float[Array, "..."], condition: Float[Array, "..."]) -> Float[Array, "..."]:
    """Bound on the rounding error of a logarithm of something proportional to d."""
    return 4 * jnp.finfo(gap.dtype).eps * (1 + condition)


def _log_abs_eigenvalue(gap: Float[Array, "..."]) -> Float[Array, "..."]:
    """log|r|: log(1 - gap) below gap = 1 and log(gap - 1) above, without cancellation."""
    return jnp.log1p(-jnp.minimum(gap, 2 - gap))


def _solve_decay(
    log_ratio: Float[Array, "..."], gap: Float[Array, "..."], condition: Float[Array, "..."]
) -> Int[Array, "..."]:
    """Smallest integer k >= 0 with |r|^k <= exp(log_ratio), for 0 < |r| < 1 (else any value).

    A solution within rounding of an integer is taken to be that integer, so that exact ties in
    decimal inputs are not pushed to the next round by their binary representation.
    """
    decays = (gap > 0) & (gap < 2) & (gap != 1)
    inner = jnp.where(decays, gap, 0.5)
    log_r = _log_abs_eigenvalue(inner)
    exact = log_ratio / log_r
    slack = 4 * jnp.finfo(gap.dtype).eps * jnp.abs(exact) / jnp.abs(1 - inner)
    slack = slack - _rounding(gap, condition) / log_r
    finite = exact < UNBOUNDED
    rounds = jnp.where(finite, jnp.maximum(jnp.ceil(exact - slack), 0), 0).astype(jnp.int32)
    return jnp.where(finite, rounds, UNBOUNDED)


@jax.jit
def _geometric_sum(gap: Float[Array, "..."], k: Int[Array, "..."]) -> Float[Array, "..."]:
    """G_k = 1 + r + ... + r^{k-1} = (1 - r^k) / gap, by the binary digits of k.

    G_{2k} = G_k (2 - gap G_k) and G_{k+1} = 1 + G_k - gap G_k. In this form, which never forms
    r itself, the relative error stays a few ulp near the frozen chain (where that of r^k grows
    like k), no chain is a special case, and the derivatives are those of a polynomial.
    """

    def double_and_add(i: Int[Array, ""], total: Float[Array, "..."]) -> Float[Array, "..."]:
        total = total * (2 - gap * total)
        digit = (k >> (_ROUND_BITS - 1 - i)) & 1
        return jnp.where(digit == 1, 1 + total - gap * total, total)

    return jax.lax.fori_loop(0, _ROUND_BITS, double_and_add, jnp.zeros_like(gap))


@jax.custom_jvp
def _eigenvalue_power(gap: Float[Array, "..."], k: Int[Array, "..."]) -> Float[Array, "..."]:
    """r^k = (1 - gap)^k through log1p, accurate relative to its own size for every gap."""
    proper = gap != 1
    log_r = _log_abs_eigenvalue(jnp.where(proper, gap, 0.0))
    size = jnp.where(proper, jnp.exp(k.astype(gap.dtype) * log_r), (k == 0).astype(gap.dtype))
    return jnp.where((gap > 1) & (k % 2 == 1), -size, size)


@_eigenvalue_power.defjvp
def _eigenvalue_power_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # The logarithm has no derivative at r = 0, where r^k does.
    gap, k = primals
    slope = -k.astype(gap.dtype) * _eigenvalue_power(gap, jnp.maximum(k - 1, 0))
    return _eigenvalue_power(gap, k), slope * tangents[0]
