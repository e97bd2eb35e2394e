"""MarkovScale's rule: revise a question only while the chain says it pays (gate + N*)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from msjax.errors import InputError, require, require_probability, require_value_and_cost
from msjax.rules.protocol import Decision, Observation, StoppingRule, restopped
from msjax.theory.chain import TwoStateChain, accuracy_curve, stationary_accuracy


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
    confidence: float | None = None,
) -> RoundPlan:
    """Expected net value of every number of rounds, over posterior draws.

    net_k = V E[p_k | data] - price * sum_{j<=k} tokens_j, where the expectation is over posterior
    draws of the accuracy curve, not p_k at the posterior mean of the parameters: p_k is not linear
    in them, so the two rules can differ. The curve may be that of one chain
    (`msjax.theory.chain.accuracy_curve`) or of any model of a benchmark. Stopping at k is right iff
    no j > k has a larger net_j; since nothing about the single question is observed, this
    look-ahead is the exact optimum, also when r < 0 or when rounds cost unequally.

    That is risk-neutral. With `confidence` = 1 - delta the rule is risk-averse: it goes on only if
    some later j has P(V (p_j - p_k) > its cost | data) >= confidence. One draw (of the posterior
    means, say) makes the plug-in rule.

    Args:
        accuracy: posterior draws of p_0, ..., p_K (probabilities).
        tokens_per_round: expected uncached tokens of rounds 1..K (K is the horizon), shape [K].
        value: worth of one correct answer.
        price: cost of one token in the same unit.
        confidence: 1 - delta in (0, 1) of the risk-averse rule; None for the risk-neutral one.

    Raises:
        InputError: value or price is not a finite positive number (price may be 0), token counts
            are not finite and non-negative, accuracies are no probabilities of rounds 0..K, or
            confidence is not in (0, 1).

    Reference: MarkovScale (arXiv 2602.01120), gate and optimal scaling, *interpretation*;
        docs/theory.md A6 (argmax with unequal costs) and docs/stopping.md.
    """
    if confidence is not None and not 0 < confidence < 1:
        raise InputError(f"confidence = {confidence}: 1 - delta must lie between 0 and 1")
    require_value_and_cost(value, price=price)
    tokens = np.asarray(tokens_per_round, dtype=np.float32)
    if not (np.isfinite(tokens).all() and (tokens >= 0).all()):
        raise InputError(f"tokens_per_round = {tokens.tolist()}: must be finite and not negative")
    if accuracy.shape[-1] != len(tokens) + 1:
        if not len(tokens):
            raise InputError("no round of revision was recorded, so none can be planned")
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
    return _plan(jnp.asarray(accuracy, jnp.float32), tokens, value, price, confidence)


@jax.jit
def _plan(
    draws: Float[Array, "draw rounds_plus_1"],
    tokens: Float[Array | np.ndarray, "rounds"],
    value: float | Float[Array, ""],
    price: float | Float[Array, ""],
    confidence: float | Float[Array, ""] | None,
) -> RoundPlan:
    p_k = jnp.mean(draws, axis=0)
    spent = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jnp.asarray(tokens))])
    net = value * p_k - price * spent
    if confidence is not None:
        each = value * draws - price * spent[None]
        surely = jnp.mean(each[:, None, :] > each[:, :, None], axis=0) >= confidence
        return RoundPlan(p_k, net, ~jnp.triu(surely, 1).any(axis=1))
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


def question_rounds(
    chain: TwoStateChain,
    tokens_per_round: Float[Array | np.ndarray, "rounds"],
    *,
    prior_mean: Real[ArrayLike, ""] = 0.5,
    prior_strength: Real[ArrayLike, ""] = 1.0,
    value: float = 1.0,
    price: Real[ArrayLike, ""],
) -> StoppingRule:
    """MarkovScale question by question: estimate p0(q), gate on p0(q) < pi, then N* rounds.

    p0(q) has the prior Beta(1 + n m, 1 + n (1 - m)) of mean m and strength n; the score s in [0, 1]
    of the first answer counts as one trial with s successes, so that the mode is

        p0(q) = (n m + s) / (n + 1),

    or m without a score. The question is revised N* = argmax_k V p_k - price * (tokens of rounds
    1..k) times, p_k from p0(q) and the chain's rates; not at all if p0(q) >= pi. The training-free
    variant (superscript 0) keeps the default prior, the training-based one (t) is given a mean
    predicted from the question. The last answer is returned.

    Args:
        chain: rates, scalar; its p0 is not used.
        tokens_per_round: expected uncached tokens of rounds 1..K (K is the horizon).
        prior_mean: m (probability).
        prior_strength: n > 0, scores that the prior is worth.
        value: worth of one correct answer.
        price: cost of one token in the same unit, >= 0.

    Raises:
        InputError: prior_mean outside [0, 1], prior_strength or value not positive, price negative.

    Reference: MarkovScale (arXiv 2602.01120), *interpretation*; docs/theory.md C5.
    """
    require_probability("prior_mean", prior_mean)
    require("prior_strength", prior_strength, lambda x: x > 0, "give a number of scores > 0")
    require_value_and_cost(value, price=price)
    tokens = jnp.asarray(tokens_per_round, jnp.float32)
    spent = jnp.concatenate([jnp.zeros(1), jnp.cumsum(tokens)]) * price
    horizon = len(tokens)
    pi = stationary_accuracy(chain)

    def init() -> tuple[Int[Array, ""], Float[Array, ""]]:
        return jnp.int32(0), jnp.float32(0)

    def update(
        state: tuple[Int[Array, ""], Float[Array, ""]], seen: Observation
    ) -> tuple[tuple[Int[Array, ""], Float[Array, ""]], Decision]:
        rounds, p0 = state
        scored = ~jnp.isnan(seen.score)
        s = jnp.clip(jnp.where(scored, seen.score, 0), 0, 1)
        estimate = jnp.where(
            scored, (prior_strength * prior_mean + s) / (prior_strength + 1), prior_mean
        )
        p0 = jnp.where(rounds == 0, estimate, p0).astype(jnp.float32)
        curve = accuracy_curve(TwoStateChain(p0, chain.p_ic, chain.p_ci), horizon)
        best = jnp.where(p0 < pi, jnp.argmax(value * curve - spent), 0)
        belief = curve[jnp.minimum(rounds, horizon)].astype(jnp.float32)
        return (rounds + 1, p0), Decision(rounds >= best, seen.answer_id, belief)

    return StoppingRule(init, update)


def without_gate(rule: StoppingRule) -> StoppingRule:
    """The rule with its gate removed: it never stops at the first answer (an ablation)."""
    return restopped(rule, lambda answers, stop: stop & (answers > 1))


def without_optimal_rounds(rule: StoppingRule, rounds: int) -> StoppingRule:
    """The rule with N* removed: once the gate is open it goes on to `rounds` (an ablation).

    Raises:
        InputError: rounds is below 1.
    """
    if rounds < 1:
        raise InputError(f"rounds = {rounds}: give the rounds that follow an open gate, 1 or more")
    return restopped(rule, lambda answers, stop: jnp.where(answers == 1, stop, answers > rounds))
