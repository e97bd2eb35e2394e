"""What to believe of an answer whose label is unseen, and whether to revise it once more.

The belief b is P(the current answer is right | everything seen so far). A revision moves it as the
chain moves accuracy; a verifier's score, or whether the revision changed the answer, move it by
Bayes' rule. The rates come from a `TwoStateChain`, whose p0 is the belief before anything is seen.

Revisions as a signal, free of any verifier: C->C keeps the answer, I->C and C->I change it, and
I->I keeps it with probability `keep_wrong` (rho in docs/theory.md C2). The state is hidden and
"did the answer change" is seen, so beliefs are the filter of a hidden Markov model.

Every function but the dynamic programme acts elementwise, as those of `msjax.theory.chain` do.
docs/theory.md C derives what follows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from msjax.errors import InputError, require, require_probability, require_value_and_cost
from msjax.theory.chain import TwoStateChain, accuracy_curve

__all__ = [
    "ContinuationValues",
    "change_probability",
    "continue_threshold",
    "filter_changes",
    "log_likelihood_of_changes",
    "look_ahead_differs",
    "optimal_continuation",
    "predict",
    "update_on_change",
    "update_on_score",
    "worth_continuing",
]


class ContinuationValues(NamedTuple):
    """The solved stopping problem: row h is for h revisions that may still be made.

    Attributes:
        beliefs: the grid of beliefs (probability), from 0 to 1.
        value_to_go: value expected from here on under the best rule, in units of `value`.
        continues: whether that rule revises once more; row 0 never does.
    """

    beliefs: Float[Array, "grid"]
    value_to_go: Float[Array, "horizon_plus_1 grid"]
    continues: Bool[Array, "horizon_plus_1 grid"]


def predict(chain: TwoStateChain, belief: Real[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Belief after one more revision of which nothing is seen, b' = p_ic + r b.

    Args:
        chain: rates of any shape; p0 is not used.
        belief: b (probability), any shape that broadcasts.

    Returns: b' (probability), of the broadcast shape.

    Raises:
        InputError: a belief outside [0, 1] or NaN.

    Reference: docs/theory.md C1.
    """
    require_probability("belief", belief)
    return _predict(*_together(chain, belief))


def continue_threshold(
    chain: TwoStateChain, value: Real[ArrayLike, "..."], cost: Real[ArrayLike, "..."]
) -> Float[Array, "..."]:
    """Belief below which one more revision pays, (p_ic - cost / value) / (p_ic + p_ci).

    One-step look-ahead: continue iff b is below it. At most pi; at or below 0 no belief is low
    enough.

    Args:
        chain: rates of any shape; p0 is not used.
        value: value of a correct answer, > 0, in any unit (tokens, say).
        cost: cost of one revision in the same unit, >= 0.

    Returns: the threshold, of the broadcast shape; -inf for a frozen chain, which no revision can
    change.

    Raises:
        InputError: value <= 0, cost < 0, or either not finite.

    Reference: docs/theory.md C1.
    """
    require_value_and_cost(value, cost=cost)
    p_ic, p_ci, worth, price = _together(chain, value, cost)
    gap = p_ic + p_ci
    return jnp.where(gap > 0, (p_ic - price / worth) / jnp.where(gap > 0, gap, 1), -jnp.inf)


def worth_continuing(
    chain: TwoStateChain,
    belief: Real[ArrayLike, "..."],
    value: Real[ArrayLike, "..."],
    cost: Real[ArrayLike, "..."],
) -> Bool[Array, "..."]:
    """Whether one more revision pays for itself, value (p_ic - (p_ic + p_ci) b) > cost.

    The rule b < `continue_threshold`, except that a gain which exceeds the cost by no more than
    rounding of the parameters could does not pay, as in `optimal_rounds`. When nothing is seen it
    is the best rule for any number of rounds, not only for one.

    Args:
        chain: rates of any shape; p0 is not used.
        belief: b (probability), any shape that broadcasts.
        value: value of a correct answer, > 0, in any unit (tokens, say).
        cost: cost of one revision in the same unit, >= 0.

    Returns: booleans of the broadcast shape.

    Raises:
        InputError: a belief outside [0, 1], value <= 0, cost < 0, or any of them not finite.

    Reference: docs/theory.md C1.
    """
    require_probability("belief", belief)
    require_value_and_cost(value, cost=cost)
    return _worth_continuing(chain, *(jnp.asarray(x, chain.dtype) for x in (belief, value, cost)))


