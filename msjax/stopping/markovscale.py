"""MarkovScale's rule: revise a question only while the chain says it pays (gate + N*)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from msjax.errors import InputError, require
from msjax.stopping.protocol import Decision, Observation, StoppingRule


class RoundPlan(NamedTuple):
    """The posterior-aware plan of one benchmark, round by round.

    Attributes:
        accuracy: E[p_k | data] for k = 0..K.
        net_value: V E[p_k | data] - price * (tokens of rounds 1..k), in units of value.
        stop: whether stopping at k is at least as good as any later stop.
    """

    accuracy: Float[Array, "rounds_plus_1"]
    net_value: Float[Array, "rounds_plus_1"]
    stop: Bool[Array, "rounds_plus_1"]

    @property
    def optimal_rounds(self) -> int:
        """N*: the round at which a question stops; 0 means the gate is closed."""
        return int(np.argmax(np.asarray(self.stop)))


def plan_rounds(
    accuracy: Float[Array | np.ndarray, "draw rounds_plus_1"],
    tokens_per_round: Float[Array | np.ndarray, "rounds"],
    *,
    value: float = 1.0,
    price: float,
) -> RoundPlan:
    """Expected net value of every number of rounds, over posterior draws.

    net_k = V E[p_k | data] - price * sum_{j<=k} tokens_j, where the expectation is over posterior
    draws of the accuracy curve, not p_k at the posterior mean of the parameters: p_k is not linear
    in them, so the two rules can differ. The curve may be that of one chain
    (`msjax.chain.accuracy_curve`) or of any model of a benchmark. Stopping at k is right iff no
    j > k has a larger net_j; since nothing about the single question is observed, this look-ahead
    is the exact optimum, also when r < 0 or when rounds cost unequally.

    Args:
        accuracy: posterior draws of p_0, ..., p_K (probabilities).
        tokens_per_round: expected computed tokens of rounds 1..K (K is the horizon), shape [K].
        value: worth of one correct answer.
        price: cost of one token in the same unit.

    Raises:
        InputError: value or price is not a finite positive number (price may be 0), token counts
            are not finite and non-negative, or accuracies are no probabilities of rounds 0..K.

    Reference: MarkovScale (arXiv 2602.01120), gate and optimal scaling, *interpretation*;
        docs/theory.md A6 (argmax with unequal costs) and docs/stopping.md.
    """
    if not (np.isfinite(value) and value > 0):
        raise InputError(f"value = {value}: the worth of a correct answer must be positive")
    if not (np.isfinite(price) and price >= 0):
        raise InputError(f"price = {price}: the price of a token must be 0 or more")
    tokens = np.asarray(tokens_per_round, dtype=np.float32)
    if not (np.isfinite(tokens).all() and (tokens >= 0).all()):
        raise InputError(f"tokens_per_round = {tokens.tolist()}: must be finite and not negative")
    if accuracy.shape[-1] != len(tokens) + 1:
        raise InputError(
            f"accuracy has {accuracy.shape[-1]} rounds, tokens_per_round {len(tokens)}; "
            "give p_0..p_K and the tokens of rounds 1..K"
        )
    require(
        "accuracy",
        accuracy,
        lambda p: (p >= -1e-6) & (p <= 1 + 1e-6),
        "a probability lies in [0, 1]",
    )
    p_k = jnp.mean(jnp.asarray(accuracy, jnp.float32), axis=0)
    spent = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jnp.asarray(tokens))])
    net = value * p_k - price * spent
    best_later = jnp.append(jax.lax.cummax(net[1:], reverse=True), -jnp.inf)
    return RoundPlan(p_k, net, net >= best_later)


def posterior_rounds(plan: RoundPlan) -> StoppingRule:
    """Follow a posterior-aware plan: the gate at round 0, then on to N*; return the last answer.

    The belief reported with each decision is E[p_k | data].

    Reference: MarkovScale (arXiv 2602.01120), *interpretation*; docs/stopping.md.
    """
    horizon = len(plan.stop) - 1

    def init() -> Int[Array, ""]:
        return jnp.int32(0)

    def update(rounds: Int[Array, ""], seen: Observation) -> tuple[Int[Array, ""], Decision]:
        k = jnp.minimum(rounds, horizon)
        return rounds + 1, Decision(plan.stop[k], seen.answer_id, plan.accuracy[k])

    return StoppingRule(init, update)