@jax.jit
def _worth_continuing(
    chain: TwoStateChain,
    belief: Float[Array, "..."],
    value: Float[Array, "..."],
    cost: Float[Array, "..."],
) -> Bool[Array, "..."]:
    p_ic, p_ci, b, worth, price = _together(chain, belief, value, cost)
    repaired, broken, paid = (1 - b) * p_ic, b * p_ci, price / worth
    noise = 4 * jnp.finfo(b.dtype).eps * (p_ic + broken + paid)
    return repaired - broken - paid > noise


def update_on_score(
    belief: Real[ArrayLike, "..."], log_likelihood_ratio: Real[ArrayLike, "..."]
) -> Float[Array, "..."]:
    """Belief after a score of the current answer, logit b' = logit b + log f_C(s) / f_I(s).

    f_C and f_I are the densities of the score for right and for wrong answers. A belief of 0 or 1
    is certain and stays, even if the score was impossible (0 and +inf, 1 and -inf).

    Args:
        belief: b (probability), any shape.
        log_likelihood_ratio: log f_C(s) - log f_I(s) in nats, infinite ones included, any shape
            that broadcasts.

    Returns: b' (probability), of the broadcast shape.

    Raises:
        InputError: a belief outside [0, 1], or NaN in either.

    Reference: docs/theory.md C2.
    """
    require_probability("belief", belief)
    require(
        "log_likelihood_ratio",
        log_likelihood_ratio,
        lambda x: ~np.isnan(x),
        "give log f_C - log f_I; where both densities are 0 the score says nothing, so 0",
    )
    dtype = jnp.result_type(float, belief, log_likelihood_ratio)
    b, ratio = jnp.broadcast_arrays(
        jnp.asarray(belief, dtype), jnp.asarray(log_likelihood_ratio, dtype)
    )
    # The odds, with the larger likelihood scaled to 1: unlike logit b this has a slope at b = 0, 1.
    right = b * jnp.exp(jnp.minimum(ratio, 0))
    wrong = (1 - b) * jnp.exp(-jnp.maximum(ratio, 0))
    return _normalised(right, wrong, otherwise=b)


def change_probability(
    chain: TwoStateChain, belief: Real[ArrayLike, "..."], keep_wrong: Real[ArrayLike, "..."]
) -> Float[Array, "..."]:
    """P(one revision changes the answer) = b p_ci + (1 - b) (p_ic + (1 - p_ic) (1 - rho)).

    Args:
        chain: rates of any shape; p0 is not used.
        belief: b before the revision (probability), any shape that broadcasts.
        keep_wrong: rho, probability that a revision from wrong to wrong keeps the answer.

    Returns: the probability, of the broadcast shape.

    Raises:
        InputError: a belief or keep_wrong outside [0, 1] or NaN.

    Reference: docs/theory.md C2.
    """
    require_probability("belief", belief)
    require_probability("keep_wrong", keep_wrong)
    now_right, now_wrong = _change_distribution(True, *_together(chain, belief, keep_wrong))
    return now_right + now_wrong


def update_on_change(
    chain: TwoStateChain,
    belief: Real[ArrayLike, "..."],
    changed: Bool[ArrayLike, "..."],
    keep_wrong: Real[ArrayLike, "..."],
) -> Float[Array, "..."]:
    """Belief after one revision of which only "did the answer change" is seen.

    changed: b' = (1 - b) p_ic / [(1 - b) p_ic + b p_ci + (1 - b) (1 - p_ic) (1 - rho)],
    kept:    b' = b (1 - p_ci) / [b (1 - p_ci) + (1 - b) (1 - p_ic) rho].

    Where the model gives what was seen the probability 0, b' is the prediction p_ic + r b.

    Args:
        chain: rates of any shape; p0 is not used.
        belief: b before the revision (probability), any shape that broadcasts.
        changed: whether the revision changed the answer, any shape that broadcasts.
        keep_wrong: rho, probability that a revision from wrong to wrong keeps the answer.

    Returns: b' (probability), of the broadcast shape.

    Raises:
        InputError: a belief or keep_wrong outside [0, 1] or NaN, or changed not boolean.

    Reference: docs/theory.md C2.
    """
    require_probability("belief", belief)
    require_probability("keep_wrong", keep_wrong)
    _require_boolean(changed)
    return _update_on_change(*jnp.broadcast_arrays(changed, *_together(chain, belief, keep_wrong)))


def filter_changes(
    chain: TwoStateChain,
    changed: Bool[ArrayLike, "..."],
    keep_wrong: Real[ArrayLike, "..."],
) -> Float[Array, "... rounds_plus_1"]:
    """Beliefs after 0, 1, ..., rounds revisions, given which of them changed the answer.

    `update_on_change` from b_0 = p0 on: b_k = P(right after k | changed[..., :k]).

    Args:
        chain: chain of any shape.
        changed: whether revision k + 1 changed the answer at `[..., k]`; the shape before the
            last axis broadcasts against the chain.
        keep_wrong: rho, probability that a revision from wrong to wrong keeps the answer, any
            shape that broadcasts against the chain.

    Returns: b_k (probability) at `[..., k]`.

    Raises:
        InputError: keep_wrong outside [0, 1] or NaN, or changed not boolean or a scalar.

    Reference: docs/theory.md C2.
    """
    beliefs, _ = _filter(chain, *_observed(chain, changed, keep_wrong))
    return beliefs


def log_likelihood_of_changes(
    chain: TwoStateChain,
    changed: Bool[ArrayLike, "..."],
    keep_wrong: Real[ArrayLike, "..."],
) -> Float[Array, "..."]:
    """Logarithm of the probability of the changes seen, sum_k log P(changed_k | changed_<k).

    Args:
        chain: chain of any shape.
        changed: whether revision k + 1 changed the answer at `[..., k]`; the shape before the
            last axis broadcasts against the chain.
        keep_wrong: rho, probability that a revision from wrong to wrong keeps the answer, any
            shape that broadcasts against the chain.

    Returns: the log-likelihood (nats), of the broadcast shape; -inf for changes that cannot be.

    Raises:
        InputError: keep_wrong outside [0, 1] or NaN, or changed not boolean or a scalar.

    Reference: docs/theory.md C2.
    """
    return _log_likelihood_of_changes(chain, *_observed(chain, changed, keep_wrong))


@jax.jit
def _log_likelihood_of_changes(
    chain: TwoStateChain, changed: Bool[Array, "..."], keep_wrong: Float[Array, "..."]
) -> Float[Array, "..."]:
    _, likelihoods = _filter(chain, changed, keep_wrong)
    possible = likelihoods > 0
    logs = jnp.where(possible, jnp.log(jnp.where(possible, likelihoods, 1)), -jnp.inf)
    return jnp.sum(logs, axis=-1)


def optimal_continuation(
    chain: TwoStateChain,
    value: Real[ArrayLike, ""],
    cost: Real[ArrayLike, ""],
    horizon: int,
    keep_wrong: Real[ArrayLike, ""] | None = None,
    grid_size: int = 1001,
) -> ContinuationValues:
    """The best rule when at most `horizon` revisions may be made, by dynamic programming.

    V_0(b) = value b,
    V_h(b) = max(value b, -cost + E[V_{h-1}(b')]),

    the mean taken over what the revision shows: whether the answer changed, or nothing if
    `keep_wrong` is None. Nothing seen, V_h(b) = max_{k <= h} (value p_k(b) - cost k) exactly.
    Otherwise V_{h-1}, which is convex and piecewise linear, is interpolated linearly between the
    points of the grid, so `value_to_go` is an upper bound that falls to V_h as the grid gets finer,
    and `continues` may err within a cell of the belief where it changes. Stopping wins ties, to
    within rounding.

    Args:
        chain: a scalar chain (`vmap` for more); p0 is not used.
        value: value of a correct answer, > 0, in any unit (tokens, say).
        cost: cost of one revision in the same unit, >= 0.
        horizon: the most revisions that may be made (rounds), >= 0.
        keep_wrong: rho, probability that a revision from wrong to wrong keeps the answer; None if
            nothing is seen of a revision.
        grid_size: number of equally spaced beliefs from 0 to 1, >= 2.

    Returns: `ContinuationValues` of shapes [grid_size] and [horizon + 1, grid_size].

    Raises:
        InputError: a chain that is not scalar, value <= 0, cost < 0, either not finite,
            horizon < 0, keep_wrong outside [0, 1] or grid_size < 2.

    Reference: docs/theory.md C1 and C2.
    """
    if chain.shape != ():
        raise InputError(f"chain has shape {chain.shape}; give one chain, or use jax.vmap")
    require_value_and_cost(value, cost=cost)
    require("horizon", horizon, lambda x: x >= 0, "give a number of rounds >= 0")
    require("grid_size", grid_size, lambda x: x >= 2, "give a number of beliefs >= 2")
    worth, price = jnp.asarray(value, chain.dtype), jnp.asarray(cost, chain.dtype)
    beliefs = jnp.linspace(0, 1, grid_size, dtype=chain.dtype)
    stopped = worth * beliefs
    if keep_wrong is None:
        continued = _continued_blindly(chain, beliefs, worth, price, horizon)
    else:
        continued = _continued_seeing(chain, beliefs, worth, price, horizon, keep_wrong)
    continued = jnp.concatenate([jnp.full((1, grid_size), -jnp.inf, chain.dtype), continued])
    slack = 16 * jnp.finfo(chain.dtype).eps * (worth + price * horizon)
    return ContinuationValues(
        beliefs, jnp.maximum(stopped[None], continued), continued > (stopped + slack)[None]
    )


def look_ahead_differs(
    chain: TwoStateChain,
    value: Real[ArrayLike, ""],
    cost: Real[ArrayLike, ""],
    horizon: int,
    keep_wrong: Real[ArrayLike, ""] | None = None,
    grid_size: int = 1001,
) -> Bool[Array, "horizon_plus_1 grid"]:
    """Where the one-step rule `worth_continuing` stops although the best rule continues.

    The two never differ the other way round. They differ nowhere if nothing is seen of a
    revision, with one revision left, or if cost >= value p_ic; otherwise a revision can be worth
    more than its own gain, for what it tells about those that may follow.

    Args: those of `optimal_continuation`, which gives the grid of beliefs.

    Returns: booleans aligned with its `continues`: row h is for h revisions left.

    Raises:
        InputError: as `optimal_continuation`.

    Reference: docs/theory.md C1 and C2.
    """
    best = optimal_continuation(chain, value, cost, horizon, keep_wrong, grid_size)
    myopic = worth_continuing(chain, best.beliefs, value, cost)
    return best.continues & ~myopic[None]


def _require_boolean(changed: Bool[ArrayLike, "..."]) -> None:
    if not jnp.issubdtype(jnp.result_type(changed), jnp.bool_):
        raise InputError(f"changed has type {jnp.result_type(changed)}; give booleans")


def _together(chain: TwoStateChain, *others: Real[ArrayLike, "..."]) -> list[Array]:
    """p_ic, p_ci and the others, brought to the chain's type and one shape."""
    arrays = (jnp.asarray(other, chain.dtype) for other in others)
    return [*jnp.broadcast_arrays(chain.p_ic, chain.p_ci, *arrays)]  # a tuple in newer JAX


def _predict(
    p_ic: Float[Array, "..."], p_ci: Float[Array, "..."], belief: Float[Array, "..."]
) -> Float[Array, "..."]:
    """p_ic + r b as a sum of terms >= 0, which cannot leave [0, 1]."""
    return belief * (1 - p_ci) + (1 - belief) * p_ic


def _change_distribution(
    changed: Bool[ArrayLike, "..."],
    p_ic: Float[Array, "..."],
    p_ci: Float[Array, "..."],
    belief: Float[Array, "..."],
    keep_wrong: Float[Array, "..."],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """P(seen and now right) and P(seen and now wrong), where seen is `changed`."""
    b, wrong_to_wrong = belief, (1 - belief) * (1 - p_ic)
    now_right = jnp.where(changed, (1 - b) * p_ic, b * (1 - p_ci))
    now_wrong = jnp.where(
        changed, b * p_ci + wrong_to_wrong * (1 - keep_wrong), wrong_to_wrong * keep_wrong
    )
    return now_right, now_wrong


def _continued_blindly(
    chain: TwoStateChain,
    beliefs: Float[Array, "grid"],
    value: Float[Array, ""],
    cost: Float[Array, ""],
    horizon: int,
) -> Float[Array, "horizon grid"]:
    """Value of revising now, with 1..horizon revisions left, if nothing is seen of them.

    Beliefs then follow the accuracy curve whatever happens, so a rule is a number of rounds.
    """
    curve = accuracy_curve(TwoStateChain(beliefs, chain.p_ic, chain.p_ci), horizon)
    net = value * curve - cost * jnp.arange(horizon + 1)[None]
    return jax.lax.cummax(net[:, 1:], axis=1).T


def _continued_seeing(
    chain: TwoStateChain,
    beliefs: Float[Array, "grid"],
    value: Float[Array, ""],
    cost: Float[Array, ""],
    horizon: int,
    keep_wrong: Real[ArrayLike, ""],
) -> Float[Array, "horizon grid"]:
    """Value of revising now, with 1..horizon revisions left, if changes are seen."""
    likely = change_probability(chain, beliefs, keep_wrong)
    if_changed = update_on_change(chain, beliefs, True, keep_wrong)
    if_kept = update_on_change(chain, beliefs, False, keep_wrong)
    stopped = value * beliefs

    def step(values: Array, _: None) -> tuple[Array, Array]:
        changed = jnp.interp(if_changed, beliefs, values)
        kept = jnp.interp(if_kept, beliefs, values)
        continued = likely * changed + (1 - likely) * kept - cost
        return jnp.maximum(stopped, continued), continued

    _, continued = jax.lax.scan(step, stopped, length=horizon)
    return continued


def _normalised(
    right: Float[Array, "..."], wrong: Float[Array, "..."], otherwise: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Share of `right` in right + wrong, or `otherwise` where both are 0."""
    total = right + wrong
    return jnp.where(total > 0, right / jnp.where(total > 0, total, 1), otherwise)


def _update_on_change(
    changed: Bool[Array, "..."],
    p_ic: Float[Array, "..."],
    p_ci: Float[Array, "..."],
    belief: Float[Array, "..."],
    keep_wrong: Float[Array, "..."],
) -> Float[Array, "..."]:
    right, wrong = _change_distribution(changed, p_ic, p_ci, belief, keep_wrong)
    return _normalised(right, wrong, otherwise=_predict(p_ic, p_ci, belief))


def _observed(
    chain: TwoStateChain,
    changed: Bool[ArrayLike, "..."],
    keep_wrong: Real[ArrayLike, "..."],
) -> tuple[Bool[Array, "... rounds"], Float[Array, "..."]]:
    """`changed` and `keep_wrong` as arrays, checked to go with the chain and with each other."""
    _require_boolean(changed)
    require_probability("keep_wrong", keep_wrong)
    if jnp.ndim(changed) == 0:
        raise InputError("changed is a scalar; give one boolean per revision, along the last axis")
    shapes = (chain.shape, jnp.shape(keep_wrong), jnp.shape(changed)[:-1])
    try:
        np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise InputError(
            f"shapes of chain, keep_wrong and changed[..., 0] {shapes} do not broadcast; "
            "give one chain per sequence of changes, or a scalar chain"
        ) from error
    return jnp.asarray(changed), jnp.asarray(keep_wrong, chain.dtype)


@jax.jit
def _filter(
    chain: TwoStateChain, changed: Bool[Array, "... rounds"], keep_wrong: Float[Array, "..."]
) -> tuple[Float[Array, "... rounds_plus_1"], Float[Array, "... rounds"]]:
    """Beliefs, and the probability of each observation given those before it."""
    batch = np.broadcast_shapes(chain.shape, keep_wrong.shape, changed.shape[:-1])
    p_ic, p_ci, p0, rho = (
        jnp.broadcast_to(x, batch) for x in _together(chain, chain.p0, keep_wrong)
    )
    seen = jnp.broadcast_to(changed, (*batch, jnp.shape(changed)[-1]))

    def step(belief: Array, now: Array) -> tuple[Array, tuple[Array, Array]]:
        right, wrong = _change_distribution(now, p_ic, p_ci, belief, rho)
        belief = _update_on_change(now, p_ic, p_ci, belief, rho)
        return belief, (belief, right + wrong)

    _, (beliefs, likelihoods) = jax.lax.scan(step, p0, jnp.moveaxis(seen, -1, 0))
    beliefs = jnp.concatenate([p0[None], beliefs])
    return jnp.moveaxis(beliefs, 0, -1), jnp.moveaxis(likelihoods, 0, -1)
